"""Grids of a detector: where its answers stand in the picture, level by level.

A level of stride s has ceil(H/s) x ceil(W/s) places, row after row; the place in column i and row j
stands at ((i + 1/2) s, (j + 1/2) s), in pixels of the picture. Levels follow each other, the finest
first; with several anchors a place, these follow each other within it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from gipi.core.device import constants
from gipi.core.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

STRIDES = (8, 16, 32, 64, 128)
"""P3 to P7 of Lin et al. 2017 (arXiv:1708.02002) and Tian et al. 2019 (arXiv:1904.01355)."""

RATIOS = (0.5, 1.0, 2.0)  # height over width
SCALES = (1.0, 2 ** (1 / 3), 2 ** (2 / 3))
ANCHOR_SIZE = 4.0  # in strides: 32 pixels at stride 8


@dataclass(frozen=True)
class Level:
    """One level: its stride and its rows and columns of places."""

    stride: int
    rows: int
    columns: int

    @property
    def places(self) -> int:
        """Number of places."""
        return self.rows * self.columns


def existing_strides(
    height: int, width: int, *, strides: Sequence[int] = STRIDES
) -> tuple[int, ...]:
    """Return the strides whose level has more than one place; the first in any case.

    >>> existing_strides(64, 48)
    (8, 16, 32)
    """
    return tuple(s for i, s in enumerate(strides) if i == 0 or s < max(height, width))


def levels_of(
    places: int, height: int, width: int, *, strides: Sequence[int] = STRIDES
) -> tuple[Level, ...]:
    """Return the levels, finest first, that together have this many places.

    The number of levels is thus read off the detector's answer itself. Raises `ModelError` where no
    number of levels fits.
    """
    found: list[Level] = []
    for stride in strides:
        if sum(level.places for level in found) >= places:
            break
        found.append(Level(stride, math.ceil(height / stride), math.ceil(width / stride)))
    if sum(level.places for level in found) != places or not found:
        raise ModelError(
            f"a detector's answer for {places} places in pictures of {height}x{width}",
            f"the places of the first levels with strides {', '.join(map(str, strides))}",
            "give model and task the same strides and method (fcos or retinanet)",
        )
    return tuple(found)


def locations(levels: Sequence[Level], device: torch.device | str = "cpu") -> Tensor:
    """Return the places of all levels, (A, 3) float32: x, y and the stride."""
    parts = []
    for level in levels:
        y = (torch.arange(level.rows, device=device) + 0.5) * level.stride
        x = (torch.arange(level.columns, device=device) + 0.5) * level.stride
        grid = torch.empty(level.rows, level.columns, 3, device=device)
        grid[..., 0], grid[..., 1], grid[..., 2] = x, y[:, None], float(level.stride)
        parts.append(grid.view(-1, 3))
    return torch.cat(parts)


def anchors(
    levels: Sequence[Level],
    device: torch.device | str = "cpu",
    *,
    size: float = ANCHOR_SIZE,
    scales: Sequence[float] = SCALES,
    ratios: Sequence[float] = RATIOS,
) -> Tensor:
    """Return the anchors of all levels, boxes (A, 4), in pixels.

    Around every place stand boxes of area (size · scale · stride)², one for each scale and each
    ratio of height to width. Lin et al. 2017, arXiv:1708.02002: 3 scales x 3 ratios.
    """
    sides = [
        size * scale * math.sqrt(share) / 2
        for scale in scales
        for ratio in ratios
        for share in (1 / ratio, ratio)
    ]
    half = constants(sides, device).view(-1, 2)
    place = locations(levels, device)
    middle, reach = place[:, None, :2], half * place[:, None, 2:]
    return torch.cat([middle - reach, middle + reach], dim=-1).view(-1, 4)
