"""Schedules on paper: of a long run a grid, written down once."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.doctor.patients import blobs, experiment, mlp

from gipi.doctor import rates
from gipi.doctor.experiment import Experiment
from gipi.doctor.facts import Facts
from gipi.doctor.rates import PLACES, noted_rates, paper_rates
from gipi.doctor.rules.lr_decay_too_fast import before

LONG = 2_000_000


class Counted:
    """Falls to a thousandth at the end of a share of the run, and counts how often it is asked."""

    def __init__(self, total: int, *, until: float = 1.0) -> None:
        self.total, self.until, self.asked = total, until, 0

    def __call__(self, step: int) -> float:
        self.asked += 1
        return max(0.001, 1.0 - step / (self.until * self.total))


def long_run(shape: Any = None, *, total: int = LONG) -> Experiment:
    exp = experiment(mlp(), blobs(), lr=0.1)
    exp.epochs = total / exp.steps_per_epoch
    if shape is not None:
        exp.scheduler = torch.optim.lr_scheduler.LambdaLR(exp.optimizer, shape)
    exp.scheduler_every = "step"
    return exp


def test_a_long_schedule_is_asked_at_few_places() -> None:
    shape = Counted(LONG)
    found = paper_rates(long_run(shape))
    assert found is not None
    assert len(found) == PLACES
    assert shape.asked <= PLACES + 1
    assert found[0] == pytest.approx(0.1)
    assert found[PLACES // 2] == pytest.approx(0.05)
    assert paper_rates(long_run()) == [0.1] * PLACES


def test_a_grid_and_every_step_say_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    stepped = paper_rates(long_run(Counted(1000), total=1000))
    monkeypatch.setattr(rates, "PLACES", 100)
    sampled = paper_rates(long_run(Counted(1000), total=1000))
    assert stepped is not None
    assert sampled == pytest.approx(stepped[::10])
    exp = long_run(total=1000)
    exp.scheduler = torch.optim.lr_scheduler.StepLR(exp.optimizer, 250)
    assert paper_rates(exp) == pytest.approx([0.1 / 10 ** (i // 25) for i in range(100)])


def test_what_must_be_stepped_too_often_is_not_known() -> None:
    exp = long_run()
    exp.scheduler = torch.optim.lr_scheduler.StepLR(exp.optimizer, 1000)
    assert paper_rates(exp) is None
    exp.scheduler_every = "epoch"
    assert paper_rates(exp) is not None


def test_rates_are_written_down_once() -> None:
    shape = Counted(500)
    facts = Facts(long_run(shape, total=500))
    assert noted_rates(facts) is noted_rates(Facts(facts.exp, start=facts))
    assert shape.asked <= 501


def test_a_long_schedule_that_is_soon_used_up_is_named_with_its_step() -> None:
    (finding,) = before(Facts(long_run(Counted(LONG, until=0.02))))
    assert finding.evidence["steps"] == LONG
    assert finding.evidence["gone_at"] == pytest.approx(0.02 * LONG, rel=0.05)
    assert not list(before(Facts(long_run(Counted(LONG)))))
