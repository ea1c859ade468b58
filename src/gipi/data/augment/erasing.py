"""Erased rectangles: a part of the picture is replaced by the mean colour."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor


@dataclass(frozen=True)
class Erasing:
    """One erased rectangle: `box(draw, H, W)` gives (B, 4) int64 y1 y2 x1 x2 (empty: nothing)."""

    name: str
    box: Callable[[Callable[[int], Tensor], int, int], Tensor]


def cutout(*, size: int, p: float = 1.0) -> Erasing:
    """Erase a square whose middle is uniform in the picture; it may reach over the edge.

    DeVries and Taylor 2017, arXiv:1708.04552.
    """

    def box(draw: Callable[[int], Tensor], height: int, width: int) -> Tensor:
        y = torch.floor(draw(0) * height).long() - size // 2
        x = torch.floor(draw(1) * width).long() - size // 2
        found = torch.stack([y, y + size, x, x + size], dim=1)
        return found * (draw(2) < p)[:, None]

    return Erasing("cutout", box)


def erase(
    *, p: float = 0.5, least: float = 0.02, most: float = 0.33, aspect: float = 3.3
) -> Erasing:
    """Erase a rectangle inside the picture with probability p.

    Zhong et al. 2017, "Random erasing data augmentation", arXiv:1708.04896.

    Its share of the area is uniform in least..most, the logarithm of height over width uniform in
    ±log(aspect); sides are cut to the picture's. Filled with the mean colour, where the paper
    prefers random values.
    """

    def box(draw: Callable[[int], Tensor], height: int, width: int) -> Tensor:
        area = (least + draw(0) * (most - least)) * height * width
        ratio = torch.exp((draw(1) * 2 - 1) * math.log(aspect))
        h = torch.sqrt(area * ratio).round().clamp(1, height)
        w = torch.sqrt(area / ratio).round().clamp(1, width)
        y = torch.floor(draw(2) * (height - h + 1))
        x = torch.floor(draw(3) * (width - w + 1))
        found = torch.stack([y, y + h, x, x + w], dim=1).long()
        return found * (draw(4) < p)[:, None]

    return Erasing("erase", box)


def rectangle(box: Tensor, height: int, width: int) -> Tensor:
    """Return (B, 1, H, W) bool, True inside the box y1 y2 x1 x2 of each sample."""
    y = torch.arange(height, device=box.device)
    x = torch.arange(width, device=box.device)
    rows = (y >= box[:, :1]) & (y < box[:, 1:2])
    cols = (x >= box[:, 2:3]) & (x < box[:, 3:])
    return (rows[:, :, None] & cols[:, None, :])[:, None]
