"""Validation rows that were prepared differently are found and brought in line."""

from __future__ import annotations

import torch
from tests.doctor.patients import blobs, cnn, experiment, findings, images, mlp, seen
from torch import Tensor

from gipi.doctor.rules.preprocessing_mismatch import RULE


def test_another_scale_is_named_brought_in_line_and_undone() -> None:
    train, (V, v) = blobs()
    exp = experiment(mlp(), (train, (20 * V + 7, v)), epochs=4)
    diagnosis = seen(exp, RULE)
    first = diagnosis.findings[0]
    assert (first.code, first.severity, first.confirmed) == (
        "preprocessing_mismatch",
        "problem",
        True,
    )
    treatment = diagnosis.repair()
    assert treatment is not None
    assert treatment.after["loss"] < 0.7 < treatment.before["loss"]
    assert findings(treatment.experiment, RULE) == []
    assert treatment.undo() is exp


def test_a_transform_that_only_prepares_moves_into_the_model() -> None:
    def prepare(x: Tensor) -> Tensor:
        return (x / 255 - 0.2) / 0.3

    bright = tuple((X * 255, y) for X, y in images())
    exp = experiment(cnn(), bright, transform=prepare)
    assert findings(exp, RULE) == ["preprocessing_mismatch"]
    said = seen(exp, RULE).findings[0].repairs[0].change(exp)
    assert said == "the transform prepares inputs within the model now, for every split"
    assert exp.transform is None
    assert findings(exp, RULE) == []


def test_inverted_images_are_named() -> None:
    train, (V, v) = images()
    assert findings(experiment(cnn(), (train, (1 - V, v)), lr=0.003), RULE) == [
        "preprocessing_mismatch"
    ]


def test_columns_that_were_standardised_in_one_split_alone_are_named() -> None:
    scale = torch.linspace(1.5, 3.0, 8)
    (X, y), (V, v) = ((X * scale - 4, y) for X, y in blobs())
    mean, std = X.mean(0), X.std(0)
    exp = experiment(mlp(), (((X - mean) / std, y), (V, v)))
    assert findings(exp, RULE) == ["preprocessing_mismatch"]
    exp = experiment(mlp(), (((X - mean) / std, y), ((V - mean) / std, v)))
    assert findings(exp, RULE) == []


def test_healthy_twins_are_left_alone() -> None:
    assert findings(experiment(mlp(), blobs()), RULE) == []
    assert findings(experiment(cnn(), images()), RULE) == []
    bright = tuple((X * 255, y) for X, y in images())
    assert findings(experiment(cnn(norm=True), bright), RULE) == []
