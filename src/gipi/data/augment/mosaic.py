"""Mosaic: four pictures with their boxes around one point (Bochkovskiy et al. 2020)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from gipi.data.augment.follow import visible_boxes
from gipi.data.augment.geometry import identity
from gipi.data.augment.move import apply_sampled

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from gipi.data.augment.geometry import Draw

PARTS = 4


@dataclass(frozen=True)
class Mosaic:
    """Four pictures in one, with probability p."""

    p: float
    name: str = "mosaic"


def mosaic(*, p: float = 0.5) -> Mosaic:
    """Put four pictures of the batch around a point, with probability p.

    Bochkovskiy, Wang and Liao 2020, arXiv:2004.10934. The point is uniform in the middle half of
    the picture. Each picture is shrunk, by a factor between what just fills its corner and 1, and
    touches the point with its own corner: nothing is left blank. A box is cut to its corner, and
    dropped where too little of it is left.
    """
    return Mosaic(p)


def assemble(
    images: Sequence[Tensor], targets: Sequence[Tensor], draw: Draw, *, p: float
) -> tuple[Tensor, Tensor]:
    """Return pictures (B, C, H, W) and boxes (B, 4 M, 6), used rows first.

    images    four times (B, C, H, W): the row's own picture, and those of three other rows
    targets   their boxes, four times (B, M, 6)
    draw      of the rows: 0 and 1 give the point, 2 whether, 3-6 the factors
    """
    own, first = images[0], targets[0]
    batch, count, _ = first.shape
    none = torch.zeros(batch, (PARTS - 1) * count, 6, dtype=first.dtype, device=first.device)
    none[..., 4] = -1
    whole = torch.cat([first, none], dim=1)
    rows = (draw(2) < p).nonzero()[:, 0]  # sync, once for several batches
    if not len(rows):
        return own, whole
    h, w = own.shape[2:]
    x = torch.floor(w * (0.25 + 0.5 * draw(0)[rows]))
    y = torch.floor(h * (0.25 + 0.5 * draw(1)[rows]))
    canvas, found = torch.empty_like(own[rows]), []
    ys = torch.arange(h, device=own.device)[:, None]
    xs = torch.arange(w, device=own.device)
    for part in range(PARTS):
        right, below = part % 2 == 1, part >= PARTS // 2
        wide, high = (w - x if right else x), (h - y if below else y)
        least = torch.maximum(wide / w, high / h)
        s = least + draw(3 + part)[rows] * (1 - least)
        m = identity(s)
        m[:, 0, 0] = m[:, 1, 1] = s
        m[:, 0, 2] = x if right else x - s * w
        m[:, 1, 2] = y if below else y - s * h
        placed = apply_sampled(
            images[part][rows], m, fill=own.new_zeros(()), padding="edge", projective=False
        )
        across = (xs >= x.view(-1, 1, 1)) == right
        down = (ys >= y.view(-1, 1, 1)) == below
        canvas = torch.where((across & down)[:, None], placed, canvas)
        window = torch.stack([x if right else 0 * x, y if below else 0 * y,
                              x + wide if right else x, y + high if below else y], -1)  # fmt: skip
        found.append(_placed(m, targets[part][rows], window))
    out = own.clone()
    out[rows] = canvas
    whole[rows] = used_first(torch.cat(found, dim=1))
    return out, whole


def _placed(matrix: Tensor, target: Tensor, window: Tensor) -> Tensor:
    """Return boxes scaled and moved by `matrix` (no turn), cut to their windows (B, 4)."""
    s, offset = matrix[:, None, 0, :1], matrix[:, None, :2, 2]
    moved = torch.cat([target[..., :2] * s + offset, target[..., 2:4] * s + offset], dim=-1)
    return visible_boxes(moved, target, window=window[:, None].to(moved.dtype))


def used_first(target: Tensor) -> Tensor:
    """Return box targets (B, M, 6) with used rows first, in their order."""
    order = torch.argsort((target[..., 4] < 0).to(torch.uint8), dim=1, stable=True)
    return target.gather(1, order[..., None].expand_as(target))
