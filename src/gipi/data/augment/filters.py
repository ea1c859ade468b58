"""Steps on values that are no matrix: blur, noise, sharpness, and tables of grey levels.

A filter acts on the samples that its draw chooses, as values v in [0, 1]; the others are not read.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import torch
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from gipi.data.augment.geometry import Draw

_TABLE = 1 << 20  # random numbers of the noise table
LEVELS = 256


@dataclass(frozen=True)
class Filter:
    """One filter: `apply(values, draw)` changes values (n, C, H, W) of the chosen samples.

    chosen   draw -> (B,) bool; None: all samples
    bounded  True where values must have the range [0, 1]: the step counts grey levels
    """

    name: str
    apply: Callable[[Tensor, Draw], Tensor]
    chosen: Callable[[Draw], Tensor] | None = None
    bounded: bool = False


def _with(p: float) -> Callable[[Draw], Tensor] | None:
    """Return the choice of samples with probability p; draw number 9 is kept for it."""
    return None if p >= 1 else lambda draw: draw(9) < p


def blur(*, sigma: float = 1.0, p: float = 0.5) -> Filter:
    """Blur by a Gaussian, its spread in pixels uniform in 0.1..sigma, with probability p."""
    radius = max(1, math.ceil(2.5 * sigma))

    def apply(values: Tensor, draw: Draw) -> Tensor:
        spread = 0.1 + draw(0) * max(sigma - 0.1, 0.0)
        at = torch.arange(-radius, radius + 1, device=values.device, dtype=torch.float64)
        weights = torch.exp(-0.5 * (at / spread[:, None]) ** 2)
        weights = (weights / weights.sum(1, keepdim=True)).float()
        return _along(_along(values, weights, 3), weights, 2)

    return Filter("blur", apply, _with(p))


def _along(values: Tensor, weights: Tensor, dim: int) -> Tensor:
    """Return values weighted (n, taps) along one side, mirrored at the edge: a depthwise filter."""
    n, c, h, w = values.shape
    size, taps = values.shape[dim], weights.shape[1]
    at = torch.arange(-(taps // 2), size + taps // 2, device=values.device)
    period = max(2 * size - 2, 1)
    at = at.remainder(period)
    wide = values.index_select(dim, torch.where(at < size, at, period - at))
    kernel = weights.repeat_interleave(c, 0).view(n * c, 1, *((taps, 1) if dim == 2 else (1, taps)))
    flat = wide.reshape(1, n * c, *wide.shape[2:])
    return functional.conv2d(flat, kernel, groups=n * c).view(n, c, h, w)


def noise(*, strength: float = 0.05, p: float = 0.5) -> Filter:
    """Add Gaussian noise with a spread uniform in 0..strength, with probability p.

    The numbers are runs of one table of 2^20, from a place and with a sign drawn for each sample.
    """

    def apply(values: Tensor, draw: Draw) -> Tensor:
        run = values[0].numel()
        table = _noise_table(-(-run // _TABLE) + 1, values.device)
        first = torch.floor(draw(0) * _TABLE).long()
        rows = table.as_strided((len(table) - run + 1, run), (1, 1)).index_select(0, first)
        sign = torch.where(draw(1) < 0.5, -1.0, 1.0)
        spread = (sign * draw(2) * strength).float()
        rows *= spread[:, None]
        return values + rows.view(len(values), *values.shape[1:])

    return Filter("noise", apply, _with(p))


@cache
def _noise_table(repeats: int, device: torch.device) -> Tensor:
    """Return 2^20 normal numbers, repeated; made on the host, so that devices agree."""
    table = torch.randn(_TABLE, generator=torch.Generator().manual_seed(_TABLE))
    return table.repeat(repeats).to(device)


def sharper(values: Tensor, factor: Tensor) -> Tensor:
    """Return s + f (v - s) with s smoothed by [1 1 1; 1 5 1; 1 1 1] / 13, the edge as it was."""
    h, w = values.shape[2:]
    if min(h, w) < 3:
        return values
    inner = values[..., 1:-1, 1:-1]
    smooth = inner * 4.0
    for y in range(3):
        for x in range(3):
            smooth += values[..., y : y + h - 2, x : x + w - 2]
    smooth /= 13
    out = values.clone()
    out[..., 1:-1, 1:-1] = smooth + factor.float().view(-1, 1, 1, 1) * (inner - smooth)
    return out


def sharpness(*, strength: float = 0.5, p: float = 0.5) -> Filter:
    """Sharpen or soften by a factor uniform in 1 - strength .. 1 + strength."""
    return Filter("sharpness", lambda v, d: sharper(v, 1 + (d(0) * 2 - 1) * strength), _with(p))


def levels(values: Tensor) -> Tensor:
    """Return values in [0, 1] as whole grey levels 0..255, float32."""
    return (values.clamp(0, 1) * (LEVELS - 1)).round()


def fewer_levels(values: Tensor, bits: Tensor) -> Tensor:
    """Return values with only the upper `bits` (n,) of their eight bits."""
    step = (2.0 ** (8 - bits)).to(values.dtype).view(-1, 1, 1, 1)
    return torch.floor(levels(values) / step) * step / (LEVELS - 1)


def posterize(*, bits: int = 4, p: float = 0.5) -> Filter:
    """Keep the upper bits of each value, their number uniform in bits..8, with probability p."""

    def apply(values: Tensor, draw: Draw) -> Tensor:
        return fewer_levels(values, bits + torch.floor(draw(0) * (9 - bits)))

    return Filter("posterize", apply, _with(p), bounded=True)


def inverted_above(values: Tensor, limit: Tensor) -> Tensor:
    """Return 1 - v where v is at least `limit` (n,), else v."""
    at = limit.to(values.dtype).view(-1, 1, 1, 1)
    return torch.where(values >= at, 1 - values, values)


def solarize(*, p: float = 0.2) -> Filter:
    """Invert values above a level uniform in 0.5..1, with probability p."""
    return Filter(
        "solarize", lambda v, d: inverted_above(v, 0.5 + d(0) / 2), _with(p), bounded=True
    )


def invert(*, p: float = 0.1) -> Filter:
    """Make a negative, v' = 1 - v, with probability p."""
    return Filter("invert", lambda v, _: 1 - v, _with(p), bounded=True)


