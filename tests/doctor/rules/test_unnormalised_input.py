"""Inputs on wild scales are found and standardised; a model that scales itself is left alone."""

from __future__ import annotations

import torch
from tests.doctor.patients import blobs, cnn, experiment, findings, images, mlp, seen
from torch import Tensor, nn

from gipi.doctor.rules.unnormalised_input import RULE


def scaled(splits, scale):
    return tuple((X * scale, y) for X, y in splits)


def test_wild_scales_are_named_standardised_and_undone() -> None:
    wild = scaled(blobs(), torch.logspace(-2, 3, 8))
    exp = experiment(mlp(), wild, optimizer="sgd", lr=0.05, epochs=6)
    diagnosis = seen(exp, RULE)
    first = diagnosis.findings[0]
    assert (first.code, first.severity, first.confirmed) == ("unnormalised_input", "problem", True)
    treatment = diagnosis.repair()
    assert treatment is not None
    assert treatment.after["score"] > -0.6
    assert findings(treatment.experiment, RULE) == []
    assert treatment.undo() is exp


def test_tiny_numbers_are_named() -> None:
    exp = experiment(mlp(), scaled(blobs(), 1e-3), optimizer="sgd", lr=0.05)
    assert findings(exp, RULE) == ["unnormalised_input"]


def test_healthy_twins_are_left_alone() -> None:
    assert findings(experiment(mlp(), blobs()), RULE) == []
    assert findings(experiment(mlp(), scaled(blobs(), torch.linspace(0.3, 4, 8))), RULE) == []
    bright = scaled(images(), 255)
    assert findings(experiment(cnn(norm=True), bright), RULE) == []

    class Dividing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = cnn()
            self.net(torch.zeros(2, 1, 10, 10))

        def forward(self, x: Tensor) -> Tensor:
            return self.net(x / 255)

    assert findings(experiment(Dividing(), bright), RULE) == []


def test_rare_yes_and_no_columns_are_no_matter_of_scale() -> None:
    (X, y), val = blobs()
    X = X.clone()
    X[:, 0] = 0.0
    X[:2, 0] = 1.0
    assert findings(experiment(mlp(), ((X, y), val)), RULE) == []
