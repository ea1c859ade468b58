"""A second softmax is found as a module, as a function, and within the loss; log_softmax is not."""

from __future__ import annotations

import pytest
import torch.nn.functional as F
from tests.doctor.patients import blobs, experiment, findings, images, mlp
from tests.doctor.wired import Attention, cured, named, next_words
from torch import Tensor, nn

from gipi.doctor.rules.double_softmax import RULE


class Called(nn.Module):
    """A softmax that is no module, behind a change of shape."""

    def __init__(self) -> None:
        super().__init__()
        self.net = mlp()

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)[:, None].softmax(-1).squeeze(1)


@pytest.mark.parametrize("model", [
    lambda: nn.Sequential(*mlp(), nn.Softmax(dim=1)), Called,
    lambda: nn.Sequential(mlp(), nn.Softmax(dim=-1)),
])  # fmt: skip
def test_it_is_named_and_cured(model) -> None:
    treatment = cured(experiment(model(), blobs(), epochs=6), RULE)
    assert treatment.proof.gain > 0
    assert treatment.after["loss"] < treatment.before["loss"]


def test_probabilities_made_by_hand_are_given_to_the_loss_as_logarithms() -> None:
    class ByHand(Called):
        def forward(self, x: Tensor) -> Tensor:
            e = self.net(x).exp()
            return e / e.sum(1, keepdim=True)

    assert cured(experiment(ByHand(), blobs(), epochs=6), RULE).after["loss"] < 0.3


def test_a_softmax_within_the_loss_needs_a_person() -> None:
    exp = experiment(mlp(), blobs(), loss=lambda o, y: F.cross_entropy(o.softmax(-1), y))
    diagnosis = named(exp, RULE)
    assert diagnosis.repair() is None
    assert "without softmax" in diagnosis.why_not


@pytest.mark.parametrize("model", [
    mlp, lambda: nn.Sequential(*mlp(), nn.LogSoftmax(-1)),
    lambda: nn.Sequential(nn.Linear(8, 8), nn.Softmax(-1), nn.Linear(8, 4)),
])  # fmt: skip
def test_logits_log_probabilities_and_a_softmax_inside_are_silent(model) -> None:
    assert findings(experiment(model(), blobs()), RULE) == []


def test_smoothing_attention_and_a_likelihood_of_probabilities_are_silent() -> None:
    smooth = nn.CrossEntropyLoss(label_smoothing=0.1)
    assert findings(experiment(mlp(), blobs(), loss=smooth), RULE) == []
    spoken = nn.Sequential(*mlp(), nn.Softmax(-1))
    nll = experiment(spoken, blobs(), loss=lambda o, y: F.nll_loss(o.log(), y))
    assert findings(nll, RULE) == []
    (X, y), val = next_words()
    exp = experiment(Attention(), ((X, y), val), loss=lambda o, t: F.cross_entropy(o.mT, t))
    assert findings(exp, RULE) == []
    assert findings(experiment(nn.Sequential(nn.Flatten(), nn.LazyLinear(4)), images()), RULE) == []
