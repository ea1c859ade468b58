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

    Columns are taken one after another, the one that explains most of what is left first
    (orthogonal least squares). Products are sums of logarithms.
    """
    if not 2 < x_nd.shape[1] <= WIDE:
        return None
    versions = [(x_nd, y_n)]
    if bool((y_n > 0).all()):
        positive = (x_nd > 0).all(0)
        logs = torch.where(positive, x_nd.clamp_min(1e-30).log(), x_nd)
        versions += [(x_nd, y_n.log())] + [(logs, y_n.log())] * bool(positive.any())
    found = [_greedy(x, y, sure) for x, y in versions]
    return next((f for f in found if f is not None), None)


def _greedy(x_nd: Tensor, y_n: Tensor, sure: float) -> Together | None:
    x, y = (v - v.mean(0) for v in (x_nd.double(), y_n.double()))
    total = x.square().sum(0)
    x = x / total.sqrt().clamp_min(1e-12)
    y = y / y.norm().clamp_min(1e-12)
    alone = (x.T @ y).square()
    for first in alone.argsort(descending=True)[:2].tolist():
        taken = [int(first)]
        left, rest = x.clone(), y.clone()
        while True:
            way = left[:, taken[-1]] / left[:, taken[-1]].norm().clamp_min(1e-12)
            left, rest = left - way[:, None] * (way @ left), rest - way * (way @ rest)
            share = 1 - float(rest.square().sum())
            if share >= sure or len(taken) == MOST:
                break
            size = left.square().sum(0)
            gain = (left.T @ rest).square() / size.clamp_min(1e-9)
            gain[(size < 1e-6) | (total == 0)] = 0.0
            taken.append(int(gain.argmax()))
        most = float(alone[taken].max())
        if share >= sure and len(taken) > 1 and most <= ALONE:
            return Together(tuple(taken), share, most)
    return None
