"""Non-maximum suppression that is exactly the greedy one, without a loop over boxes.

The geometry of boxes (areas, overlaps, forms) is `gipi.core.boxes`, repeated here by name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from gipi.core.boxes import (
    box_area,
    clip_boxes,
    convert_boxes,
    giou,
    iou,
    paired_giou,
    paired_iou,
    share_inside,
)

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    "box_area",
    "clip_boxes",
    "convert_boxes",
    "giou",
    "iou",
    "nms",
    "nms_batch",
    "paired_giou",
    "paired_iou",
    "share_inside",
]

BLOCK = 512
"""Boxes whose mutual overlaps `nms` looks at in one piece."""

HOST_PAIRS, DEVICE_PAIRS = 1 << 20, 1 << 26
"""Pairs of boxes that `nms_batch` looks at in one piece; the host's must fit its cache."""


@torch.no_grad()
def nms(
    boxes: Tensor, scores: Tensor, *, threshold: float = 0.5, groups: Tensor | None = None
) -> Tensor:
    """Return the indices (int64) of the boxes that greedy suppression keeps, best score first.

        take the best box left; drop every other box of its group whose IoU with it is above the
        threshold; repeat

    boxes      (N, 4)
    scores     (N,), no NaN
    threshold  a box is dropped where IoU > threshold; at exactly the threshold it stays
    groups     (N,) integers, such as classes: boxes of different groups do not touch each other

    Ties: of equal scores the lower index comes first. Boxes of area 0 have IoU 0 with everything,
    hence are kept. The result is that of the slow loop, box for box; the work is done in blocks of
    `BLOCK` sorted boxes, each against what was kept before and then within itself.
    """
    order = torch.sort(scores, descending=True, stable=True).indices
    boxes = boxes[order]
    groups = None if groups is None else groups[order]
    kept = order.new_empty(0)  # positions in the sorted order
    for start in range(0, len(order), BLOCK):
        here = torch.arange(start, min(start + BLOCK, len(order)), device=order.device)
        if len(kept):
            here = here[~_overlapping(boxes, groups, here, kept, threshold=threshold).any(1)]
        kept = torch.cat(
            [kept, here[_survivors(_overlapping(boxes, groups, here, here, threshold=threshold))]]
        )
    return order[kept]


@torch.no_grad()
def nms_batch(
    boxes: Tensor, scores: Tensor, *, threshold: float = 0.5, groups: Tensor | None = None
) -> Tensor:
    """Return (B, N) bool: which boxes of each picture `nms` keeps. All pictures at once.

    boxes (B, N, 4); scores (B, N), -inf for places that hold no box (never kept); groups (B, N).
    """
    order = torch.sort(scores, dim=1, descending=True, stable=True).indices
    boxes = boxes.gather(1, order[..., None].expand(-1, -1, 4))
    there = scores.gather(1, order) > -torch.inf
    size, used = order.shape[1], int(there.sum(1).max()) if there.numel() else 0  # sync
    order, boxes, there = order[:, :used], boxes[:, :used], there[:, :used]
    groups = torch.zeros_like(order) if groups is None else groups.gather(1, order)
    limit = HOST_PAIRS if boxes.device.type == "cpu" else DEVICE_PAIRS
    pictures = max(1, limit // max(1, order.shape[1] ** 2))
    kept = torch.zeros_like(there)
    for part in torch.arange(len(order), device=order.device).split(pictures):
        over = _above(boxes[part], boxes[part], threshold)
        over &= groups[part, :, None] == groups[part, None, :]
        # A place without a box stands behind all boxes of its picture, hence suppresses none.
        kept[part] = _survivors(over, there[part])
    return kept.new_zeros(len(order), size).scatter(1, order, kept)


def _overlapping(
    boxes: Tensor, groups: Tensor | None, rows: Tensor, columns: Tensor, *, threshold: float
) -> Tensor:
    """(n, m) bool: of one group, and IoU above the threshold."""
    over = _above(boxes[rows], boxes[columns], threshold)
    if groups is not None:
        over &= groups[rows, None] == groups[columns]
    return over


def _above(a: Tensor, b: Tensor, threshold: float) -> Tensor:
    """`iou(a, b) > threshold` with the same roundings, in place: this is where the time goes."""
    if a.dtype in (torch.float16, torch.bfloat16):
        a, b = a.float(), b.float()
    area = box_area(a)[..., :, None] + box_area(b)[..., None, :]
    ax0, ay0, ax1, ay1 = a[..., :, None, :].unbind(-1)
    bx0, by0, bx1, by1 = b[..., None, :, :].unbind(-1)
    shared = torch.minimum(ax1, bx1).sub_(torch.maximum(ax0, bx0)).clamp_(min=0)
    shared.mul_(torch.minimum(ay1, by1).sub_(torch.maximum(ay0, by0)).clamp_(min=0))
    union = area.sub_(shared)
    shared.div_(union)  # 0/0, two empty boxes, is NaN and above nothing
    return shared > threshold


def _survivors(over: Tensor, there: Tensor | None = None) -> Tensor:
    """Return which of N boxes, best first, greedy suppression keeps, from over (..., N, N) bool.

    keep[j] = no i < j with keep[i] and over[i, j]. Iterating this rule from "all" settles box j
    after as many rounds as its longest chain of suppressors, so its fixed point, which is unique,
    comes after a few rounds instead of N steps.
    """
    before = over.tril(-1).to(torch.float32)  # over is symmetric: [j, i] with i < j
    start = over.new_ones(over.shape[:-1]) if there is None else there
    keep = start
    while True:
        # A sum of zeros and ones is 0 or at least 1 in any precision.
        hit = (before @ keep.to(before.dtype)[..., None]).squeeze(-1) > 0
        new = start & ~hit
        if torch.equal(new, keep):  # sync
            return keep
        keep = new
