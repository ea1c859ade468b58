"""What lies on a picture goes along with it: points, boxes, masks and keypoints.

All take the matrix (B, 3, 3) that moved the picture; see `geometry` for the coordinates.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from gipi.data.augment.move import apply_exact, source_points

if TYPE_CHECKING:
    from torch import Tensor

IGNORE = 255
"""Label of mask pixels that come from beyond the picture."""
LEAST = 0.1
"""Share of a box's area that must stay in the picture."""


def transform_points(matrix: Tensor, xy: Tensor) -> Tensor:
    """Return points (B, P, 2) moved by the matrix (B, 3, 3) of their picture, same dtype.

    Points behind the viewer of a perspective come out far beyond the picture.
    """
    ones = torch.ones_like(xy[..., :1], dtype=torch.float64)
    moved = torch.cat([xy.double(), ones], dim=-1) @ matrix.transpose(1, 2)
    z = moved[..., 2:]
    place = torch.where(z > 1e-6, moved[..., :2] / z.clamp_min(1e-6), -1e6)
    return place.to(xy.dtype)


def _hull(matrix: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Return the lower and upper corners (B, P, 2) around the moved corners of boxes."""
    x1, y1, x2, y2 = boxes.unbind(-1)
    corners = torch.stack([x1, y1, x2, y1, x2, y2, x1, y2], dim=-1)
    batch, count, _ = corners.shape
    moved = transform_points(matrix, corners.view(batch, 4 * count, 2)).view(batch, count, 4, 2)
    return moved.amin(-2), moved.amax(-2)


def transform_boxes(matrix: Tensor, boxes: Tensor, *, height: int, width: int) -> Tensor:
    """Return boxes (B, P, 4) x1 y1 x2 y2: around the moved corners, clipped to the picture."""
    low, high = _hull(matrix, boxes)
    return clip_boxes(torch.cat([low, high], dim=-1), height=height, width=width)


def clip_boxes(boxes: Tensor, *, height: int, width: int) -> Tensor:
    """Return boxes (..., 4) cut to the picture."""
    limit = torch.tensor([width, height] * 2, dtype=boxes.dtype, device=boxes.device)
    return boxes.clamp(torch.zeros_like(limit), limit)


def move_boxes(
    matrix: Tensor, target: Tensor, *, height: int, width: int, least: float = LEAST
) -> Tensor:
    """Return box targets (B, M, 6) x0 y0 x1 y1 class crowd, moved; see `visible_boxes`."""
    low, high = _hull(matrix, target[..., :4])
    window = torch.tensor([0.0, 0.0, width, height], device=target.device)
    return visible_boxes(torch.cat([low, high], dim=-1), target, window=window, least=least)


def visible_boxes(moved: Tensor, target: Tensor, *, window: Tensor, least: float = LEAST) -> Tensor:
    """Return targets (B, M, 6) with boxes `moved` (B, M, 4) cut to `window` x0 y0 x1 y1.

    The class becomes -1 (an unused row, other values 0) where less than the share `least` of the
    moved box stays in the window, or a side of what stays is under one pixel.
    """
    low, high = window[..., :2], window[..., 2:]
    both = [part.clamp(low, high) for part in (moved[..., :2], moved[..., 2:])]
    sides = both[1] - both[0]
    before = (moved[..., 2:] - moved[..., :2]).prod(-1).clamp_min(1e-12)
    seen = (sides.prod(-1) >= least * before) & (sides.amin(-1) >= 1) & (target[..., 4] >= 0)
    found = torch.cat([*both, target[..., 4:]], dim=-1).to(target.dtype)
    unused = torch.zeros(6, dtype=target.dtype, device=target.device)
    unused[4] = -1
    return torch.where(seen[..., None], found, unused)


def transform_masks(
    matrix: Tensor, masks: Tensor, *, exact: bool, outside: int = IGNORE,
    size: tuple[int, int] | None = None,
) -> Tensor:  # fmt: skip
    """Return integer masks (B, H, W) moved with their pictures: the label of the source pixel.

    exact     whether all matrices are flips and whole-pixel shifts
    outside   the label of pixels that come from beyond the picture
    size      (height, width) of the result; None: as the masks
    """
    h, w = masks.shape[1:]
    if exact and size is None:
        fill = torch.tensor(outside, device=masks.device)
        return apply_exact(masks[:, None], matrix, fill=fill, padding="zero")[:, 0]
    x, y = source_points(matrix, size or (h, w))
    col, row = torch.floor(x).long(), torch.floor(y).long()
    inside = (col >= 0) & (col < w) & (row >= 0) & (row < h)
    index = (row.clamp(0, h - 1) * w + col.clamp(0, w - 1)).flatten(1)
    found = masks.reshape(-1, h * w).gather(1, index).view(-1, *x.shape[1:])
    return torch.where(inside, found, torch.full_like(found, outside))


def move_keypoints(
    matrix: Tensor, target: Tensor, *, height: int, width: int, swap: Tensor | None = None
) -> Tensor:
    """Return keypoint targets (B, K, 3) x, y, visible, moved with their pictures.

    A point that leaves the picture, or was missing, becomes (0, 0, 0).
    swap   (K,) index of each point's name in a mirror image (left eye <-> right eye), used for the
           pictures whose matrix turns the plane over
    """
    moved = transform_points(matrix, target[..., :2])
    limit = torch.tensor([width, height], dtype=moved.dtype, device=moved.device)
    inside = ((moved >= 0) & (moved <= limit)).all(-1, keepdim=True)
    found = torch.cat([moved, target[..., 2:]], dim=-1)
    found = torch.where(inside & (target[..., 2:] > 0), found, torch.zeros_like(found))
    if swap is None:
        return found
    mirrored = turned_over(matrix)[:, None, None]
    return torch.where(mirrored, found[:, swap.to(found.device)], found)


def turned_over(matrix: Tensor) -> Tensor:
    """Return (B,) bool: whether each matrix makes a mirror image (its determinant is negative)."""
    a, b, c = matrix[:, 0].unbind(-1)
    d, e, f = matrix[:, 1].unbind(-1)
    g, h, i = matrix[:, 2].unbind(-1)
    return i * (a * e - b * d) + g * (b * f - c * e) - h * (a * f - c * d) < 0
