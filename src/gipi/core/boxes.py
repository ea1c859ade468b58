"""Boxes as tensors: areas, overlaps, forms. Losses, metrics, models and tasks all stand on it.

A box is (x0, y0, x1, y1) in continuous pixels, x right and y down, x0 <= x1 and y0 <= y1; an
inverted box has area 0. N and M count boxes; `...` are any axes in front.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from gipi.core.errors import ConfigError, did_you_mean

if TYPE_CHECKING:
    from torch import Tensor

FORMS = ("xyxy", "xywh", "cxcywh")


def box_area(boxes: Tensor) -> Tensor:
    """Return (x1 - x0)(y1 - y0) of boxes (..., 4), 0 where a box is inverted."""
    return (boxes[..., 2] - boxes[..., 0]).clamp_min(0) * (boxes[..., 3] - boxes[..., 1]).clamp_min(
        0
    )


def convert_boxes(boxes: Tensor, *, source: str, to: str) -> Tensor:
    """Return boxes (..., 4) in another form.

    xyxy    x0, y0, x1, y1
    xywh    x0, y0, width, height (COCO files)
    cxcywh  middle, width, height

    >>> convert_boxes(torch.tensor([2.0, 3.0, 6.0, 5.0]), source="xyxy", to="cxcywh").tolist()
    [4.0, 4.0, 4.0, 2.0]
    """
    for name in (source, to):
        if name not in FORMS:
            raise ConfigError(
                f"no form of boxes is called '{name}'",
                "one of: " + ", ".join(FORMS),
                did_you_mean(name, FORMS),
            )
    a, b, c, d = boxes.unbind(-1)
    if source == "xywh":
        c, d = a + c, b + d
    elif source == "cxcywh":
        a, b, c, d = a - c / 2, b - d / 2, a + c / 2, b + d / 2
    if to == "xywh":
        c, d = c - a, d - b
    elif to == "cxcywh":
        a, b, c, d = (a + c) / 2, (b + d) / 2, c - a, d - b
    return torch.stack([a, b, c, d], dim=-1)


def clip_boxes(boxes: Tensor, *, height: float, width: float) -> Tensor:
    """Return boxes (..., 4) cut off at the edges of a picture."""
    x, y = boxes[..., 0::2].clamp(0, width), boxes[..., 1::2].clamp(0, height)
    return torch.stack([x, y], dim=-1).flatten(-2)


# ---------------------------------------------------------------------------- overlaps


def _shared(a: Tensor, b: Tensor) -> Tensor:
    """Area of the intersection of boxes that broadcast against each other."""
    w = torch.minimum(a[..., 2], b[..., 2]) - torch.maximum(a[..., 0], b[..., 0])
    h = torch.minimum(a[..., 3], b[..., 3]) - torch.maximum(a[..., 1], b[..., 1])
    return w.clamp_min(0) * h.clamp_min(0)


def _exact(boxes: Tensor) -> Tensor:
    """Half precision cannot hold the product of two sides."""
    return boxes.float() if boxes.dtype in (torch.float16, torch.bfloat16) else boxes


def _quotient(above: Tensor, below: Tensor) -> Tensor:
    """Return above / below, and 0 (with gradient 0) where below is 0."""
    empty = below <= 0
    return torch.where(empty, 0.0, above / torch.where(empty, 1.0, below))


def paired_iou(a: Tensor, b: Tensor) -> Tensor:
    """Return |A ∩ B| / |A ∪ B| of boxes (..., 4) that broadcast; 0 where both are empty."""
    a, b = _exact(a), _exact(b)
    shared = _shared(a, b)
    return _quotient(shared, box_area(a) + box_area(b) - shared)


def paired_giou(a: Tensor, b: Tensor) -> Tensor:
    """Return GIoU = IoU - (|C| - |A ∪ B|) / |C| of boxes that broadcast, in [-1, 1].

    C is the smallest box around both, so that boxes which do not meet still have a slope.
    Rezatofighi et al. 2019, "Generalized intersection over union", arXiv:1902.09630.
    """
    a, b = _exact(a), _exact(b)
    shared = _shared(a, b)
    union = box_area(a) + box_area(b) - shared
    around = box_area(
        torch.cat(
            [torch.minimum(a[..., :2], b[..., :2]), torch.maximum(a[..., 2:], b[..., 2:])], dim=-1
        )
    )
    return _quotient(shared, union) - _quotient(around - union, around)


def iou(a: Tensor, b: Tensor) -> Tensor:
    """Return the IoU (..., N, M) of every box of (..., N, 4) with every box of (..., M, 4)."""
    return paired_iou(a[..., :, None, :], b[..., None, :, :])


def giou(a: Tensor, b: Tensor) -> Tensor:
    """Return the GIoU (..., N, M) of every box of (..., N, 4) with every box of (..., M, 4)."""
    return paired_giou(a[..., :, None, :], b[..., None, :, :])


def share_inside(a: Tensor, b: Tensor) -> Tensor:
    """Return |A ∩ B| / |A|, (..., N, M): how much of each box (..., N, 4) lies in each of M others.

    It takes the place of IoU where B is a crowd, a region of many objects.
    """
    a, b = _exact(a)[..., :, None, :], _exact(b)[..., None, :, :]
    return _quotient(_shared(a, b), box_area(a))
