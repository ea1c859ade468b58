"""The class that a net tells worst, and when it is told no better than one of two alike."""

from __future__ import annotations

import pytest
import torch
from tests.doctor.patients import experiment
from torch import nn

from gipi.doctor.confused import Told, told


def says(rows: torch.Tensor, y: torch.Tensor, **more):
    """Return an experiment whose net says its input."""
    net = nn.Identity()
    net.weight = nn.Parameter(torch.zeros(1))
    return experiment(net, ((rows, y), (rows, y)), **more)


def test_classes_are_counted_one_by_one() -> None:
    y = torch.arange(3).repeat_interleave(20)
    wrong = y.clone()
    wrong[:15] = 1  # five of the first class are right
    exp = says(nn.functional.one_hot(wrong, 3).float(), y)
    found = told(exp, exp.val, kind="classes")
    assert found == Told(pytest.approx(45 / 60), pytest.approx(0.25), 20)
    assert found.confused


def test_half_of_few_rows_is_told_with_more_noise_than_half_of_many() -> None:
    assert Told(0.9, 0.65, 25).confused
    assert not Told(0.9, 0.65, 400).confused


def test_numbers_have_one_share() -> None:
    y = torch.randn(200, 1, generator=torch.Generator().manual_seed(0))
    exp = says(0.5 * (y - y.mean()) + y.mean(), y, loss=nn.MSELoss())
    assert told(exp, exp.val, kind="numbers") == Told(pytest.approx(0.75), pytest.approx(0.75), 200)


def test_other_answers_and_classes_of_few_rows_are_left_alone() -> None:
    y = torch.arange(2).repeat_interleave(9)
    exp = says(nn.functional.one_hot(y, 2).float(), y)
    assert told(exp, exp.val, kind="classes") is None
    assert told(exp, exp.val, kind="tokens") is None
    assert told(exp, None, kind="classes") is None