def stretch_range(values: Tensor) -> Tensor:
    """Return every channel stretched so that its darkest value is 0 and its lightest 1."""
    low, high = values.amin((2, 3), keepdim=True), values.amax((2, 3), keepdim=True)
    span = high - low
    flat = span < 1 / LEVELS
    return torch.where(flat, values, (values - low) / torch.where(flat, 1.0, span))


def autocontrast(*, p: float = 0.2) -> Filter:
    """Stretch every channel to the whole range, with probability p."""
    return Filter("autocontrast", lambda v, _: stretch_range(v), _with(p), bounded=True)


def even_levels(values: Tensor) -> Tensor:
    """Return every channel with its grey levels spread evenly, by the histogram (256 levels).

    The table is PIL's: with step = (pixels - those of the highest level) // 255, level k becomes
    (pixels below k + step // 2) // step; a channel whose step is 0 stays as it is.
    """
    n, c, h, w = values.shape
    index = levels(values).long().reshape(n * c, h * w)
    counts = torch.zeros(n * c, LEVELS, dtype=torch.int64, device=values.device)
    counts.scatter_add_(1, index, torch.ones_like(index))
    highest = counts.gather(1, index.amax(1, keepdim=True))
    step = (h * w - highest) // (LEVELS - 1)
    below = counts.cumsum(1) - counts
    table = ((below + step // 2) // step.clamp_min(1)).clamp(0, LEVELS - 1)
    same = torch.arange(LEVELS, device=values.device).expand_as(table)
    table = torch.where(step == 0, same, table)
    return (table.gather(1, index).float() / (LEVELS - 1)).view(n, c, h, w)


def equalize(*, p: float = 0.2) -> Filter:
    """Spread the grey levels of every channel evenly, with probability p."""
    return Filter("equalize", lambda v, _: even_levels(v), _with(p), bounded=True)


def apply_filter(
    step: Filter, images: Tensor, draw: Draw, *, mean: Tensor, std: Tensor, clip: bool
) -> Tensor:
    """Return normalised images (n, C, H, W) after one filter, all rows chosen."""
    m, s = mean.view(-1, 1, 1), std.view(-1, 1, 1)
    values = images.float() * s + m
    if clip:
        values = values.clamp_(0, 1)
    out = step.apply(values, draw)
    if clip:
        out = out.clamp(0, 1)
    return ((out - m) / s).to(images.dtype)
