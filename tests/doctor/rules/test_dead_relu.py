"""Units that are closed for every row are named; units that are closed for most are not."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from tests.doctor.patients import blobs, cnn, experiment, images, mlp, seen
from tests.doctor.rules.test_vanishing_gradient import deep
from torch import nn

from gipi.doctor.rules.dead_relu import RULE


class Called(nn.Module):
    """ReLU called as a function."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(8, 32), nn.Linear(32, 4)

    def forward(self, x):
        return self.two(F.relu(self.one(x)))


def shifted(net: nn.Module, by: float) -> nn.Module:
    first = next(m for m in net.modules() if isinstance(m, (nn.Linear, nn.Conv2d)))
    with torch.no_grad():
        first.bias.sub_(by)
    return net


def test_units_dead_from_the_start_are_named_and_opened() -> None:
    for net in (mlp(), Called()):
        torch.manual_seed(0)
        exp = experiment(shifted(net, 20.0), blobs(), lr=0.01)
        diagnosis = seen(exp, RULE)
        first = diagnosis.findings[0]
        assert (first.code, first.severity, first.phase) == ("dead_relu", "problem", "before")
        treatment = diagnosis.repair()
        assert treatment is not None
        assert treatment.after["loss"] < 0.3
        assert treatment.undo() is exp


def test_dead_channels_of_a_convolution_are_named() -> None:
    torch.manual_seed(0)
    net = cnn()
    net(images()[0][0][:2])
    exp = experiment(shifted(net, 20.0), images(), lr=0.01)
    assert [f.code for f in seen(exp, RULE).problems] == ["dead_relu"]


def test_sparse_units_and_a_dead_half_that_is_not_needed_are_healthy() -> None:
    torch.manual_seed(0)
    exp = experiment(shifted(mlp(hidden=96), 2.0), blobs(), lr=0.01)
    assert seen(exp, RULE, train=True).findings == []
    net = mlp(hidden=96)
    with torch.no_grad():
        net[0].bias[:60].sub_(30.0)
    assert seen(experiment(net, blobs(), lr=0.01), RULE, train=True).findings == []


@pytest.mark.parametrize(("lr", "epochs"), [(0.1, 60), (0.05, 30)])
def test_a_deep_net_whose_units_are_dead_in_part_is_judged_by_its_whole_run(lr, epochs) -> None:
    """It begins to learn late, and then learns all; where the run ends before that it is named."""
    torch.manual_seed(0)
    exp = experiment(deep(nn.ReLU, 6), blobs(), lr=lr, epochs=epochs, optimizer="sgd")
    found = seen(exp, RULE, train=True).findings
    assert [f.code for f in found] == ["dead_relu"] * (epochs == 30)
    assert all("loss_changed_at_the_end" in f.evidence for f in found)
