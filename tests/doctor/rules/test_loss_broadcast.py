"""(N, 1) against (N,) is found whoever has the extra dimension, and aligned."""

from __future__ import annotations

import pytest
import torch.nn.functional as F
from tests.doctor.patients import blobs, experiment, findings, mlp, regression
from tests.doctor.wired import cured
from torch import nn

from gipi.doctor.rules.loss_broadcast import RULE

LOSSES = [lambda o, y: ((o - y) ** 2).mean(), lambda o, y: (o - y).abs().sum()]


@pytest.mark.parametrize("loss", LOSSES)
def test_targets_without_the_last_dimension(loss) -> None:
    data = [(X, y[:, 0]) for X, y in regression(300)]
    treatment = cured(experiment(mlp(out=1), data, loss=loss, epochs=4), RULE)
    assert treatment.proof.gain > 0 or treatment.after["loss"] < treatment.before["loss"]


def test_outputs_without_it() -> None:
    model = nn.Sequential(*mlp(out=1), nn.Flatten(0))
    cured(experiment(model, regression(300), loss=LOSSES[0], epochs=3), RULE)


@pytest.mark.filterwarnings("ignore:Using a target size")
def test_torchs_own_loss_that_only_warns() -> None:
    data = [(X, y[:, 0]) for X, y in regression(300)]
    cured(experiment(mlp(out=1), data, loss=nn.MSELoss(), epochs=3), RULE)


def test_shapes_that_fit_or_are_made_to_are_silent() -> None:
    assert findings(experiment(mlp(out=1), regression(300)), RULE) == []
    data = [(X, y[:, 0]) for X, y in regression(300)]
    squeezed = experiment(mlp(out=1), data, loss=lambda o, y: F.mse_loss(o[:, 0], y))
    assert findings(squeezed, RULE) == []
    assert findings(experiment(mlp(), blobs(300)), RULE) == []
