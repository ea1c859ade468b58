"""A target in the thousands is found and scaled within model and loss; outputs keep its units."""

from __future__ import annotations

import torch
from tests.doctor.patients import blobs, experiment, findings, mlp, regression, seen
from torch import nn

from gipi.doctor.experiment import outputs
from gipi.doctor.rules.target_unscaled import RULE


def scaled(mean: float, std: float):
    return tuple((X, std * y + mean) for X, y in regression())


def test_a_large_target_is_named_scaled_and_undone() -> None:
    exp = experiment(mlp(out=1), scaled(2000, 500), epochs=20, lr=0.01)
    diagnosis = seen(exp, RULE)
    first = diagnosis.findings[0]
    assert (first.code, first.severity, first.confirmed) == ("target_unscaled", "problem", True)
    treatment = diagnosis.repair()
    assert treatment is not None
    said = outputs(treatment.experiment, exp.val[0])
    assert 1800 < float(said.mean()) < 2200
    assert treatment.after["loss"] < 0.8 * float(exp.val[1].var())
    assert findings(treatment.experiment, RULE) == []
    assert treatment.undo() is exp


def test_healthy_twins_are_left_alone() -> None:
    assert findings(experiment(mlp(out=1), regression()), RULE) == []
    assert findings(experiment(mlp(), blobs()), RULE) == []
    model = mlp(out=1)
    nn.init.constant_(model[2].bias, 500.0)
    assert findings(experiment(model, scaled(500, 20), lr=0.05, epochs=20), RULE) == []


def test_a_model_with_its_own_scale_is_left_alone() -> None:
    class Scaling(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = mlp(out=1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return 500 * self.net(x) + 2000

    assert findings(experiment(Scaling(), scaled(2000, 500)), RULE) == []
