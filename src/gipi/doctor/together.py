"""Few columns of a table that give a number away together, though none of them does alone.

A total that was divided, a price and what was taken off it: y = x₁ + x₂, or y = x₁ x₂. Each part
says little, and both leave nothing to be asked.

Shapes: n rows, d columns.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

MOST, WIDE = 3, 400
"""Columns that are parts of one number at the most; columns among which they are looked for."""
NEEDED, RIDGE = 0.05, 1e-9
"""Share that is not told without a column that is needed; what keeps equal columns apart."""
ALONE = 0.9
"""What one part may explain: more is a matter of that column alone."""


@dataclass(frozen=True)
class Together:
    """Columns that explain a share of the target together, and what one of them explains alone."""

    columns: tuple[int, ...]
    share: float
    alone: float


def together(x_nd: Tensor, y_n: Tensor, *, sure: float) -> Together | None:
    """Return two or three columns by which a number is told, as a sum or as a product; or None.

    They are the columns that a regression on all cannot do without. A product is a sum of
    logarithms.
    """
    if not 2 < x_nd.shape[1] <= WIDE:
        return None
    versions = [(x_nd, y_n)]
    if bool((y_n > 0).all()):
        positive = (x_nd > 0).all(0)
        logs = torch.where(positive, x_nd.clamp_min(1e-30).log(), x_nd)
        versions += [(x_nd, y_n.log())] + [(logs, y_n.log())] * bool(positive.any())
    found = (_parts(x, y, sure) for x, y in versions)
    return next((f for f in found if f is not None), None)


def _parts(x_nd: Tensor, y_n: Tensor, sure: float) -> Together | None:
    """Return the columns without which a regression on all tells less, if they tell all.

    Without column j the explained share falls by βⱼ² / (G⁻¹)ⱼⱼ, G the columns' correlations.
    """
    x, y = (v - v.mean(0) for v in (x_nd.double(), y_n.double()))
    x = x / x.norm(dim=0).clamp_min(1e-12)
    y = y / y.norm().clamp_min(1e-12)
    inverse = torch.linalg.inv(x.T @ x + RIDGE * torch.eye(x.shape[1], dtype=x.dtype))
    beta = inverse @ (x.T @ y)
    if 1 - float((y - x @ beta).square().sum()) < sure:
        return None
    needed = (beta.square() / inverse.diagonal() > NEEDED).nonzero().flatten().tolist()
    if not 2 <= len(needed) <= MOST:
        return None
    few = x[:, needed]
    off = y - few @ torch.linalg.lstsq(few, y[:, None]).solution[:, 0]
    share = 1 - float(off.square().sum())
    most = float((few.T @ y).square().max())
    if share < sure or most > ALONE:
        return None
    return Together(tuple(needed), share, most)
