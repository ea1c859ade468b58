"""Splits from different places are found where that hurts; order of time is left alone."""

from __future__ import annotations

import pytest
import torch
from tests.doctor.patients import (
    Recurrent,
    blobs,
    cnn,
    experiment,
    findings,
    halves,
    images,
    mlp,
    regression,
    seen,
    waves,
)
from tests.doctor.wired import WORDS, Attention, words_loss

from gipi.doctor.arranged import by_a_clock
from gipi.doctor.diagnose import diagnose
from gipi.doctor.drift import domain, mismatch
from gipi.doctor.facts import Facts
from gipi.doctor.rules.preprocessing_mismatch import RULE as PREPARATION
from gipi.doctor.rules.train_val_shift import AUC, FAR, RULE, confirm
from gipi.doctor.turns import circles


def test_moved_validation_rows_are_named_and_divided_anew_after_a_yes() -> None:
    train, (V, v) = blobs()
    exp = experiment(mlp(), (train, (V + 1.5, v)), epochs=3)
    diagnosis = seen(exp, RULE)
    first = diagnosis.findings[0]
    assert (first.code, first.severity, first.confirmed) == ("train_val_shift", "problem", True)
    assert first.evidence["auc"] > 0.8
    assert diagnosis.repair() is None
    treatment = diagnosis.repair(apply=["train_val_shift"])
    assert treatment is not None
    assert findings(treatment.experiment, RULE) == []
    assert treatment.undo() is exp


def test_classes_that_training_lacks_are_named() -> None:
    (X, y), (V, v) = blobs()
    X, y = torch.cat([X, V]), torch.cat([y, v])
    order = y.argsort(stable=True)
    exp = experiment(mlp(), halves(X[order], y[order], 0.75))
    assert "class 3" in seen(exp, RULE).findings[0].where


def test_healthy_twins_are_left_alone() -> None:
    for seed in range(3):
        assert findings(experiment(mlp(), blobs(seed=seed)), RULE) == []
        assert findings(experiment(mlp(out=1), regression(seed=seed)), RULE) == []
    assert findings(experiment(cnn(), images()), RULE) == []


def sorted_rows(at, seed: int = 0):
    """Return rows in the order of their first column, whose values are those of `at`."""
    g = torch.Generator().manual_seed(seed)
    X = torch.randn(len(at), 6, generator=g)
    X[:, 0] = at.sort().values
    y = (2 * X[:, 0]).sin() + X[:, 1] + 0.1 * torch.randn(len(at), generator=g)
    return halves(X, y[:, None], 0.75)


def test_rows_divided_by_the_value_of_a_column_are_no_order_of_time() -> None:
    values = torch.randn(800, generator=torch.Generator().manual_seed(1))
    split = sorted_rows(values)
    (found,) = seen(experiment(mlp(6, 1), split), RULE).findings
    assert (found.severity, found.confirmed) == ("problem", True)
    clock = sorted_rows(torch.linspace(-2, 2, 800))
    assert findings(experiment(mlp(6, 1), clock), RULE) == []
    walks = torch.randn(800, 6, generator=torch.Generator().manual_seed(2)).cumsum(0) / 10
    counted = walks[:, 0].abs().cumsum(0) / 50  # it only rises, but no clock
    X = torch.cat([counted[:, None], walks], 1)
    assert findings(experiment(mlp(7, 1), halves(X, walks[:, :1] + X[:, :1], 0.75)), RULE) == []


def test_rows_sorted_by_an_even_column_are_hinted_at_for_it_may_be_the_time() -> None:
    even = 4 * torch.rand(800, generator=torch.Generator().manual_seed(1)) - 2
    found = seen(experiment(mlp(6, 1), sorted_rows(even)), RULE).findings
    assert [(f.severity, f.where) for f in found] == [("hint", ("column 0",))]
    ticks = torch.arange(800) / 200 - 2 + 0.001 * torch.rand(800)
    assert findings(experiment(mlp(6, 1), sorted_rows(ticks)), RULE) == []


