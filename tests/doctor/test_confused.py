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


def test_one_edge_holds_for_all_rows_of_yes_and_no() -> None:
    """Log-odds of yes that all lie between 0 and 1 are no probabilities."""
    said = torch.cat([torch.linspace(-2, -1, 20), torch.linspace(0.1, 0.4, 20)])[:, None]
    y = torch.arange(2).repeat_interleave(20).float()[:, None]
    exp = says(said, y, loss=nn.BCEWithLogitsLoss())
    found = told(exp, exp.val, kind="binary")
    assert found is not None
    assert (found.all, found.worst, found.rows) == (1.0, 1.0, 20)


def test_a_class_that_is_taken_for_several_is_not_confused_with_one() -> None:
    y = torch.arange(4).repeat_interleave(20)
    for others, confused in (([1] * 20, True), ([1, 2, 3, 1] * 5, False)):
        said = y.clone()
        said[:20] = torch.tensor(others)
        exp = says(nn.functional.one_hot(said, 4).float(), y)
        found = told(exp, exp.val, kind="classes")
        assert found is not None
        assert (found.worst, found.confused) == (0.0, confused)
