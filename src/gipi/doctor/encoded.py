"""Columns that hold the mean of the targets of equal rows: the own target is among them.

A category that was replaced by the mean target of its rows tells of a rare one what its few rows
answer. What gives it away: means of few rows differ by chance, and the column knows by how much.

Shapes: n rows, d columns.
"""

from __future__ import annotations

import torch
from torch import Tensor

LEAST, MOST = 20, 0.9
"""Different values that a column has at least, and at most as a share of the rows."""
KNOWS = 0.1
"""Scatter of the means about a line, of what it is by chance, below which it is known: by chance in
less than one of a billion where 20 values are asked."""
FEWER, EXACTLY = 6, 1e-4
"""The same where targets are of two kinds: means of few rows are few fractions."""
PURE = 0.3
"""Share of the rows whose value then stands for targets of one kind."""
OWN = 0.04
"""Share that the own target has in the mean of a row, on average, from which on it tells."""
DIFFER, EVENLY = 0.5, 1.001
"""Scatter of the means, of what it is by chance, that they must have at least; and ratio of the
widest gap of two values to the narrowest that is none."""
WITHIN = 0.05
"""Share of the variance that equal values of the column must leave: else they are told outright."""


def encoded(x_nd: Tensor, y_n: Tensor) -> list[int]:
    """Return the columns whose values are the mean targets of their rows, all but for a line.

    F = Σ n_g (ȳ_g − a − b v_g)² / ((G − 2) s²) over G values v of n_g rows each, s² the variance
    of targets within: about 1 or above for whatever was measured.
    """
    y = y_n.double() - y_n.double().mean()
    total = float(y.square().mean())
    if total <= 0:
        return []
    two = len(torch.unique(y)) == 2
    return [j for j in range(x_nd.shape[1]) if _is_encoded(x_nd[:, j].double(), y, total, two=two)]


def _is_encoded(x_n: Tensor, y_n: Tensor, total: float, *, two: bool) -> bool:
    value, group, count = torch.unique(x_n, return_inverse=True, return_counts=True)
    n, groups = len(x_n), len(value)
    many = groups >= LEAST and groups / n >= OWN
    if groups > MOST * n or not (many or (two and groups >= FEWER)):
        return False
    mean = torch.zeros(groups, dtype=torch.float64).index_add_(0, group, y_n) / count
    within = float((y_n - mean[group]).square().sum()) / (n - groups)
    if within < WITHIN * total:
        return False
    weight = count.double()
    if float((weight * mean.square()).sum()) < DIFFER * within * (groups - 1):
        return False  # means that differ by less than chance: rows were balanced on purpose
    gaps = value.diff()
    if bool((count == count[0]).all()) and float(gaps.max()) < EVENLY * float(gaps.min()):
        return False  # levels of a plan: as many rows each, evenly apart
    v = value - (weight * value).sum() / n
    slope = float((weight * v * mean).sum() / (weight * v * v).sum().clamp_min(1e-30))
    off = float((weight * (mean - slope * v).square()).sum())
    if many:
        return off < KNOWS * within * (groups - 2)
    pure = (mean - y_n.min()).abs().minimum((mean - y_n.max()).abs()) < EXACTLY
    return off < EXACTLY * within * (groups - 2) and float(count[pure].sum()) >= PURE * n
