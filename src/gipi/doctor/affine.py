"""How validation inputs are brought in line with training inputs: a factor and a shift."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from gipi.doctor.drift import EVERY, Stats, both_columns, mismatch, stats
from gipi.doctor.sheet import origin

if TYPE_CHECKING:
    from torch import Tensor

    from gipi.doctor.facts import Facts

COMMON = 4
"""Columns from which on one factor and shift may be told for all of them."""
BY_CHANCE, MOST_COLUMNS = 5.0, 0.9
"""Standard errors of a column's mean, or spread, within which this share of them must lie."""
OFTEN = 0.01
"""Share of a column's numbers that lie at an end of its range by which they come back to it."""


def _one_for_all(s: Stats, fits: Tensor) -> tuple[float, float] | None:
    """Return the factor and shift that bring every column in line, by chance alone; or None."""
    if int(fits.sum()) < COMMON:
        return None
    mean, std, val_mean, val_std = (t[fits].double() for t in _moments(s))
    factor = float((std.square().mean() / val_std.square().mean()).sqrt())
    weight = 1 / std.square().clamp_min(1e-6 * float(std.square().max()))
    shift = float(((mean - factor * val_mean) * weight).sum() / weight.sum())
    return (factor, shift) if _explains(s, fits, factor, shift) else None


def _explains(s: Stats, fits: Tensor, factor: Any, shift: Any) -> bool:
    """Whether one factor and shift leave means and spreads apart by chance, of most columns."""
    mean, std, val_mean, val_std = (t[fits].double() for t in _moments(s))
    off = (mean - factor * val_mean - shift).abs() / (std / s.rows**0.5)
    wide = (factor * val_std / std).log().abs()
    share = torch.cat([off < BY_CHANCE, wide < BY_CHANCE / s.rows**0.5]).double().mean()
    return float(share) > MOST_COLUMNS


def _moments(s: Stats) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return s.mean, s.std, s.val_mean, s.val_std


def affine_to_training(facts: Facts, *, negative: bool = False) -> Any:
    """Return the function that brings validation inputs to training's means and spreads.

    One factor and shift for all columns where they explain all: a column of its own few rows, or
    of hardly any spread, would be bent otherwise.

    negative  whether light and dark are exchanged: the factor is below zero
    """
    s, X = stats(facts), origin(facts).X
    assert s is not None
    assert X is not None
    if negative:
        s = replace(s, val_mean=-s.val_mean)
    fits = (s.val_std > 0) & (s.std > 0)
    factor = torch.where(fits, s.std / s.val_std.clamp_min(1e-300), torch.ones_like(s.std))
    shift = s.mean - s.val_mean * factor
    found = mismatch(facts)
    # Where a column alone is named, what holds for the others must not overrule it.
    one = _one_for_all(s, fits) if found is None or found[0].startswith(EVERY) else None
    if one is not None:
        factor, shift = (torch.full_like(s.mean, v) for v in one)
    factor, shift = _by_ends(facts, s, (factor, shift), one=one is not None, negative=negative)
    if negative:
        factor = -factor
    second = X.ndim == 4 or (X.ndim == 3 and len(factor) == X.shape[1] and X.shape[1] != X.shape[2])
    shape = [1] * X.ndim
    shape[1 if second else -1] = -1
    factor, shift = factor.view(shape), shift.view(shape)
    return lambda x: x * factor.to(x.device, x.dtype) + shift.to(x.device, x.dtype)


def _by_ends(
    facts: Facts, s: Stats, by_mean: tuple[Tensor, Tensor], *, one: bool, negative: bool
) -> tuple[Tensor, Tensor]:
    """Return factor and shift by the ends of a range, where columns keep coming back to them.

    Means and spreads of two samples differ by chance. Black and white do not: brought in line by
    their means they would lie beside those of training, and pixels that are always black would tell
    one split from the other. Where the ends do not agree with the means but for chance, those hold.
    """
    both = both_columns(origin(facts))
    assert both is not None
    a, b = both[0], -both[1] if negative else both[1]
    factor, shift = by_mean
    if one:
        a, b = a.reshape(-1, 1), b.reshape(-1, 1)
    low, high, there, beyond = a.amin(0), a.amax(0), b.amin(0), b.amax(0)
    lows, highs = (
        ((a == end).double().mean(0) >= OFTEN) & ((b == other).double().mean(0) >= OFTEN)
        for end, other in ((low, there), (high, beyond))
    )
    wide = lows & highs & (beyond > there) & (high > low)
    made = torch.where(wide, (high - low) / (beyond - there).clamp_min(1e-300), factor)
    begin = torch.where(lows, low - made * there, torch.where(highs, high - made * beyond, shift))
    if one:
        kept = _explains(s, (s.val_std > 0) & (s.std > 0), made[0], begin[0])
        return (made[:1].expand_as(s.mean), begin[:1].expand_as(s.mean)) if kept else by_mean
    chance = BY_CHANCE / s.rows**0.5
    agree = ((made * s.val_mean + begin - s.mean).abs() <= chance * s.std) & (
        (made * s.val_std / s.std.clamp_min(1e-300)).log().abs() <= chance
    )
    return torch.where(agree, made, factor), torch.where(agree, begin, shift)
