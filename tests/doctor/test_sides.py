"""Whose side a net takes where a learner contradicts labels of rows that both never saw."""

from __future__ import annotations

import math

import torch
from tests.doctor.patients import blobs, experiment
from torch import Tensor, nn

from gipi.doctor.facts import Facts
from gipi.doctor.sheet import sheet
from gipi.doctor.sides import SIDE, margin, sides, speaks_against
from gipi.doctor.told import told_of_train, told_of_val


class Says(nn.Module):
    """Says of known rows what it was told, surely."""

    def __init__(self, X: Tensor, classes: Tensor) -> None:
        super().__init__()
        self.register_buffer("X", X)
        self.register_buffer("said", 9 * nn.functional.one_hot(classes).float())
        self.weight = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        return self.said[torch.cdist(x, self.X).argmin(1)] + self.weight


def asked(classes: int, *, by_label: bool) -> tuple[float, bool]:
    train, (X, right) = blobs(900, classes, apart=2.0)
    g = torch.Generator().manual_seed(1)
    other = (right + torch.randint(1, classes, right.shape, generator=g)) % classes
    given = torch.where(torch.rand(len(right), generator=g) < 0.3, other, right)
    net = Says(torch.cat([train[0], X]), torch.cat([train[1], given if by_label else right]))
    facts = Facts(experiment(net, (train, (X, given))))
    assert sheet(facts) is not None
    learners, new = told_of_train(facts), told_of_val(facts)
    firm = margin(new) >= margin(new).quantile(0.5)
    return sides(facts, new, firm), speaks_against(facts, learners[0], learners)


def test_a_net_takes_the_side_of_a_learner_or_of_the_labels() -> None:
    z, against = asked(4, by_label=False)
    assert z > SIDE
    assert against
    z, against = asked(4, by_label=True)
    assert z < -SIDE
    assert not against


def test_of_two_classes_nothing_is_told() -> None:
    z, against = asked(2, by_label=False)
    assert math.isnan(z)
    assert not against
