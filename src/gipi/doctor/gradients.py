"""Gradients as numbers: sparse ones among them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor


def dense(grad: Tensor) -> Tensor:
    """Return a gradient, or the values of a sparse one: what it leaves out is 0."""
    return grad.coalesce().values() if grad.is_sparse else grad


def whole_of(grad: Tensor) -> Tensor:
    """Return a gradient with a number for every weight."""
    return grad.to_dense() if grad.is_sparse else grad


def norms_of(grads: list[Tensor]) -> list[Tensor]:
    """Return the norm of every gradient."""
    if any(g.is_sparse for g in grads):
        grads = [dense(g) for g in grads]
    return list(torch._foreach_norm(grads))  # noqa: SLF001


def norm_of(grads: list[Tensor]) -> Tensor:
    """Return the norm of all of them together."""
    whole: Tensor = torch.linalg.vector_norm(torch.stack([n.float() for n in norms_of(grads)]))
    return whole
