"""A clip far below every norm is named before the first step; one that Adam ignores is not."""

from __future__ import annotations

import torch
from tests.doctor.patients import blobs, experiment, mlp, seen

from gipi.doctor.experiment import call
from gipi.doctor.rules.grad_clip_too_small import RULE


def clipping(most: float):
    def step(exp, xb, yb):
        exp.optimizer.zero_grad()
        loss = exp.loss(call(exp.model, xb), yb)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(exp.model.parameters(), most)
        exp.optimizer.step()
        return loss.detach()

    return step


def clipped(most: float, optimizer: str = "sgd"):
    torch.manual_seed(0)
    lr = 0.1 if optimizer == "sgd" else 0.01
    return experiment(mlp(), blobs(), lr=lr, optimizer=optimizer, step=clipping(most))


def test_a_tiny_clip_is_named_and_cured() -> None:
    exp = clipped(1e-3)
    diagnosis = seen(exp, RULE)
    first = diagnosis.findings[0]
    assert (first.code, first.severity, first.confirmed) == ("grad_clip_too_small", "problem", True)
    treatment = diagnosis.repair()
    assert treatment is not None
    assert treatment.after["loss"] < 0.3 * treatment.before["loss"]
    assert treatment.undo() is exp


def test_a_clip_of_every_value_is_named_too() -> None:
    def step(exp, xb, yb):
        exp.optimizer.zero_grad()
        loss = exp.loss(call(exp.model, xb), yb)
        loss.backward()
        torch.nn.utils.clip_grad_value_(exp.model.parameters(), 1e-5)
        exp.optimizer.step()
        return loss.detach()

    torch.manual_seed(0)
    exp = experiment(mlp(), blobs(), lr=0.1, optimizer="sgd", step=step)
    assert [f.code for f in seen(exp, RULE).problems] == ["grad_clip_too_small"]


def test_clips_that_cut_spikes_or_stand_before_adam_are_healthy() -> None:
    assert seen(clipped(5.0), RULE).findings == []
    assert seen(clipped(1e-2, "adam"), RULE).findings == []
