"""Signals that grow from layer to layer are named before the first step; large numbers are not."""

from __future__ import annotations

import pytest
import torch
from tests.doctor.patients import Recurrent, blobs, experiment, mlp, regression, seen, waves
from tests.doctor.rules.test_vanishing_gradient import deep
from torch import nn

from gipi.doctor.facts import Facts
from gipi.doctor.rules.exploding_gradient import RULE
from gipi.doctor.trace import Trace


def loud(gain: float) -> nn.Module:
    net = deep(nn.ReLU, 6)
    with torch.no_grad():
        for m in net[:-1]:
            if isinstance(m, nn.Linear):
                m.weight.mul_(gain)
    return net


def test_layers_that_each_grow_are_named_and_drawn_anew() -> None:
    torch.manual_seed(0)
    exp = experiment(loud(8.0), blobs(), lr=5e-3)
    diagnosis = seen(exp, RULE)
    first = diagnosis.findings[0]
    assert (first.code, first.severity, first.phase) == ("exploding_gradient", "problem", "before")
    treatment = diagnosis.repair()
    assert treatment is not None
    assert treatment.after["loss"] < 0.5
    assert treatment.undo() is exp


def test_usual_nets_and_large_targets_are_left_alone() -> None:
    torch.manual_seed(0)
    assert seen(experiment(loud(1.0), blobs(), lr=5e-3), RULE, train=True).findings == []
    (X, y), (Xv, yv) = regression()
    exp = experiment(mlp(out=1), ((X, 100 * y), (Xv, 100 * yv)), lr=0.01)
    assert seen(exp, RULE, train=True).findings == []


@pytest.mark.parametrize("gain", [2.5, 0.8])
def test_places_that_each_grow_are_named_where_the_first_loss_tells_of_it(gain) -> None:
    """However many times smaller than ten the outputs are: a head of small weights shrinks them."""
    torch.manual_seed(0)
    net = Recurrent(out=1, hidden=32)
    net.body = nn.RNN(2, 32, batch_first=True, nonlinearity="relu")
    nn.init.normal_(net.body.weight_hh_l0, 0, gain / 32**0.5)
    with torch.no_grad():
        net.head.weight.mul_(0.004)
    (X, _), (Xv, _) = waves()
    splits = [(x, x[:, ::4, :1].sum(1)) for x in (X, Xv)]
    found = seen(experiment(net, splits, lr=5e-3), RULE).findings
    assert [f.severity for f in found] == ["problem"] * (gain > 1)


@pytest.mark.parametrize(
    ("spikes", "back", "harmless"),
    [((40,), 10, True), ((40,), 1000, False), (range(40, 160, 20), 10, False), ((190,), 10, False)],
)
def test_what_the_run_soon_made_up_for_is_taken_back(spikes, back, harmless) -> None:
    """One short spike is; one it never came back from, many, and one at its end are not."""
    trace = Trace(planned=200, per_epoch=20)
    trace.norms = [300.0 if step in spikes else 1.0 for step in range(200)]
    trace.losses = [
        1 - step / 400 + 2.0 * any(s < step <= s + back for s in spikes) for step in range(200)
    ]
    facts = Facts(experiment(mlp(), blobs()))
    (found,) = RULE.during(facts, trace)
    assert RULE.outgrown is not None
    assert RULE.outgrown(facts, trace, found) is harmless


def test_a_sum_of_many_loud_branches_is_drawn_as_torch_does() -> None:
    """Branches of spread 1 each are still too many for this rate."""

    class Sum(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.open, self.head = nn.Linear(8, 32), nn.Linear(32, 1)
            self.body = nn.ModuleList(
                nn.Sequential(nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 32)) for _ in range(14)
            )
            for b in self.body:
                nn.init.normal_(b[2].weight, std=0.4)

        def forward(self, x):
            x = self.open(x)
            for b in self.body:
                x = x + b(x)
            return self.head(x)

    exp = experiment(Sum(), regression(), lr=0.01, optimizer="sgd", epochs=4)
    diagnosis = seen(exp, RULE)
    assert [f.code for f in diagnosis.findings] == ["exploding_gradient"]
    treatment = diagnosis.repair()
    assert treatment is not None
    assert treatment.after["loss"] < 1
