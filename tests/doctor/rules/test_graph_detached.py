"""Cut graphs are found by what no gradient reaches; cuts that are meant are not."""

from __future__ import annotations

import pytest
import torch
from tests.doctor.patients import blobs, experiment, findings, mlp
from tests.doctor.rules.test_params_not_in_optimizer import learned, rings
from tests.doctor.wired import cured, named
from torch import nn

from gipi.doctor.rules.graph_detached import RULE


class Cut(nn.Module):
    """Features of a narrow body, cut off in some way before the head."""

    def __init__(self, how, body=None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.how = how
        self.body = body or nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 6), nn.Tanh())
        wide = [m for m in self.body if isinstance(m, nn.Linear)][-1].out_features
        self.head = nn.Linear(wide, 4)

    def forward(self, x):
        if self.how == "no_grad":
            with torch.no_grad():
                h = self.body(x)
        else:
            h = self.body(x)
        if self.how == "detach":
            h = h.detach()
        elif self.how == "numpy":
            h = torch.from_numpy(h.detach().numpy())
        elif self.how == "data":
            h = h.data
        return self.head(h)


@pytest.mark.parametrize("how", ["detach", "no_grad", "numpy", "data"])
def test_every_cut_is_named(how) -> None:
    diagnosis = named(experiment(Cut(how), blobs(apart=1.0)), RULE)
    assert diagnosis.findings[0].where == (
        "body.0.weight", "body.0.bias", "body.2.weight", "body.2.bias"
    )  # fmt: skip
    assert diagnosis.repair() is None
    assert "needs a person" in diagnosis.why_not


@pytest.mark.parametrize("how", ["detach", "no_grad"])
def test_the_graph_is_kept_on_request(how) -> None:
    exp = experiment(Cut(how), blobs(apart=1.0), epochs=6, lr=0.02)
    treatment = cured(exp, RULE, apply=[RULE.code])
    assert treatment.proof.gain > 0


def test_a_way_through_numpy_cannot_be_repaired_from_outside() -> None:
    diagnosis = named(experiment(Cut("numpy"), blobs(apart=1.0), epochs=2), RULE)
    assert diagnosis.repair(apply=[RULE.code]) is None
    assert "something else" in diagnosis.why_not


def test_a_loss_without_any_graph() -> None:
    class Nothing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = mlp()

        def forward(self, x):
            return self.net(x).detach()

    named(experiment(Nothing(), blobs()), RULE)


def test_learned_features_and_a_probe_beside_are_silent() -> None:
    data = rings()
    torch.manual_seed(0)
    model = learned(mlp(out=2), data)
    kept = Cut("no_grad", nn.Sequential(model[0], model[1]))
    assert findings(experiment(kept, data), RULE) == []
    assert findings(experiment(Cut("no"), data), RULE) == []

    class Probed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.one, self.two = nn.Linear(8, 8), nn.Linear(8, 4), nn.Linear(8, 4)

        def forward(self, x):
            h = self.body(x).relu()
            return self.one(h) + 0 * self.two(h.detach())

    assert findings(experiment(Probed(), data), RULE) == []
