"""Losses of detectors: focal loss, GIoU loss, centerness.

Every loss answers (total, count) as in `classes`, but what is counted is positive places: those
that an object was assigned to. Totals are sums over places. A batch without positives has count 0;
who divides must see to it (`gipi.tasks.detect` adds one for the whole step).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F

from gipi.core.boxes import paired_giou
from gipi.core.errors import ModelError

if TYPE_CHECKING:
    from torch import Tensor

BACKGROUND, IGNORED = -1, -2
"""Class of a place without an object, and of one that takes no part."""


def focal(
    outputs: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    *,
    alpha: float = 0.25,
    gamma: float = 2.0,
) -> tuple[Tensor, Tensor]:
    """Return the focal loss over all classes of all places, and the number of positive places.

        l = -α (1 - p)^γ log p          for the class of the place
        l = -(1 - α) p^γ log(1 - p)     for every other class,            p = σ(z)

    Easy places, by far the most, weigh next to nothing.

    outputs  (B, A, K) logits
    target   (B, A) int64: 0..K-1, `BACKGROUND` (-1) or `IGNORED` (-2)
    weight   (B,) row weights, or None for ones

    Lin et al. 2017, "Focal loss for dense object detection", arXiv:1708.02002.
    """
    _check(outputs, target, "classes", outputs.shape[:-1])
    z = _wide(outputs)
    true = target[..., None] == torch.arange(z.shape[-1], device=z.device)
    # With s = -z for the true class and z for the others, both lines read σ(s)^γ log(1 + e^s).
    s = torch.where(true, -z, z)
    p = torch.sigmoid(s)
    if gamma < 1:  # the power's gradient at 0 is ∞ · 0 there: the clamp keeps it finite
        p = p.clamp_min(1e-12)
    values = p**gamma * F.softplus(s)
    values = values * (true.to(z.dtype) * (2 * alpha - 1) + (1 - alpha))
    rows = (values * (target != IGNORED)[..., None]).flatten(1).sum(1)
    return _weighted(rows, target >= 0, weight)


def giou_loss(
    outputs: Tensor, target: Tensor, weight: Tensor | None = None, *, valid: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Return Σ (1 - GIoU) over places, and their number.

    outputs, target  boxes (B, A, 4) x0, y0, x1, y1
    weight           (B,) row weights, or None for ones
    valid            (B, A) bool: the places that have a box; None for all

    Rezatofighi et al. 2019, "Generalized intersection over union", arXiv:1902.09630.
    """
    _check(outputs, target, "boxes", outputs.shape)
    valid = _all(outputs[..., 0]) if valid is None else valid
    values = 1 - paired_giou(_wide(outputs), target)
    rows = torch.where(valid, values, 0.0).sum(1)
    return _weighted(rows, valid, weight)


def centerness(
    outputs: Tensor, target: Tensor, weight: Tensor | None = None, *, valid: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Return the binary cross-entropy of the centerness over places, and their number.

    outputs  (B, A) logits
    target   (B, A) in [0, 1], see `centerness_of`
    weight   (B,) row weights, or None for ones
    valid    (B, A) bool: the places that have an object; None for all

    Tian et al. 2019, "FCOS: fully convolutional one-stage object detection", arXiv:1904.01355.
    """
    _check(outputs, target, "values", outputs.shape)
    valid = _all(outputs) if valid is None else valid
    z = _wide(outputs)
    values = F.binary_cross_entropy_with_logits(z, target.to(z.dtype), reduction="none")
    return _weighted(torch.where(valid, values, 0.0).sum(1), valid, weight)


def centerness_of(places: Tensor, boxes: Tensor) -> Tensor:
    """Return √(min(l, r)/max(l, r) · min(t, b)/max(t, b)) of places (..., 2) in boxes (..., 4).

    l, t, r, b are the distances to the four sides: 1 in the middle, 0 on the edge and outside.
    """
    first = (places - boxes[..., :2]).clamp_min(0)
    second = (boxes[..., 2:] - places).clamp_min(0)
    share = torch.minimum(first, second) / torch.maximum(first, second).clamp_min(1e-12)
    return share.prod(-1).sqrt()


def _wide(outputs: Tensor) -> Tensor:
    """Return float32 for half precision: sums over thousands of places need more bits."""
    return outputs.float() if outputs.dtype in (torch.float16, torch.bfloat16) else outputs


def _all(like: Tensor) -> Tensor:
    return torch.ones_like(like, dtype=torch.bool)


def _weighted(rows: Tensor, positive: Tensor, weight: Tensor | None) -> tuple[Tensor, Tensor]:
    """(B,) sums of rows and (B, A) positive places -> Σ w·row and Σ w·positives."""
    counts = positive.sum(1, dtype=torch.float32)
    if weight is None:
        return rows.sum(), counts.sum()
    return (rows * weight).sum(), (counts * weight).sum()


def _check(outputs: Tensor, target: Tensor, what: str, needed: tuple[int, ...]) -> None:
    if target.shape != needed:
        raise ModelError(
            f"outputs of shape {tuple(outputs.shape)} for {what} of shape {tuple(target.shape)}",
            f"{what} of shape {tuple(needed)}",
            "give one target for each place of the detector",
        )
