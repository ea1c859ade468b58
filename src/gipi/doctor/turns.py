"""Columns that lie on a circle: the hour of a day, or the day of a year, as a sine and a cosine."""

from __future__ import annotations

import math

import torch
from torch import Tensor

MOST_COLUMNS = 32
ROWS, LEAST = 64, 6
"""Rows that are asked whether they lie on a circle; different places on it that there must be."""
EXACT = 1e-3
"""How far rows may lie off an ellipse, as a share, and how flat it may be, squared."""


def circles(x_nd: Tensor) -> list[tuple[int, int, Tensor]]:
    """Return pairs of columns that lie on an ellipse along the axes, and its (centre, width).

    Columns may have been standardised since: a xᵢ² + b xⱼ² + c xᵢ + e xⱼ = 1 is solved for all
    pairs at once by least squares, and must hold for every row.
    """
    n, d = x_nd.shape
    if not 2 <= d <= MOST_COLUMNS or n < ROWS or not bool(x_nd.isfinite().all()):
        return []
    x = x_nd[torch.arange(ROWS) * n // ROWS].double()
    std = x.std(0)
    mean, std = x.mean(0), torch.where(std > 0, std, 1.0)
    x = (x - mean) / std
    i, j = torch.triu_indices(d, d, 1)
    a, b = x[:, i].T, x[:, j].T
    terms = torch.stack([a.square(), b.square(), a, b], 2)
    one = torch.ones(len(i), ROWS, 1, dtype=x.dtype)
    w = torch.linalg.lstsq(terms, one).solution
    off = (terms @ w - one).abs().amax((1, 2))
    w = w[..., 0]
    round_ = (off < EXACT) & (w[:, :2].amin(1) > EXACT * w[:, :2].abs().amax(1))
    found = []
    for p in round_.nonzero().flatten().tolist():
        if len(torch.unique(torch.stack([a[p], b[p]], 1).round(decimals=4), dim=0)) < LEAST:
            continue
        both = torch.stack([i[p], j[p]])
        centre = -w[p, 2:] / (2 * w[p, :2]) * std[both] + mean[both]
        found.append((int(i[p]), int(j[p]), torch.stack([centre, std[both] / w[p, :2].sqrt()])))
    return found


def angles(x_nd: Tensor, other_md: Tensor) -> tuple[list[int], list[tuple[Tensor, Tensor]]]:
    """Return which columns lie on circles, and the angle of every row, unrolled from the first on.

    Of other rows it is the angle beyond the first of these, once around at most in the direction
    in which these turn.
    """
    members: set[int] = set()
    found = []
    for i, j, (centre, width) in circles(x_nd):
        members |= {i, j}
        one, other = (
            torch.atan2(*((z[:, (i, j)].double() - centre) / width).unbind(1))
            for z in (x_nd, other_md)
        )
        moved = torch.remainder(one.diff() + math.pi, 2 * math.pi) - math.pi
        way = -1.0 if float(moved.sum()) < 0 else 1.0
        beyond = torch.remainder(way * (other - one[0]), 2 * math.pi)
        found.append((way * torch.cat([moved.new_zeros(1), moved.cumsum(0)]), beyond))
    return sorted(members), found
