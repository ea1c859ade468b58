"""Splits from different places are found where that hurts; order of time is left alone."""

from __future__ import annotations

import torch
from tests.doctor.patients import (
    blobs,
    cnn,
    experiment,
    findings,
    halves,
    images,
    mlp,
    regression,
    seen,
)

from gipi.doctor.rules.train_val_shift import RULE


def test_moved_validation_rows_are_named_and_divided_anew_after_a_yes() -> None:
    train, (V, v) = blobs()
    exp = experiment(mlp(), (train, (V + 1.5, v)), epochs=3)
    diagnosis = seen(exp, RULE)
    first = diagnosis.findings[0]
    assert (first.code, first.severity, first.confirmed) == ("train_val_shift", "problem", True)
    assert first.evidence["auc"] > 0.8
    assert diagnosis.repair() is None
    treatment = diagnosis.repair(apply=["train_val_shift"])
    assert treatment is not None
    assert findings(treatment.experiment, RULE) == []
    assert treatment.undo() is exp


def test_classes_that_training_lacks_are_named() -> None:
    (X, y), (V, v) = blobs()
    X, y = torch.cat([X, V]), torch.cat([y, v])
    order = y.argsort(stable=True)
    exp = experiment(mlp(), halves(X[order], y[order], 0.75))
    assert "class 3" in seen(exp, RULE).findings[0].where


def test_healthy_twins_are_left_alone() -> None:
    for seed in range(3):
        assert findings(experiment(mlp(), blobs(seed=seed)), RULE) == []
        assert findings(experiment(mlp(out=1), regression(seed=seed)), RULE) == []
    assert findings(experiment(cnn(), images()), RULE) == []


def test_a_split_in_order_of_time_is_left_alone() -> None:
    g = torch.Generator().manual_seed(0)
    X = torch.randn(800, 6, generator=g)
    time = torch.arange(800) / 400 - 1
    y = X[:, 1:].sum(1, keepdim=True).sin() + 0.1 * time[:, None]
    X[:, 0] = time + 0.05 * X[:, 0]
    assert findings(experiment(mlp(6, 1), halves(X, y), epochs=8), RULE) == []
