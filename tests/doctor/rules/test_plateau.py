"""A loss that stands still though it need not is named; one at its floor is not."""

from __future__ import annotations

import pytest
import torch
from tests.doctor.patients import blobs, experiment, halves, mlp, regression, seen
from torch import nn
from torch.optim import lr_scheduler

from gipi.doctor.facts import Facts
from gipi.doctor.rates import lr_trial
from gipi.doctor.rules.plateau import RULE, _forced
from gipi.doctor.trace import Trace


def test_a_loss_that_stands_still_for_want_of_a_rate_is_named_and_cured() -> None:
    torch.manual_seed(0)
    exp = experiment(mlp(), blobs(), lr=3e-3)
    exp.scheduler = lr_scheduler.MultiStepLR(exp.optimizer, [1], 0.01)
    diagnosis = seen(exp, RULE, train=True)
    first = diagnosis.findings[0]
    assert (first.code, first.severity, first.confirmed) == ("plateau", "problem", True)
    treatment = diagnosis.repair()
    assert treatment is not None
    assert treatment.after["loss"] < treatment.before["loss"]
    assert treatment.undo() is exp


def test_a_floor_of_noise_is_healthy() -> None:
    torch.manual_seed(0)
    exp = experiment(mlp(out=1, hidden=8), regression(noise=1.5), lr=0.01, epochs=15)
    assert seen(exp, RULE, train=True).problems == []
    (X, _), (Xv, _) = blobs()
    coins = (X, torch.randint(2, (len(X),))), (Xv, torch.randint(2, (len(Xv),)))
    assert seen(experiment(mlp(out=2, hidden=4), coins, lr=0.01), RULE, train=True).problems == []
    assert seen(experiment(mlp(), blobs(), lr=0.01), RULE, train=True).findings == []


def smooth(rows: int = 600):
    """Return a function that a small net can learn nearly exactly."""
    g = torch.Generator().manual_seed(0)
    X = torch.randn(rows, 8, generator=g)
    y = (X @ torch.randn(8, 1, generator=g) / 8**0.5).tanh()
    y = y + 0.02 * torch.randn(rows, 1, generator=g)
    return halves(X, y / y.std())


def linear(rows: int = 600):
    """Return a linear function that one layer learns down to a loss of 0.0004."""
    g = torch.Generator().manual_seed(0)
    X = torch.randn(rows, 8, generator=g)
    y = X @ torch.randn(8, 1, generator=g) / 8**0.5
    return halves(X, y + 0.02 * torch.randn(rows, 1, generator=g))


@pytest.mark.parametrize("seed", range(3))
def test_a_low_loss_that_stands_on_the_noise_of_its_steps_is_worth_a_hint(seed) -> None:
    """Adam's steps of 0.05 keep eight weights off by as much: several times the loss of a tenth."""
    for lr, told in ((0.05, [("plateau", "hint", True)]), (3e-3, [])):
        torch.manual_seed(seed)
        exp = experiment(nn.Linear(8, 1), linear(), lr=lr, epochs=8, batch_size=4)
        found = seen(exp, RULE, train=True).findings
        assert [(f.code, f.severity, f.confirmed) for f in found] == told


def test_shares_of_a_loss_below_zero_mean_nothing(monkeypatch) -> None:
    facts = Facts(experiment(mlp(out=1), smooth()))
    trace = Trace(100, 10, losses=[-1.0] * 100, rates=[0.1] * 100)
    monkeypatch.setattr(Trace, "ratio", lambda *_: 1.0)
    assert _forced(facts, trace, [1.0, 1.0])
    assert not _forced(facts, trace, [-2.0, -1.0])
    assert not _forced(facts, trace, [-1.0, -0.9])


def test_a_schedule_is_not_stepped_past_the_end_of_its_run() -> None:
    torch.manual_seed(0)
    (X, _), (Xv, _) = blobs()
    coins = (X, torch.randint(2, (len(X),))), (Xv, torch.randint(2, (len(Xv),)))
    for made in (lr_scheduler.OneCycleLR, lr_scheduler.CosineAnnealingLR):
        exp = experiment(mlp(out=2, hidden=4), coins, lr=0.01)
        steps = exp.total_steps
        given = (0.01, steps) if made is lr_scheduler.OneCycleLR else (steps,)
        exp.scheduler, exp.scheduler_every = made(exp.optimizer, *given), "step"
        assert seen(exp, RULE, train=True).problems == []
        trace = Trace(steps, exp.steps_per_epoch, losses=[0.7] * steps, rates=[0.01] * steps)
        (found,) = RULE.during(Facts(exp), trace)
        for _ in range(steps):
            exp.optimizer.step()
            exp.scheduler.step()
        asked = found.but(evidence={**found.evidence, "lr": 1e-5, "low": True})
        assert RULE.confirm(Facts(exp), asked) is None  # a rate that is used up is low already
        tried = lr_trial(Facts(exp), (0.1,), steps=5, now=True).twins[1.0]
        assert tried.optimizer.param_groups[0]["lr"] == exp.optimizer.param_groups[0]["lr"]


def test_weights_that_are_thrown_about_on_the_way_down_are_worth_a_hint() -> None:
    """The mean loss falls yet, but the same rows fare better and worse from epoch to epoch."""
    for rate_falls, told in ((False, [("plateau", "hint", True)]), (True, [])):
        torch.manual_seed(1)
        exp = experiment(mlp(out=1), smooth(1000), epochs=12, batch_size=8)
        exp.optimizer = torch.optim.SGD(exp.model.parameters(), 0.05, momentum=0.9)
        if rate_falls:
            exp.scheduler = lr_scheduler.CosineAnnealingLR(exp.optimizer, exp.epochs)
        found = seen(exp, RULE, train=True).findings
        assert [(f.code, f.severity, f.confirmed) for f in found] == told
        assert all("goes up and down" in f.message for f in found)
