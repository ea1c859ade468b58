"""Decay of norms is hinted at where it is more than next to nothing, and taken away."""

from __future__ import annotations

import torch
from tests.doctor.patients import blobs, experiment, findings, mlp, seen
from torch import nn

from gipi.doctor.rules.weight_decay_on_norm_bias import RULE


def decayed(model, optimizer, *, lr, decay, groups=None):
    exp = experiment(model, blobs(), epochs=10)
    exp.optimizer = optimizer(groups or model.parameters(), lr=lr, weight_decay=decay)
    exp.scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(exp.optimizer, 10)
    return exp


def normed():
    return nn.Sequential(nn.Linear(8, 16), nn.LayerNorm(16), nn.ReLU(), nn.Linear(16, 4))


def test_it_is_a_hint_and_two_groups_cure_it() -> None:
    for optimizer, lr, decay in ((torch.optim.AdamW, 0.01, 0.3), (torch.optim.Adam, 1e-3, 0.1)):
        exp = decayed(normed(), optimizer, lr=lr, decay=decay)
        found = seen(exp, RULE).findings
        assert [(f.severity, f.where) for f in found] == [("hint", ("1.weight", "1.bias"))]
        found[0].repair.change(exp)
        assert findings(exp, RULE) == []
        assert [g["weight_decay"] for g in exp.optimizer.param_groups] == [decay, 0.0]
        held = [p for g in exp.optimizer.param_groups for p in g["params"]]
        assert {id(p) for p in held} == {id(p) for p in exp.model.parameters()}
        exp.optimizer.step()
        exp.scheduler.step()


def test_little_decay_nets_without_norms_and_two_groups_are_silent() -> None:
    assert findings(decayed(normed(), torch.optim.AdamW, lr=1e-3, decay=0.01), RULE) == []
    assert findings(decayed(mlp(), torch.optim.AdamW, lr=0.01, decay=0.3), RULE) == []
    model = normed()
    flat = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": [p for p in model.parameters() if p.ndim > 1]}]
    groups.append({"params": flat, "weight_decay": 0.0})
    exp = decayed(model, torch.optim.AdamW, lr=0.01, decay=0.3, groups=groups)
    assert findings(exp, RULE) == []


class Called(nn.Module):
    """A norm that is called as a function, and one that somebody wrote."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(8, 16), nn.Linear(16, 4)
        self.scale, self.shift = nn.Parameter(torch.ones(16)), nn.Parameter(torch.zeros(16))

    def forward(self, x):
        x = nn.functional.layer_norm(self.a(x), (16,), self.scale, self.shift)
        return self.b(torch.relu(x))


def test_scales_of_ones_own_are_scales_and_momentum_carries_their_decay_on() -> None:
    found = seen(decayed(Called(), torch.optim.AdamW, lr=0.01, decay=0.3), RULE).findings
    assert [f.where for f in found] == [("scale", "shift")]

    def heavy(momentum):
        exp = decayed(normed(), torch.optim.SGD, lr=0.01, decay=0.01)
        exp.optimizer.param_groups[0]["momentum"] = momentum
        return findings(exp, RULE)

    assert heavy(0.0) == []
    assert heavy(0.9) == ["weight_decay_on_norm_bias"]
