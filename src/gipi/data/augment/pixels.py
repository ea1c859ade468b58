"""Steps on values: brightness and contrast as one gain and bias per sample, and erased rectangles.

Pictures are normalised, z = (v - m) / s with channel mean m and spread s of the training pictures
and v in [0, 1]; steps say what they do to v.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor


@dataclass(frozen=True)
class Photometric:
    """One step v -> gain v + bias: `gain_bias(draw, mean)` gives gain (B, 1) and bias (B, C)."""

    name: str
    gain_bias: Callable[[Callable[[int], Tensor], Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Erasing:
    """One erased rectangle: `box(draw, H, W)` gives (B, 4) int64 y1 y2 x1 x2 (empty: nothing)."""

    name: str
    box: Callable[[Callable[[int], Tensor], int, int], Tensor]


def brightness(*, strength: float = 0.2) -> Photometric:
    """Multiply v by a factor uniform in 1 - strength .. 1 + strength."""

    def gain_bias(draw: Callable[[int], Tensor], mean: Tensor) -> tuple[Tensor, Tensor]:
        gain = 1 + (draw(0)[:, None] * 2 - 1) * strength
        return gain, torch.zeros_like(gain).expand(-1, len(mean))

    return Photometric("brightness", gain_bias)


def contrast(*, strength: float = 0.2) -> Photometric:
    """Stretch v about the mean colour of the training pictures, v' = m + g (v - m).

    g is uniform in 1 - strength .. 1 + strength. Others stretch about the grey mean of the picture
    itself; the fixed centre keeps the step a gain and a bias.
    """

    def gain_bias(draw: Callable[[int], Tensor], mean: Tensor) -> tuple[Tensor, Tensor]:
        gain = 1 + (draw(0)[:, None] * 2 - 1) * strength
        return gain, (1 - gain) * mean.double()

    return Photometric("contrast", gain_bias)


def apply_gain_bias(
    images: Tensor, gain: Tensor, bias: Tensor, *, mean: Tensor, std: Tensor, clip: bool
) -> Tensor:
    """Return normalised images after v -> gain v + bias, v kept within [0, 1] where `clip`.

    In normalised values: z' = gain z + ((gain - 1) m + bias) / s.
    """
    m, s = mean.double(), std.double()
    offset = ((gain - 1) * m + bias) / s
    out = images * gain.to(images.dtype)[:, :, None, None]
    out = out + offset.to(images.dtype)[:, :, None, None]
    if not clip:
        return out
    low, high = (-m / s).to(images.dtype), ((1 - m) / s).to(images.dtype)
    return out.clamp(low.view(-1, 1, 1), high.view(-1, 1, 1))


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
