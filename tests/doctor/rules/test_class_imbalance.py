"""A rare class that the net gives up is found and weighted; one that it finds is left alone."""

from __future__ import annotations

import torch
from tests.doctor.patients import blobs, experiment, findings, mlp, seen
from torch import nn

from gipi.doctor.rules.class_imbalance import RULE, weigh

RARE = {"classes": 2, "weights": [0.97, 0.03]}


def test_a_class_that_is_given_up_is_named_weighted_and_undone() -> None:
    exp = experiment(mlp(out=2), blobs(1500, apart=0.5, **RARE), epochs=5)
    diagnosis = seen(exp, RULE, train=True)
    first = diagnosis.findings[0]
    assert (first.code, first.severity, first.confirmed) == ("class_imbalance", "problem", True)
    assert first.evidence["mean_recall_weighted"] > first.evidence["mean_recall_as_is"]
    treatment = diagnosis.repair()
    assert treatment is not None
    assert float(treatment.experiment.loss.weight[1]) > 10
    assert findings(treatment.experiment, RULE, train=True) == []
    assert treatment.undo() is exp


def test_a_rare_class_that_is_found_is_left_alone() -> None:
    exp = experiment(mlp(out=2), blobs(1500, apart=2.0, **RARE), epochs=8)
    assert findings(exp, RULE, train=True) == []


def test_what_was_weighted_or_declared_is_left_alone() -> None:
    data = blobs(800, apart=0.5, **RARE)
    weights = nn.CrossEntropyLoss(torch.tensor([1.0, 30.0]))
    assert findings(experiment(mlp(out=2), data, loss=weights, epochs=2), RULE, train=True) == []
    known = experiment(mlp(out=2), data, epochs=2, declared={"imbalance": True})
    assert findings(known, RULE, train=True) == []


def test_one_output_is_weighted_too() -> None:
    data = tuple((X, y[:, None].float()) for X, y in blobs(800, apart=0.5, **RARE))
    exp = experiment(mlp(out=1), data, loss=nn.BCEWithLogitsLoss())
    before = exp.loss
    weigh(exp)
    assert float(exp.loss.positive) > 5 * float(exp.loss.negative)
    assert exp.judge is before
