"""Repeated rows are found, and dropped after a yes; rare rows drawn again on purpose are not."""

from __future__ import annotations

import torch
from tests.doctor.patients import (
    Reader,
    blobs,
    experiment,
    findings,
    halves,
    mlp,
    seen,
    token_rows,
)
from tests.doctor.wired import Attention as Letters
from tests.doctor.wired import words_loss

from gipi.doctor.rules.duplicate_rows import RULE, dedupe


def repeated(data, different: int, seed: int = 0):
    g = torch.Generator().manual_seed(seed)
    rows = torch.randint(different, (len(data[1]),), generator=g)
    return data[0][rows], data[1][rows]


def test_repeated_rows_are_named_dropped_and_undone() -> None:
    train, val = blobs()
    exp = experiment(mlp(), (repeated(train, 120), val), epochs=4)
    diagnosis = seen(exp, RULE)
    first = diagnosis.findings[0]
    assert (first.code, first.severity, first.confirmed) == ("duplicate_rows", "problem", True)
    assert diagnosis.repair() is None
    change = first.repairs[0].change
    assert change is not None
    change(exp)
    assert len(exp.train[0]) < 121
    assert exp.total_steps >= 48
    assert findings(exp, RULE) == []


def test_healthy_twins_are_left_alone() -> None:
    assert findings(experiment(mlp(), blobs()), RULE) == []
    X = torch.randint(0, 3, (600, 5), generator=torch.Generator().manual_seed(0)).float()
    assert findings(experiment(mlp(5, 2), halves(X, (X.sum(1) > 5).long())), RULE) == []
    assert findings(experiment(Reader(), token_rows(length=3)), RULE) == []


def test_rare_rows_drawn_again_and_declared_copies_are_left_alone() -> None:
    (X, y), val = blobs(1200, classes=2, weights=[0.9, 0.1])
    rows = torch.cat([torch.arange(len(y)), *[(y == 1).nonzero().flatten()] * 8])
    assert findings(experiment(mlp(out=2), ((X[rows], y[rows]), val)), RULE) == []
    train, val = blobs()
    known = experiment(mlp(), (repeated(train, 100), val), declared={"duplicates": True})
    assert findings(known, RULE) == []


def test_rows_of_a_task_that_is_not_to_be_forgotten_come_again_on_purpose() -> None:
    (X, y), val = blobs()
    old, told = blobs(100, seed=1)[0]
    twice = torch.cat([X, old.repeat(3, 1)]), torch.cat([y, told.repeat(3)])
    known = {"old_task": (old, told)}
    exp = experiment(mlp(), (twice, val), declared=known)
    assert findings(exp, RULE) == []
    assert findings(experiment(mlp(), (twice, val)), RULE) == [RULE.code]
    some = torch.cat([torch.arange(len(X)), torch.arange(60).repeat(4)])
    both = torch.cat([X[some], twice[0][len(X) :]]), torch.cat([y[some], twice[1][len(y) :]])
    exp = experiment(mlp(), (both, val), declared=known)
    assert "240 of" in seen(exp, RULE).findings[0].message
    dedupe(exp)
    assert len(exp.train[0]) == len(twice[0])


def windows(starts):
    """Return rows of 16 letters of one text that begin at some places, and the next letters."""
    text = torch.randint(0, 26, (3000,), generator=torch.Generator().manual_seed(1))
    cut = text[starts[:, None] + torch.arange(17)]
    return halves(cut[:, :-1], cut[:, 1:])


def test_windows_that_begin_at_one_place_by_chance_are_left_alone() -> None:
    g = torch.Generator().manual_seed(0)
    net = lambda: Letters(26, 26)
    anywhere = torch.randint(0, 2900, (900,), generator=g)
    assert findings(experiment(net(), windows(anywhere), loss=words_loss), RULE) == []
    few = torch.randint(0, 900, (900,), generator=g)
    (found,) = seen(experiment(net(), windows(few), loss=words_loss), RULE).findings
    assert found.severity == "hint"
    twice = torch.arange(0, 2900, 16).repeat(4)[torch.randperm(728, generator=g)]
    (found,) = seen(experiment(net(), windows(twice), loss=words_loss), RULE).findings
    assert found.severity == "problem"
    stored_twice = torch.arange(0, 1400).repeat_interleave(2)
    (found,) = seen(experiment(net(), windows(stored_twice), loss=words_loss), RULE).findings
    assert found.severity == "problem"


def test_copies_with_a_number_of_their_own_are_found_and_dropped() -> None:
    X, y = blobs(rows=700)[0]
    X, y = repeated((X, y), 150)
    X = torch.cat([X, torch.arange(len(X))[:, None] / 100.0], 1)
    exp = experiment(mlp(X.shape[1]), halves(X, y))
    (found,) = seen(exp, RULE).findings
    assert (found.code, found.severity) == ("duplicate_rows", "problem")
    dedupe(exp)
    assert len(exp.train[0]) <= 150


def test_rows_that_repeat_another_but_for_a_little_are_asked_about() -> None:
    X, y = blobs(rows=700)[0]
    again, label = repeated((X, y), 150)
    noise = torch.randn(again.shape, generator=torch.Generator().manual_seed(1))
    assert findings(experiment(mlp(), halves(X + 0.001 * noise, y)), RULE) == []
    found = seen(experiment(mlp(), halves(again + 0.001 * noise, label)), RULE).findings
    assert [(f.code, f.severity) for f in found] == [("duplicate_rows", "hint")]
