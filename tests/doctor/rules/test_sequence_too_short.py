"""Cut sequences are a problem where the end tells of the target, worth a look where it does not."""

from __future__ import annotations

import torch
from tests.doctor.patients import Reader, experiment, findings, halves, seen, token_rows

from gipi.doctor.rules.sequence_too_short import RULE

ROWS, KEPT = 700, 12


def telling_end():
    g = torch.Generator().manual_seed(0)
    lengths = torch.randint(6, 30, (ROWS,), generator=g)
    X = torch.randint(5, 40, (ROWS, 30), generator=g)
    y = torch.randint(2, (ROWS,), generator=g)
    for i, n in enumerate(lengths.tolist()):
        X[i, n - 3 : n] = 2 + y[i]
        X[i, n:] = 0
    return X, y, lengths


def test_a_cut_that_takes_what_tells_is_named() -> None:
    X, y, lengths = telling_end()
    exp = experiment(
        Reader(), halves(X[:, :KEPT], y), declared={"lengths": lengths[: int(0.6 * ROWS)]}
    )
    first = seen(exp, RULE).findings[0]
    assert (first.code, first.severity) == ("sequence_too_short", "problem")
    assert first.evidence["explained_whole"] > first.evidence["explained_cut"]
    assert first.repairs[0].mode == "ask"


def test_whole_rows_and_unknown_lengths_are_left_alone() -> None:
    X, y, lengths = telling_end()
    known = {"lengths": lengths[: int(0.6 * ROWS)]}
    assert findings(experiment(Reader(), halves(X, y), declared=known), RULE) == []
    assert findings(experiment(Reader(), halves(X[:, :KEPT], y)), RULE) == []


def test_a_cut_that_takes_nothing_is_at_most_worth_a_look() -> None:
    splits = token_rows(length=12)
    lengths = torch.full((len(splits[0][1]),), 12)
    lengths[::4] = 20
    diagnosis = seen(experiment(Reader(), splits, declared={"lengths": lengths}), RULE)
    assert diagnosis.problems == []
