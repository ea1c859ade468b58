"""Which place of a detector answers for which box: for whole batches, without a loop.

Targets are (B, M, 6): x0, y0, x1, y1, class, crowd; class -1 in unused rows. A crowd is no object
to be found, and places that lie in one and have no object of their own take no part.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from gipi.core.boxes import box_area, iou, share_inside
from gipi.losses import BACKGROUND, IGNORED

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from gipi.nn.grids import Level

PAIRS = 1 << 24
"""Places x boxes that are looked at in one piece; larger batches are cut into rows."""

OVERLAP, CLEAR = 0.5, 0.4
"""IoU from which an anchor answers for a box, and below which it is background."""


@dataclass(frozen=True)
class Assigned:
    """What each place should answer.

    classes  (B, A) int64: the class, `BACKGROUND` or `IGNORED`
    boxes    (B, A, 4) the box; zeros where there is none
    """

    classes: Tensor
    boxes: Tensor


@torch.no_grad()
def assign_places(
    target: Tensor,
    places: Tensor,
    levels: Sequence[Level],
    *,
    radius: float = 1.5,
    reach: float = 8.0,
) -> Assigned:
    """Return what FCOS learns at places (A, 3) of x, y and stride.

    A place answers for the smallest box (the first of equals) of which all this is true:
        it lies in the box, and within `radius` strides of its middle along x and along y;
        the farthest side of the box is at most `reach` strides of its level away, and more than
        that of the next finer level; the finest level takes all smaller, the coarsest all larger.
    A box without such a place, one that is long and so thin that it lies between the rows of its
    level, is answered for by the place in it, of a finer level, that is nearest to its middle.

    Tian et al. 2019, arXiv:1904.01355, with centre sampling (their code: radius 1.5, reach 8). The
    last rule is ours. A box narrower than the finest stride may lie between all places; it is then
    not learnt, as no place outside of a box could say where it ends.
    """

    def part(target: Tensor) -> Assigned:
        boxes, real = target[:, None, :, :4], target[..., 4] >= 0  # (b, 1, M, 4)
        where, stride = places[:, None, :2], places[:, 2, None]  # (A, 1, 2), (A, 1)
        sides = torch.cat([where - boxes[..., :2], boxes[..., 2:] - where], dim=-1)  # (b, A, M, 4)
        inside = sides.amin(-1) > 0
        off = (where - (boxes[..., :2] + boxes[..., 2:]) / 2).abs().amax(-1)
        least, most = _limits(levels, reach, places)
        far = sides.amax(-1)
        large = inside & (far > least[:, None])
        fits = large & (off < radius * stride) & (far <= most[:, None])
        crowd = real & (target[..., 5] != 0)
        normal = (real & ~crowd)[:, None, :]
        fits &= normal
        near = torch.where(large & normal & ~fits.any(1, keepdim=True), off, torch.inf)
        fits |= (near < torch.inf) & (near == near.amin(1, keepdim=True))
        area = torch.where(fits, box_area(boxes), torch.inf)
        return _chosen(target, area.min(-1), inside & crowd[:, None, :])

    return _in_parts(part, target, len(places))


@torch.no_grad()
def assign_anchors(target: Tensor, anchors: Tensor) -> Assigned:
    """Return what RetinaNet learns at anchors (A, 4).

    An anchor answers for the box with the largest IoU if that is at least 0.5, is background below
    0.4 and takes no part in between. So that no box is lost, the anchors with the largest IoU of
    each box answer for it even below 0.5.

    Lin et al. 2017, arXiv:1708.02002. The last rule is that of Ren et al. 2015, arXiv:1506.01497.
    """

    def part(target: Tensor) -> Assigned:
        real, crowd = target[..., 4] >= 0, target[..., 5] != 0
        normal = real & ~crowd
        overlap = torch.where(normal[:, None], iou(anchors, target[..., :4]), -1.0)  # (b, A, M)
        best = overlap.amax(1, keepdim=True)
        rescued = (overlap == best) & (best > 0)
        value, index = torch.where(rescued, overlap + 1, overlap).max(-1)
        # `_chosen` takes what is finite: turn "answers for a box" into that.
        cost = torch.where(value >= OVERLAP, -value, torch.inf)
        between = (value >= CLEAR) & (value < OVERLAP)
        covered = share_inside(anchors, target[..., :4]) >= OVERLAP
        covered = covered & (real & crowd)[:, None]
        return _chosen(target, (cost, index), covered | between[..., None])

    return _in_parts(part, target, len(anchors))


def _limits(levels: Sequence[Level], reach: float, places: Tensor) -> tuple[Tensor, Tensor]:
    """Return (A,) distances to the farthest side: above the first, and up to the second."""
    least = [0.0 if i == 0 else levels[i - 1].stride * reach for i in range(len(levels))]
    most = [*least[1:], math.inf]
    both = [
        torch.cat(
            [
                torch.full((level.places,), bound, device=places.device)
                for level, bound in zip(levels, bounds, strict=True)
            ]
        )
        for bounds in (least, most)
    ]
    return both[0], both[1]


def _chosen(target: Tensor, best: tuple[Tensor, Tensor], out: Tensor) -> Assigned:
    """From the best box (b, A) of each place, finite where there is one, and who takes no part."""
    cost, index = best
    found = cost < torch.inf
    classes = target[..., 4].long().gather(1, index)
    free = torch.where(out.any(-1), IGNORED, BACKGROUND)
    boxes = target[..., :4].gather(1, index[..., None].expand(-1, -1, 4))
    return Assigned(torch.where(found, classes, free), torch.where(found[..., None], boxes, 0.0))


def _in_parts(part: Callable[[Tensor], Assigned], target: Tensor, places: int) -> Assigned:
    """Apply `part` to as many rows at a time as `PAIRS` allows."""
    if target.shape[1] == 0:
        target = torch.nn.functional.pad(target, (0, 0, 0, 1), value=-1.0)
    rows = max(1, PAIRS // max(1, places * target.shape[1]))
    found = [part(piece) for piece in target.split(rows)]
    if len(found) == 1:
        return found[0]
    return Assigned(torch.cat([f.classes for f in found]), torch.cat([f.boxes for f in found]))
