"""Layers that forward never uses are found; experts that wait for their rows are not."""

from __future__ import annotations

import torch
from tests.doctor.patients import blobs, experiment, findings, mlp, seen
from tests.doctor.wired import cured, named
from torch import nn

from gipi.doctor.experiment import plain_step
from gipi.doctor.rules import frozen_layer, params_not_in_optimizer
from gipi.doctor.rules.unused_parameters import RULE


class Forgetful(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net, self.extra = mlp(), nn.Linear(8, 8)

    def forward(self, x):
        return self.net(x)


class Experts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.experts = nn.ModuleList(nn.Linear(8, 4) for _ in range(6))

    def forward(self, x):
        chosen = (x[:, 0] > 0).long()
        said = torch.zeros(len(x), 4)
        for i, expert in enumerate(self.experts):
            rows = chosen == i
            if rows.any():
                said[rows] = expert(x[rows])
        return said


def test_a_layer_that_is_never_called() -> None:
    exp = experiment(Forgetful(), blobs(), epochs=2)
    assert named(exp, RULE).findings[0].where == ("extra.weight", "extra.bias")
    assert named(exp, RULE).repair() is None  # whether it is to be called its author knows
    treatment = cured(exp, RULE, apply=[RULE.code])
    assert not treatment.proof.gain
    for rule in (frozen_layer.RULE, params_not_in_optimizer.RULE):
        assert findings(treatment.experiment, rule) == []


def test_where_the_step_is_the_users_own_it_is_a_hint() -> None:
    exp = experiment(Forgetful(), blobs(), step=plain_step)
    assert [f.severity for f in seen(exp, RULE).findings] == ["hint"]


def test_experts_declared_layers_and_healthy_nets_are_silent() -> None:
    assert findings(experiment(Experts(), blobs()), RULE) == []
    declared = {"frozen": ["extra.*"]}
    assert findings(experiment(Forgetful(), blobs(), declared=declared), RULE) == []
    assert findings(experiment(mlp(), blobs()), RULE) == []
