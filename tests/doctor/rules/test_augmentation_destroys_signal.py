"""A transform that destroys the signal is found and taken out, alone or within a chain."""

from __future__ import annotations

import torch
from tests.doctor.patients import blobs, cnn, experiment, findings, images, mlp, seen
from torch import Tensor

from gipi.doctor.rules.augmentation_destroys_signal import RULE, Chain, without_worst


def scatter(x: Tensor) -> Tensor:
    flat = x.flatten(1)
    return flat[:, torch.randperm(flat.shape[1])].view_as(x)


def grain(x: Tensor) -> Tensor:
    return x + 0.05 * torch.randn_like(x)


def test_scattered_pixels_are_named_and_left_out() -> None:
    exp = experiment(cnn(), images(), transform=scatter, epochs=4)
    diagnosis = seen(exp, RULE)
    first = diagnosis.findings[0]
    assert (first.code, first.severity, first.confirmed) == (
        "augmentation_destroys_signal", "problem", True)  # fmt: skip
    treatment = diagnosis.repair()
    assert treatment is not None
    assert treatment.experiment.transform is None
    assert treatment.undo() is exp


def test_the_harmful_step_of_a_chain_is_taken_out() -> None:
    exp = experiment(cnn(), images(), transform=Chain([grain, scatter]))
    assert without_worst(exp) == "took step 2 (scatter) out of the transform"
    assert exp.transform.transforms == [grain]


def test_rows_mixed_within_a_batch_are_named() -> None:
    exp = experiment(mlp(), blobs(), transform=lambda x: x[torch.randperm(len(x))])
    assert findings(exp, RULE) == ["augmentation_destroys_signal"]


def test_mild_transforms_are_left_alone() -> None:
    assert findings(experiment(cnn(), images(), transform=grain), RULE) == []
    assert findings(experiment(mlp(), blobs(), transform=grain), RULE) == []
    assert findings(experiment(cnn(), images()), RULE) == []
