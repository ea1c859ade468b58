"""Gaps in inputs and targets are found where they reach the loss, filled, and undone."""

from __future__ import annotations

import torch
from tests.doctor.patients import (
    Recurrent,
    blobs,
    experiment,
    findings,
    mlp,
    regression,
    seen,
    waves,
)
from torch import Tensor, nn

from gipi.doctor.experiment import outputs
from gipi.doctor.rules import nan_in_data
from gipi.doctor.rules.nan_in_data import RULE


def gappy(data: tuple[Tensor, Tensor], every: int = 7) -> tuple[Tensor, Tensor]:
    X = data[0].clone()
    X.view(len(X), -1)[::every, 1] = torch.nan
    return X, data[1]


def test_gaps_are_named_filled_marked_and_undone() -> None:
    train, val = blobs()
    exp = experiment(mlp(), (gappy(train), gappy(val)), epochs=6)
    diagnosis = seen(exp, RULE)
    first = diagnosis.findings[0]
    assert (first.code, first.severity, first.confirmed) == ("nan_in_data", "problem", True)
    assert first.evidence["train"]["columns"] == {"column 1": 52}
    treatment = diagnosis.repair()
    assert treatment is not None
    assert treatment.after["score"] > -0.6
    assert "a column each says where" in treatment.changes[0]
    assert treatment.experiment.model.model[0].in_features == 9
    assert findings(treatment.experiment, RULE) == []
    assert treatment.undo() is exp
    assert exp.model[0].in_features == 8


def test_the_healthy_twin_and_a_model_that_fills_gaps_itself_are_left_alone() -> None:
    assert findings(experiment(mlp(), blobs()), RULE) == []

    class Filling(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = mlp()

        def forward(self, x: Tensor) -> Tensor:
            return self.net(x.nan_to_num())

    train, val = blobs()
    assert findings(experiment(Filling(), (gappy(train), gappy(val))), RULE) == []


def test_rows_without_a_target_are_dropped_and_a_masked_loss_is_left_alone() -> None:
    (X, y), val = regression()
    y = y.clone()
    y[::9] = torch.nan
    exp = experiment(mlp(out=1), ((X, y), val))
    assert findings(exp, RULE) == ["nan_in_data"]
    assert nan_in_data.drop(exp) == "took out 40 rows without a target"
    assert len(exp.train[0]) == 320

    def masked(said: Tensor, asked: Tensor) -> Tensor:
        good = asked.isfinite()
        return (said[good] - asked[good]).square().mean()

    assert findings(experiment(mlp(out=1), ((X, y), val), loss=masked), RULE) == []


def test_a_sequence_is_filled_by_column() -> None:
    train, val = waves()
    exp = experiment(Recurrent(), (gappy(train), val))
    nan_in_data.fill(exp)
    assert bool(outputs(exp, exp.train[0]).isfinite().all())
