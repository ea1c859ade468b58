"""Rows learned by heart are named when validation has turned for sure."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from tests.doctor.patients import Split, blobs, experiment, mlp, regression, seen
from torch import nn

from gipi.doctor.copies import duplicate
from gipi.doctor.diagnose import diagnose
from gipi.doctor.experiment import Experiment
from gipi.doctor.facts import Facts
from gipi.doctor.play import play
from gipi.doctor.rule import Rule
from gipi.doctor.rules.overfit import RULE, SURE, during
from gipi.doctor.trace import Trace


def test_rows_learned_by_heart_are_named_and_the_best_weights_kept() -> None:
    torch.manual_seed(0)
    exp = experiment(mlp(out=1, hidden=96), regression(160, noise=1.0), lr=0.01, epochs=60)
    diagnosis = seen(exp, RULE, train=True)
    first = diagnosis.findings[0]
    assert (first.code, first.severity, first.phase) == ("overfit", "problem", "epoch")
    treatment = diagnosis.repair()
    assert treatment is not None
    assert treatment.after["loss"] < 0.8 * treatment.before["loss"]
    assert treatment.undo() is exp


def few_of_validation(**more: Any) -> Experiment:
    torch.manual_seed(0)
    train, (V, v) = regression(160, noise=1.0, seed=3)
    exp = experiment(mlp(out=1, hidden=96), (train, (V[:24], v[:24])), lr=0.01, **more)
    exp.epochs = 100
    return exp


def test_where_validation_is_too_small_a_copy_is_asked_about_rows_left_out() -> None:
    exp = few_of_validation()
    first = seen(exp, RULE, train=True).findings[0]
    assert (first.code, first.severity, first.confirmed) == ("overfit", "problem", True)
    assert first.evidence["standard_errors"] < SURE < first.evidence["standard_errors_left_out"]


def by_chance(seed: int, rows: int, val: int) -> tuple[Experiment, Split]:
    """Return a run whose few validation rows got worse by chance, and rows that show it."""
    train, (V, v) = regression(4000, noise=0.3, seed=seed)
    torch.manual_seed(seed)
    splits = (train[0][:rows], train[1][:rows]), (V[:val], v[:val])
    exp = experiment(mlp(out=1, hidden=32), splits, lr=0.01, epochs=60, batch_size=16)
    return exp, (V[val:], v[val:])


@pytest.mark.parametrize(("seed", "rows", "val", "best"), [(22, 60, 24, 2), (48, 120, 40, 1)])
def test_a_copy_speaks_for_a_run_whose_few_rows_rose_by_chance(
    seed: int, rows: int, val: int, best: int
) -> None:
    exp, others = by_chance(seed, rows, val)
    if seed == 22:
        exp.scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(exp.optimizer, 60)
    diagnosis = seen(exp, RULE, train=True)
    assert diagnosis.findings == []
    assert diagnosis.passes > 0.5 * exp.total_steps  # the copy was asked
    twin = duplicate(exp)
    twin.val = others
    losses = {round(r["epoch"]): r["val"] for r in play(twin, quiet=True).epochs}
    assert losses[60] < 1.05 * losses[best]


def test_a_rise_that_few_rows_show_is_not_said_where_no_copy_can_be_asked() -> None:
    def told(exp: Experiment, rule: Rule = RULE) -> tuple[list[str], bool]:
        diagnosis = diagnose(exp, train=True, rules=(rule,))
        return [f.severity for f in diagnosis.findings], diagnosis.passes > 100

    exp = few_of_validation()
    exp.scheduler = torch.optim.lr_scheduler.OneCycleLR(
        exp.optimizer, 0.02, total_steps=exp.total_steps
    )
    exp.scheduler_every = "step"
    assert told(exp) == ([], False)
    dear = replace(RULE, cost=lambda *_: 1000)
    assert told(few_of_validation(), dear) == ([], False)

    def fails(*_: object) -> None:
        raise KeyError

    assert told(few_of_validation(), replace(RULE, confirm=fails)) == ([], False)


def test_noise_easy_rows_and_dropout_are_healthy() -> None:
    torch.manual_seed(0)
    small = experiment(mlp(out=1, hidden=8), regression(noise=1.0), lr=0.003, epochs=15)
    assert seen(small, RULE, train=True).findings == []
    easy = experiment(mlp(), blobs(apart=6.0), lr=0.01, epochs=30)
    assert seen(easy, RULE, train=True).findings == []
    net = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Dropout(0.5), nn.Linear(32, 4))
    assert seen(experiment(net, blobs(), lr=0.01, epochs=15), RULE, train=True).findings == []
    alone = experiment(mlp(), (blobs()[0], None), lr=0.01)
    assert seen(alone, RULE, train=True).findings == []


def test_a_stumble_of_both_losses_is_nothing_learned_by_heart() -> None:
    exp = experiment(mlp(), blobs(300))

    def judged(train: list[float]) -> list[str]:
        trace = Trace(60, 10, losses=[0.1] * 60, start={"val": 1.4})
        trace.epochs = [
            {"epoch": i, "step": 10 * i, "val": val, "train_eval": seen_, "val_parts": [val] * 10,
             "val_right": 1.0 - val / 2}
            for i, (val, seen_) in enumerate(zip([0.9, 0.1, 0.11, 0.8, 0.12, 0.13], train,
                                                 strict=True), 1)
        ]  # fmt: skip
        return [f.code for f in during(Facts(exp), trace)]

    assert judged([0.9, 0.08, 0.07, 0.8, 0.09, 0.05]) == []
    assert judged([0.9, 0.08, 0.07, 0.06, 0.05, 0.04]) == ["overfit"]


def test_two_rows_of_fifty_may_be_lost_by_chance() -> None:
    (X, y), (V, v) = blobs(300)
    exp = experiment(mlp(), ((X, y), (V[:50], v[:50])))
    scores = [1.0, 0.5, 1.0, 1.1, 1.2]

    def judged(lost: int, exp: Experiment = exp, size: float = 1.0) -> list[str]:
        trace = Trace(50, 10, losses=[0.1] * 50, start={"val": 1.4 * size})
        trace.epochs = [
            {"epoch": i, "step": 10 * i, "val": size * loss,
             "train_eval": size * (0.9 - 0.2 * i), "val_parts": [size * loss] * 10,
             "val_right": 0.98 - (lost / 50 if i > 2 else 0)}
            for i, loss in enumerate(scores, 1)
        ]  # fmt: skip
        return [f.severity for f in during(Facts(exp), trace)]

    assert judged(2) == ["hint"]
    assert judged(4) == ["problem"]
    one_hot = experiment(mlp(), ((X, one_of(y)), (V[:50], one_of(v[:50]))))
    one_hot.loss = nn.BCEWithLogitsLoss()
    assert judged(2, one_hot, 0.5) == ["hint"]  # a row is one answer, however many numbers it has
    assert judged(4, one_hot, 0.5) == ["problem"]


def severities(
    low: float, high: float, *, apart: float = 0.0, kept: bool = False, lost: float = 0.0
) -> list[str]:
    """Return what is said of four classes whose loss turned at `low` and ends at `high`.

    lost  share of right rows that is lost on the way
    """
    trace = Trace(60, 10, losses=[0.1] * 60, start={"val": 1.4})
    trace.epochs = [
        {"epoch": i, "step": 10 * i, "val": loss, "train_eval": 0.8 - 0.1 * i,
         "val_right": 0.6 - (lost if i > 3 else 0.0),
         "val_parts": [loss - apart, loss + apart] * 5}
        for i, loss in enumerate([1.3, 1.2, low, high - 0.1, high, high], 1)
    ]  # fmt: skip
    exp = experiment(mlp(), blobs(300), keep_best=kept)
    return [f.severity for f in during(Facts(exp), trace)]


def test_a_rise_that_takes_half_of_what_was_gained_is_worth_a_word() -> None:
    assert severities(1.0, 1.25) == ["hint"]  # of 0.39 below ln 4 more than half is gone
    assert severities(0.6, 0.85) == []  # of 0.79 less than a third


def test_answers_so_sure_that_nothing_said_were_better_are_a_problem() -> None:
    assert severities(1.0, 1.5) == ["problem"]  # ln 4 is the loss of who knows nothing
    assert severities(1.0, 1.5, apart=0.5) == ["hint"]  # by the noise of its parts it may be less


def test_whoever_keeps_the_best_weights_need_not_be_told_to() -> None:
    assert severities(1.0, 1.25, kept=True) == severities(1.0, 1.5, kept=True) == []


def test_a_rise_from_a_high_floor_counts_where_right_rows_are_lost_with_it() -> None:
    assert severities(1.1, 1.25, lost=0.1) == ["problem"]  # a third of the gain
    assert severities(1.1, 1.25, lost=0.01) == []
    assert severities(1.1, 1.25, lost=0.1, kept=True) == []
    assert severities(0.6, 0.75, lost=0.1) == []  # a fifth of the loss, an eighth of the gain


def one_of(y: torch.Tensor) -> torch.Tensor:
    return nn.functional.one_hot(y, 4).float()
