"""Evaluation that drops units, or learns from the rows it judges, is named before a step."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from tests.doctor.patients import blobs, experiment, seen
from torch import nn

from gipi.doctor.experiment import outputs
from gipi.doctor.rules.eval_in_train_mode import RULE


def net(*more: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 32), *more, nn.ReLU(), nn.Linear(32, 4))


def as_it_is(model, X):
    model.train()
    return model(X)


class AlwaysDrops(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(8, 32), nn.Linear(32, 4)

    def forward(self, x):
        return self.two(F.dropout(self.one(x).relu(), 0.5))


def test_evaluation_in_training_mode_is_named_and_cured() -> None:
    for odd in (nn.Dropout(0.5), nn.BatchNorm1d(32)):
        exp = experiment(net(odd), blobs(), evaluate=as_it_is)
        diagnosis = seen(exp, RULE)
        first = diagnosis.findings[0]
        assert (first.code, first.severity, first.where) == (
            "eval_in_train_mode",
            "problem",
            ("1",),
        )
        treatment = diagnosis.repair()
        assert treatment is not None
        X = exp.val[0]
        said = [outputs(treatment.experiment, X) for _ in range(2)]
        assert torch.equal(*said)
        assert seen(treatment.experiment, RULE).findings == []
        assert treatment.undo() is exp
        assert exp.evaluate is as_it_is


def test_a_function_that_always_drops_is_named_and_left_to_a_person() -> None:
    torch.manual_seed(0)
    diagnosis = seen(experiment(AlwaysDrops(), blobs()), RULE)
    assert [f.severity for f in diagnosis.findings] == ["problem"]
    assert diagnosis.repair() is None
    assert "training=self.training" in diagnosis.findings[0].repairs[0].edit


def test_sound_evaluations_are_left_alone() -> None:
    def sound(model, X):
        model.eval()
        with torch.no_grad():
            return model(X)

    assert seen(experiment(net(nn.Dropout(0.5)), blobs(), evaluate=sound), RULE).findings == []
    assert seen(experiment(net(nn.Dropout(0.5), nn.BatchNorm1d(32)), blobs()), RULE).findings == []
    assert seen(experiment(net(), blobs(), evaluate=as_it_is), RULE).findings == []
