"""Gradients as numbers: sparse ones among them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

LARGEST = torch.finfo(torch.float32).max
"""Squares above are infinite in single precision."""


def dense(grad: Tensor) -> Tensor:
    """Return a gradient, or the values of a sparse one: what it leaves out is 0."""
    return grad.coalesce().values() if grad.is_sparse else grad


def whole_of(grad: Tensor) -> Tensor:
    """Return a gradient with a number for every weight."""
    return grad.to_dense() if grad.is_sparse else grad


def norms_of(grads: list[Tensor]) -> Sequence[Tensor]:
    """Return the norm of every gradient."""
    if any(g.is_sparse for g in grads):
        grads = [dense(g) for g in grads]
    norms: Sequence[Tensor] = torch._foreach_norm(grads)  # noqa: SLF001
    return norms


def total_of(norms: Sequence[Tensor]) -> float:
    """Return the norm of all together, √Σᵢ nᵢ².

    On the CPU numbers are taken out one by one: a call of torch takes longer than all of that.
    Elsewhere every number would be waited for.
    """
    if norms[0].device.type != "cpu":
        return float(torch.linalg.vector_norm(torch.stack([n.float() for n in norms])))
    squares = sum([n * n for n in map(float, norms)])
    return math.inf if squares > LARGEST else math.sqrt(squares)


def norm_of(grads: list[Tensor]) -> Tensor:
    """Return the norm of all of them together."""
    whole: Tensor = torch.linalg.vector_norm(torch.stack([n.float() for n in norms_of(grads)]))
    return whole