def hours(hour, *, jump: bool = True):
    """Return rows in the order of an hour that is told as an angle, the latest for validation."""
    g = torch.Generator().manual_seed(3)
    hour = hour.sort().values
    n, at = len(hour), hour / 24 * 2 * torch.pi
    X = torch.randn(n, 6, generator=g) if jump else torch.randn(n, 6, generator=g).cumsum(0) / 9
    X[:, 1], X[:, 3], X[:, 4], X[:, 5] = 2 * at.sin(), at.cos() - 1, (2 * at).sin(), (2 * at).cos()
    return halves(X, (X[:, 0] + (hour - 16).clamp_min(0))[:, None], 0.75)


def test_rows_sorted_by_an_angle_are_named_and_a_clock_that_ticks_is_left_alone() -> None:
    g = torch.Generator().manual_seed(1)
    whole, any_ = torch.randint(23, (800,), generator=g).float(), 23 * torch.rand(800, generator=g)
    for hour in (whole, any_):
        torch.manual_seed(0)
        (found,) = seen(experiment(mlp(6, 1), hours(hour)), RULE).findings
        assert (found.severity, found.confirmed) == ("problem", True)
        assert findings(experiment(mlp(6, 1), hours(hour, jump=False)), RULE) == []
    for clock in (torch.arange(800) * 23 / 800, (torch.arange(800) // 40).float()):
        assert findings(experiment(mlp(6, 1), hours(clock)), RULE) == []


def test_pairs_of_columns_that_go_round_are_found_however_they_are_scaled() -> None:
    g = torch.Generator().manual_seed(0)
    at, x = 6 * torch.rand(300, generator=g), torch.randn(300, generator=g)
    around = (5 + 3 * at.sin(), x.square(), 0.01 * at.cos() - 2)
    others = (x, (at > 3).float(), (at < 3).float(), torch.ones(300))
    X = torch.stack([*around, *others], 1)
    ((i, j, (centre, width)),) = circles(X)
    assert (i, j) == (0, 2)
    assert torch.allclose(centre, torch.tensor([5.0, -2.0]).double(), atol=1e-2)
    assert torch.allclose(width, torch.tensor([3.0, 0.01]).double(), rtol=1e-2)


def text(rows: int, drift: float, *, seed: int = 0, shuffled: bool = False):
    """Return rows of a text that mostly counts on; some words fall out of use as it goes on."""
    g = torch.Generator().manual_seed(seed)
    at = torch.linspace(-1, 1, rows)[:, None]
    chances = (drift * at * torch.linspace(-1, 1, WORDS)).exp()
    x = torch.multinomial(chances, 1, generator=g)
    for _ in range(10):
        new = torch.multinomial(chances, 1, generator=g)
        x = torch.cat([x, torch.where(torch.rand(rows, 1, generator=g) < 0.7 - 0.3 * drift * at,
                                      (x[:, -1:] + 1) % WORDS, new)], 1)  # fmt: skip
    n = rows * 4 // 5
    order = torch.randperm(n, generator=g) if shuffled else torch.arange(n)
    x = torch.cat([x[order], x[n:]])
    return (x[:n, :-1], x[:n, 1:]), (x[n:, :-1], x[n:, 1:])


@pytest.mark.parametrize("seed", range(4))
def test_the_later_part_of_a_text_is_left_alone_and_no_problem_where_its_order_is_lost(
    seed,
) -> None:
    torch.manual_seed(seed)
    later = experiment(Attention(), text(800, 0.9, seed=seed), loss=words_loss, epochs=20)
    told = domain(Facts(later))
    assert told is not None
    assert AUC < told[0] < FAR  # the rule is asked
    assert findings(later, RULE) == []
    lost = experiment(Attention(), text(800, 0.9, seed=seed, shuffled=True), loss=words_loss)
    assert AUC < domain(Facts(lost))[0] < FAR
    assert seen(lost, RULE).problems == []


def test_no_training_is_made_for_a_text_that_goes_on_changing(monkeypatch) -> None:
    later = Facts(experiment(Attention(), text(800, 0.9), loss=words_loss, epochs=20))
    finding = next(iter(RULE.before(later)))
    monkeypatch.setattr("gipi.doctor.rules.train_val_shift._net", lambda _: pytest.fail("trained"))
    assert confirm(later, finding) is None


def test_another_source_is_named_or_hinted_at() -> None:
    train, (V, v) = text(800, 0.0)
    other = experiment(Attention(), (train, (V * 5 % WORDS, v * 5 % WORDS)), loss=words_loss)
    assert [f.code for f in seen(other, RULE).problems] == ["train_val_shift"]
    # Half of the rows: told apart less well, and no text that goes on changing.
    half = torch.arange(len(V)) % 5 < 3
    V, v = (torch.where(half[:, None], z * 5 % WORDS, z) for z in (V, v))
    some = experiment(Attention(), (train, (V, v)), loss=words_loss, epochs=20)
    assert AUC < domain(Facts(some))[0] < FAR
    assert [f.severity for f in seen(some, RULE).findings] == ["hint"]


def test_calling_a_net_causal_does_not_hide_that_its_rows_have_moved() -> None:
    train, (V, v) = waves(rows=600)
    V = torch.where((torch.arange(len(V)) % 5 < 3)[:, None, None], -V.abs(), V)
    for declared in ({}, {"causal": True}):
        torch.manual_seed(0)
        exp = experiment(Recurrent(), (train, (V, v)), epochs=10, declared=declared)
        finding = next(iter(RULE.before(Facts(exp))), None)
        assert finding is not None
        assert finding.evidence["auc"] < FAR
        assert [f.code for f in seen(exp, RULE).findings] == ["train_val_shift"]


def test_a_split_in_order_of_time_is_left_alone() -> None:
    g = torch.Generator().manual_seed(0)
    X = torch.randn(800, 6, generator=g)
    time = torch.arange(800) / 400 - 1
    y = X[:, 1:].sum(1, keepdim=True).sin() + 0.1 * time[:, None]
    X[:, 0] = time + 0.05 * X[:, 0]
    assert findings(experiment(mlp(6, 1), halves(X, y), epochs=8), RULE) == []


def test_a_range_beyond_is_a_shift_where_another_preparation_is_refuted() -> None:
    X = 10 * torch.rand(900, 1, generator=torch.Generator().manual_seed(0)) - 5
    X = X[X[:, 0].argsort()]
    y = (1.3 * X).sin()
    order = torch.randperm(700, generator=torch.Generator().manual_seed(1))
    torch.manual_seed(0)
    exp = experiment(mlp(1, 1), ((X[order], y[order]), (X[700:], y[700:])), epochs=40)
    assert mismatch(Facts(exp)) is not None
    (found,) = diagnose(exp, train=False, rules=(PREPARATION, RULE)).findings
    assert (found.code, found.severity) == ("train_val_shift", "problem")


def test_rows_in_the_order_of_a_number_with_ties_are_hinted_at() -> None:
    values = (torch.randn(800, generator=torch.Generator().manual_seed(1)) * 12).round() / 12
    X, y = sorted_rows(values)[0]
    V, v = sorted_rows(values)[1]
    torch.manual_seed(0)
    found = seen(experiment(mlp(6, 1), ((X, y), (V, v))), RULE).findings
    assert [f.severity for f in found] == ["hint"]


def test_signals_in_the_order_of_their_loudness_are_no_order_of_time() -> None:
    (X, y), (V, v) = waves(rows=600)
    X, y = torch.cat([X, V]), torch.cat([y, v])
    loud = 0.3 + torch.rand(600, generator=torch.Generator().manual_seed(0)).square()
    X = X * loud[:, None, None]
    order = X.abs().mean((1, 2)).argsort()
    facts = Facts(experiment(Recurrent(2, 1), halves(X[order], loud[order, None], 0.75)))
    assert not by_a_clock(facts)
    drifting = X + torch.linspace(0, 4, 600)[:, None, None]
    assert by_a_clock(Facts(experiment(Recurrent(2, 1), halves(drifting, loud[:, None], 0.75))))


def test_classes_of_an_old_task_are_no_new_ones() -> None:
    """Validation asks for what must not be forgotten: training without it is another matter."""
    (X, y), (V, v) = blobs(600, classes=4)
    new = y >= 2
    told = {"declared": {"old_task": (X[~new], y[~new])}}
    splits = (X[new], y[new]), (V, v)
    assert "train_val_shift" in findings(experiment(mlp(), splits), RULE)
    assert findings(experiment(mlp(), splits, **told), RULE) == []
