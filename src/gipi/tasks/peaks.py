"""From heatmaps to points: the peak and its place between the pixels."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F

if TYPE_CHECKING:
    from torch import Tensor

FARTHEST = 1.5
"""Map pixels that a peak may lie from the pixel whose neighbours tell (no border pixel)."""
SMALLEST = 1e-10
"""Values of a heatmap below it are taken for it, for the logarithm."""


def read_heatmaps(maps: Tensor, *, stride: float, logits: bool, blur: float = 0.0) -> Tensor:
    """Return points (B, K, 3): x, y in pixels of the picture, and a confidence in [0, 1].

    maps    (B, K, h, w); pixel (v, u) has its centre at ((u + 1/2)·stride, (v + 1/2)·stride)
    logits  the maps are logits over positions, else Gaussians of height one
    blur    σ of a Gaussian that smooths maps which are no logits first, in map pixels; 0: none

    The logarithm L of a Gaussian is a parabola, so one Newton step from the largest pixel finds its
    summit exactly: offset = -H⁻¹ g with the gradient g and the Hessian H of L by differences of the
    neighbours. Zhang et al. 2020, "Distribution-aware coordinate representation", arXiv:1910.06278.
    Where the neighbours show no summit the pixel itself answers.

    The confidence is the probability of the 5x5 pixels around the peak, or the height of the peak.
    """
    maps = maps.float() if maps.dtype in (torch.bfloat16, torch.float16) else maps
    height, width = maps.shape[-2:]
    surface = maps if logits else _smoothed(maps, blur).clamp_min(SMALLEST).log()
    place = surface.flatten(2).argmax(2)
    v, u = place // width, place % width
    x, y = u.to(maps.dtype), v.to(maps.dtype)
    if height >= 3 and width >= 3:
        across, down = _summit(surface, v.clamp(1, height - 2), u.clamp(1, width - 2), x, y)
        x, y = across, down
    confidence = _confidence(maps, place, v, u, logits=logits)
    return torch.stack([(x + 0.5) * stride, (y + 0.5) * stride, confidence], dim=2)


def _summit(surface: Tensor, v: Tensor, u: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return where the parabola through the neighbours of (v, u) is highest, else (x, y)."""
    width = surface.shape[-1]
    flat = surface.flatten(2)

    def at(dv: int, du: int) -> Tensor:
        return flat.gather(2, ((v + dv) * width + u + du).unsqueeze(2)).squeeze(2)

    centre, left, right, above, below = at(0, 0), at(0, -1), at(0, 1), at(-1, 0), at(1, 0)
    gx, gy = (right - left) / 2, (below - above) / 2
    hxx, hyy = left - 2 * centre + right, above - 2 * centre + below
    hxy = (at(1, 1) - at(1, -1) - at(-1, 1) + at(-1, -1)) / 4
    det = hxx * hyy - hxy * hxy
    falls = (hxx < 0) & (hyy < 0) & (det > 0)
    safe = torch.where(falls, det, 1.0)
    dx, dy = (hxy * gy - hyy * gx) / safe, (hxy * gx - hxx * gy) / safe
    good = falls & (dx.abs() <= FARTHEST) & (dy.abs() <= FARTHEST)
    return torch.where(good, u + dx, x), torch.where(good, v + dy, y)


def _confidence(maps: Tensor, place: Tensor, v: Tensor, u: Tensor, *, logits: bool) -> Tensor:
    flat = maps.flatten(2)
    if not logits:
        return flat.gather(2, place.unsqueeze(2)).squeeze(2).clamp(0, 1)
    height, width = maps.shape[-2:]
    p = flat.softmax(2)
    total = torch.zeros_like(p[:, :, 0])
    for dv in range(-2, 3):
        for du in range(-2, 3):
            row, column = v + dv, u + du
            inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
            index = row.clamp(0, height - 1) * width + column.clamp(0, width - 1)
            total = total + p.gather(2, index.unsqueeze(2)).squeeze(2) * inside
    return total.clamp(max=1)


def _smoothed(maps: Tensor, sigma: float) -> Tensor:
    """Return the maps under a Gaussian; trained maps have bumps that differences would follow.

    A sum of shifted maps and no convolution, which autocast would do in half precision.
    """
    if sigma <= 0:
        return maps
    radius = math.ceil(3 * sigma)
    kernel = [math.exp(-0.5 * (step / sigma) ** 2) for step in range(-radius, radius + 1)]
    height, width = maps.shape[-2:]
    wide = F.pad(maps, (radius, radius, radius, radius))
    across = sum((k * wide[..., i : i + width] for i, k in enumerate(kernel)), wide.new_zeros(()))
    both = sum((k * across[..., i : i + height, :] for i, k in enumerate(kernel)),
               wide.new_zeros(()))  # fmt: skip
    return both / sum(kernel) ** 2
