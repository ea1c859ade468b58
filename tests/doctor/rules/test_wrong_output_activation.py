"""Ends that cannot reach the targets are found; ends that fit them are not."""

from __future__ import annotations

import pytest
import torch
from tests.doctor.patients import blobs, experiment, findings, mlp, regression
from tests.doctor.wired import cured, named
from torch import Tensor, nn

from gipi.doctor.rules.wrong_output_activation import RULE


def numbers(change=lambda y: y):
    return [(X, change(y)) for X, y in regression()]


class Called(nn.Module):
    def __init__(self, end, out=1) -> None:
        super().__init__()
        self.net, self.end = mlp(out=out), end

    def forward(self, x: Tensor) -> Tensor:
        return self.end(self.net(x))


@pytest.mark.parametrize("end", [nn.ReLU(), nn.Sigmoid(), nn.Tanh(), torch.relu, torch.tanh])
def test_regression_that_cannot_be_reached(end) -> None:
    data = numbers(lambda y: 2 * y)
    treatment = cured(experiment(Called(end), data, epochs=20, lr=0.01), RULE)
    assert treatment.proof.gain > 0


@pytest.mark.parametrize("end", [nn.ReLU(), nn.Sigmoid(), torch.tanh])
def test_logits_of_one_sign_or_a_narrow_range(end) -> None:
    cured(experiment(Called(end, out=4), blobs(), epochs=3), RULE)


def test_log_odds_of_one_sign() -> None:
    data = [(X, (y == 0).float()[:, None]) for X, y in blobs(classes=2)]
    cured(experiment(Called(torch.relu), data, loss=nn.BCEWithLogitsLoss(), epochs=3), RULE)


def test_a_softmax_over_one_output_says_the_same_of_every_row() -> None:
    data = [(X, (y == 0).float()[:, None]) for X, y in blobs(classes=2)]
    exp = experiment(Called(nn.Softmax(dim=-1)), data, loss=nn.BCELoss(), epochs=3)
    assert "always 1" in named(exp, RULE).findings[0].message
    assert cured(exp, RULE).after["loss"] < 0.7


def test_one_softmax_for_several_answers() -> None:
    data = [(X, (X[:, :4] > 0).float()) for X, _ in blobs()]
    model = nn.Sequential(*mlp(), nn.Softmax(-1))
    treatment = cured(experiment(model, data, loss=nn.BCELoss(), epochs=4), RULE)
    assert treatment.after["loss"] < treatment.before["loss"]
    one_hot = [(X, nn.functional.one_hot(y, 4).float()) for X, y in blobs()]
    assert findings(experiment(model, one_hot, loss=nn.BCELoss()), RULE) == []


def test_a_clamp_that_is_too_tight() -> None:
    named(experiment(Called(lambda o: o.clamp(0, 1)), numbers()), RULE)
    assert findings(experiment(Called(lambda o: o.clamp(-9, 9)), numbers()), RULE) == []


def test_ends_that_reach_their_targets_are_silent() -> None:
    assert findings(experiment(mlp(out=1), numbers()), RULE) == []
    amounts = numbers(lambda y: (y + 3).clamp(min=0))
    assert findings(experiment(Called(torch.relu), amounts), RULE) == []
    assert findings(experiment(Called(nn.Softplus()), numbers(torch.exp)), RULE) == []
    assert findings(experiment(Called(torch.tanh), numbers(torch.sin)), RULE) == []
    scaled = experiment(Called(lambda o: 5 * o.tanh()), numbers())
    assert findings(scaled, RULE) == []
    assert findings(experiment(Called(nn.ELU(), out=4), blobs()), RULE) == []
    pictures = [(X.sigmoid(), X.sigmoid()) for X, _ in regression()]
    assert findings(experiment(Called(torch.sigmoid, out=8), pictures), RULE) == []
