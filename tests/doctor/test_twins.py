"""How much a row says, by the frequencies of its values, counted as one would by hand."""

from __future__ import annotations

import math

import pytest
import torch
from tests.doctor.patients import blobs, experiment, mlp

from gipi.doctor import twins
from gipi.doctor.facts import Facts
from gipi.doctor.twins import bits_of, enough, training_copies


def by_hand(X: torch.Tensor, first: torch.Tensor) -> list[float]:
    total = [0.0] * len(X)
    for column in X.T.tolist():
        seen = [column[i] for i in first.tolist()]
        for i, value in enumerate(column):
            count = max(1, seen.count(value))
            alone = len(set(seen)) > max(10, 0.5 * len(seen)) and seen.count(value) <= 1
            total[i] += enough(len(first)) if alone else -math.log2(count / len(first))
    return total


@pytest.mark.parametrize("at_once", [10, 2_000_000])
def test_bits_are_counted_as_by_hand(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(twins, "AT_ONCE", at_once)
    g = torch.Generator().manual_seed(0)
    few = torch.randint(3, (40, 4), generator=g).float() - 1
    X = torch.cat([few, torch.randn(40, 2, generator=g)], 1)
    X[7] = X[3]
    first = torch.arange(40)[torch.arange(40) % 5 != 0]
    assert bits_of(X, first).tolist() == pytest.approx(by_hand(X, first))


def test_training_rows_are_compared_once() -> None:
    start = Facts(experiment(mlp(), blobs()))
    found = training_copies(start)
    assert training_copies(Facts(start.exp, start=start)) is found
    assert not bool(found.telling.logical_not().any())
