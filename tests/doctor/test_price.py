"""What a pass costs is counted: the same on a busy machine, and more for a larger net."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import torch
from tests.doctor.patients import blobs, cnn, experiment, images, mlp, regression
from torch import nn

from gipi.core import resolve
from gipi.doctor import consult as consulting
from gipi.doctor.consult import Consultation, allowance, at_full_rate
from gipi.doctor.facts import Facts
from gipi.doctor.look import LEAST_PASSES
from gipi.doctor.price import pass_seconds, products
from gipi.doctor.tape import recording

if TYPE_CHECKING:
    import pytest


def test_products_are_those_of_weights_and_places() -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.Flatten(), nn.Linear(8 * 36, 5))
    with recording(net) as tape:
        net(torch.zeros(2, 3, 6, 6))
    found = [products(op) for op in tape.ops if op.kind in ("conv", "linear")]
    assert found == [2 * 36 * 8 * 3 * 9, 2 * 8 * 36 * 5]


def test_a_pass_has_one_price_however_long_it_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    small, large = (Facts(experiment(mlp(hidden=h), blobs())) for h in (16, 512))
    price = pass_seconds(small)
    assert 0 < price < pass_seconds(large)
    assert price < pass_seconds(Facts(experiment(cnn(), images())))
    clock = iter(range(10**6))
    monkeypatch.setattr(time, "perf_counter", lambda: float(next(clock)))  # seconds go by
    assert pass_seconds(Facts(experiment(mlp(hidden=16), blobs()))) == price


def test_what_dooms_a_long_run_may_cost_a_share_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    config = resolve.resolve().config
    facts = Facts(experiment(mlp(), blobs(), epochs=500))
    assert allowance(facts, config).rehearsal
    monkeypatch.setattr(consulting, "LOOK_S", 0.0)
    dear = allowance(facts, config)
    assert dear.rehearsal
    assert dear.passes <= dear.of_doom
    assert dear.of_doom >= 0.1 * facts.exp.total_steps or dear.of_doom == LEAST_PASSES
    short = allowance(Facts(experiment(mlp(), blobs(), epochs=1)), config)
    assert not short.rehearsal
    (said,) = Consultation(unrehearsed=True).lines()
    assert "take too long to be tried out" in said


def test_the_highest_rate_of_a_cycle_is_tried() -> None:
    exp = experiment(mlp(out=1), regression())
    optimizer = exp.optimizer
    exp.scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.5, total_steps=100)
    assert optimizer.param_groups[0]["lr"] < 0.03
    peak = at_full_rate(exp)
    assert max(peak.scheduler.base_lrs) == 0.5
