"""Objects cut out of pictures: what a flip is measured on where masks or boxes are learnt.

A flip moves a mask or a box along, but not its class: a mirrored b is a d, and a mirrored left lung
looks like a right one. The probe of `probe` is therefore asked about the objects themselves.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional

from gipi.core.schema import IGNORED

if TYPE_CHECKING:
    from torch import Tensor

LEAST = 4  # pixels of a side below which nothing can be told of an object


def cut_out(pixels: Tensor, target: Tensor, *, side: int, most: int) -> tuple[Tensor, Tensor]:
    """Return the objects of pictures (n, C', side, side) float32, and their classes (n,) int64.

    pixels  (B, C, H, W)
    target  boxes (B, M, 6): C' = C, crowds are left out; or masks (B, H, W): all pixels of a class
            are an object, C' = C + 1 with the rest of the picture at 0 and the shape behind
    most    objects of one picture, spread over them
    """
    boxed = target.is_floating_point()
    find = _boxes if boxed else _shapes
    parts: list[Tensor] = []
    classes: list[int] = []
    for picture, drawn in zip(pixels.float(), target, strict=True):
        for part, kind in find(picture, drawn, most):
            parts.append(functional.adaptive_avg_pool2d(part, (side, side)))
            classes.append(kind)
    if not parts:
        channels = pixels.shape[1] + (not boxed)
        return torch.zeros(0, channels, side, side), torch.zeros(0, dtype=torch.int64)
    return torch.stack(parts), torch.tensor(classes)


def _boxes(picture: Tensor, boxes: Tensor, most: int) -> list[tuple[Tensor, int]]:
    height, width = picture.shape[1:]
    used = boxes[(boxes[:, 4] >= 0) & (boxes[:, 5] == 0)]
    out = []
    for x0, y0, x1, y1, kind, _ in used[:: max(1, -(-len(used) // most))].tolist():
        left, top = max(0, int(x0)), max(0, int(y0))
        right, below = min(width, round(x1)), min(height, round(y1))
        if min(right - left, below - top) >= LEAST:
            out.append((picture[:, top:below, left:right], int(kind)))
    return out


def _shapes(picture: Tensor, mask: Tensor, most: int) -> list[tuple[Tensor, int]]:
    out = []
    kinds = [kind for kind in mask.unique().tolist() if kind != IGNORED]
    for kind in kinds[:: max(1, -(-len(kinds) // most))]:
        inside = mask == kind
        rows, columns = (inside.any(axis).nonzero()[:, 0].tolist() for axis in (1, 0))
        top, below, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
        if min(below - top, right - left) < LEAST:
            continue
        shape = inside[top:below, left:right].float()[None]
        part = picture[:, top:below, left:right] * shape
        out.append((torch.cat([part, 255 * shape]), int(kind)))
    return out
