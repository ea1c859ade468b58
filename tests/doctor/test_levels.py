"""Names of classes that are fitted as numbers are told from levels, whatever their numbers are."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from tests.doctor.patients import blobs, experiment, findings, halves, mlp
from tests.doctor.wired import cured, named
from torch import nn

from gipi.doctor.levels import Levels, in_order, levels_of
from gipi.doctor.rules.wrong_loss import RULE


def test_levels_are_numbers_at_even_distances() -> None:
    assert levels_of(torch.tensor([3.0, 1, 2, 1])) == Levels(1.0, 1.0, 3)
    found = levels_of((torch.tensor([0.0, 1, 2, 3]) - 1.4) / 1.1)
    assert found is not None
    assert found.at(torch.tensor([0.5454545])).round().tolist() == [2.0]
    for other in ([0.0, 1], [0.0, 1, 3], [0.0, 1, float("inf")]):
        assert levels_of(torch.tensor(other)) is None


def test_what_is_taken_for_each_other_tells_levels_from_names() -> None:
    y = torch.arange(8).repeat(20)
    near = (-(torch.arange(8.0) - y[:, None]).abs()).softmax(1)
    assert in_order(near, y) < 0.01
    order = torch.randperm(8, generator=torch.Generator().manual_seed(3))
    assert in_order(near[:, order], torch.argsort(order)[y]) > 0.05


class Own(nn.Module):
    """Weights of its own, without layers."""

    def __init__(self) -> None:
        super().__init__()
        g = torch.Generator().manual_seed(0)
        self.inner = nn.Parameter(torch.randn(8, 32, generator=g) / 3)
        self.outer = nn.Parameter(torch.randn(32, 1, generator=g) / 6)
        self.bias = nn.Parameter(torch.zeros(1))

    def forward(self, x):
        return torch.relu(x @ self.inner) @ self.outer + self.bias


def numbers(by=1.0, off=0.0):
    return [(X, by * y.float()[:, None] + off) for X, y in blobs(1000, classes=6, seed=1)]


@pytest.mark.parametrize(("net", "data", "loss"), [
    (lambda: mlp(out=1), numbers(off=1.0), F.mse_loss),
    (lambda: mlp(out=1), numbers(0.6, -1.5), F.smooth_l1_loss),
    (lambda: mlp(out=1), numbers(0.2), F.binary_cross_entropy_with_logits),
    (lambda: nn.Sequential(*mlp(out=1), nn.ReLU()), numbers(), F.mse_loss),
    (Own, numbers(), F.mse_loss),
])  # fmt: skip
def test_names_in_other_numbers_behind_other_ends(net, data, loss) -> None:
    torch.manual_seed(0)
    named(experiment(net(), data, loss=loss), RULE)


def test_what_comes_of_own_weights_is_read_by_a_layer_behind() -> None:
    torch.manual_seed(0)
    cured(experiment(Own(), numbers(), loss=F.mse_loss, epochs=6), RULE, apply=["wrong_loss"])


@pytest.mark.parametrize("by", [1.0, 0.5])
def test_levels_with_two_peaks_are_silent(by) -> None:
    g = torch.Generator().manual_seed(2)
    X = torch.randn(1100, 8, generator=g)
    u = 4 + 1.5 * X[:, 0].sign() * (X[:, 1].abs() + 0.5) + 0.3 * torch.randn(1100, generator=g)
    torch.manual_seed(0)
    exp = experiment(mlp(out=1), halves(X, by * u.round().clamp(1, 8)[:, None], 0.82),
                     loss=F.mse_loss)  # fmt: skip
    assert findings(exp, RULE) == []
