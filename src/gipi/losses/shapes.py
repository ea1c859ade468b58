"""Shapes of outputs and targets."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gipi.core.errors import ModelError

if TYPE_CHECKING:
    from torch import Tensor


def matched(outputs: Tensor, target: Tensor) -> Tensor:
    """Return `outputs` in the shape of `target`; (B, 1) and (B,) are the same, else `ModelError`.

    Without it (B, 1) - (B,) would silently become (B, B).
    """
    if outputs.shape == target.shape:
        return outputs
    if outputs.numel() == target.numel() and len(outputs) == len(target):
        return outputs.reshape(target.shape)
    raise ModelError(
        f"outputs of shape {tuple(outputs.shape)} for targets of shape {tuple(target.shape)}",
        "one output for each target value",
        "set the width of the model's head",
    )


def row_means(values: Tensor) -> Tensor:
    """Return (B,) means over all but the first axis."""
    return values.flatten(1).mean(1) if values.ndim > 1 else values


def per_row(total: Tensor, values: Tensor) -> Tensor:
    """Return the sum of all elements of `values` as the sum of its row means."""
    width = values.numel() // len(values) if values.ndim > 1 and len(values) else 1
    return total if width == 1 else total / width
