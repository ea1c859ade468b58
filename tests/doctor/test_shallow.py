"""Shallow learners: what chance could do is asked as often as it takes to be sure, not more."""

from __future__ import annotations

import pytest
import torch

from gipi.doctor.shallow import (
    FEW,
    ORDERS,
    ask_neighbours,
    ask_ridge,
    in_any_order,
    neighbours,
    predict,
    ridge,
)


def told(share: float, rows: int = 300):
    g = torch.Generator().manual_seed(0)
    X = torch.randn(rows, 6, generator=g)
    y = share * X[:, :1] + (1 - share) * torch.randn(rows, 1, generator=g)
    return X, y


@pytest.mark.parametrize(("share", "orders"), [(0.9, FEW), (0.0, ORDERS)])
def test_few_orders_do_where_they_leave_no_doubt(share: float, orders: int) -> None:
    X, y = told(share)
    for answer in (ask_ridge(ridge(X), y)[0], ask_neighbours(neighbours(X), y)):
        assert len(answer.chance) == orders
        assert answer.nothing == (share == 0)


def test_the_first_orders_are_the_same_however_many_are_asked_for() -> None:
    y = torch.arange(50.0)[:, None]
    few, many = in_any_order(y, FEW), in_any_order(y, ORDERS)
    assert all(torch.equal(a, b) for a, b in zip(few, many, strict=False))


def test_left_out_predictions_are_those_of_a_fit_without_the_row() -> None:
    X, y = told(0.5, rows=40)
    answer, _ = ask_ridge(ridge(X), y)
    errors = []
    for penalty in ridge(X).penalties:
        rest = torch.arange(40) != 7
        F, Y = X[rest].double(), y[rest].double()
        centre, mean = F.mean(0), Y.mean(0)
        A = (F - centre).T @ (F - centre) + penalty * torch.eye(6, dtype=torch.float64)
        w = torch.linalg.solve(A, (F - centre).T @ (Y - mean))
        errors.append(float((X[7].double() - centre) @ w + mean - answer.told_nk[7]))
    assert min(abs(e) for e in errors) < 1e-4
    assert predict(ridge(X), y, X).shape == (40, 1)
