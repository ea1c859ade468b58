"""Whether answers follow one line, or some of them another: numbers in other units, of other rows.

Answers scatter about what a learner says of them, some widely. Scatter is added to what is said:
the line is the same. Wrong answers are not: those of other rows do not follow at all, turned signs
follow backwards, other units follow with a slope of their own.

Shapes: n rows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

STILL = 0.1
"""Rise of the log-likelihood at a step below which it stands."""
FIRST = 5
"""Steps from each start, of which the best is gone on with (Biernacki and others 2003)."""
STEPS, STARTS = 50, (0.0, -1.0, 3.0, 10.0, 60.0)
"""Steps of the fit, and slopes that the other line may begin with."""
LEAST = 80
SHARE = 0.04, 0.45
"""Share of the rows that follow the other line."""
KNOWN = 0.5
"""Share of the variance within the first line that what is said must explain."""
OTHER = 0.6
"""Slope, of that of the first line, up to which the other is another one."""
STEEP, TIGHT = 2.2, 0.7
"""From which on it is, where it is followed as nearly: deviation about it over its own spread.
Scatter in proportion comes near, and beyond where it is wide: such a line is only asked about."""
ONE = 0.1
"""Deviation about the other line, of that about the first, below which it is one number."""


@dataclass(frozen=True)
class TwoLines:
    """How answers follow what is said of them.

    share  of the rows that follow another line
    slope  of the other line over that of the first
    gain   twice the log-likelihood over one line with narrow and wide scatter
    one    whether the other line is hardly more than one number
    """

    share: float
    slope: float
    gain: float
    one: bool

    def alike(self, other: TwoLines) -> bool:
        """Whether two fits tell the same of some answers."""
        return (self.slope < 1) == (other.slope < 1)


def two_lines(said_n: Tensor, given_n: Tensor) -> TwoLines | None:
    """Return the second line that answers follow; None where there is none, or no first one.

    y ~ (1-p) N(a₁ + b₁ f, s₁²) + p N(a₂ + b₂ f, s₂²) by expectation and maximisation, beside the
    same with a₂ = a₁ and b₂ = b₁.
    """
    f, y = (v.detach().cpu().double().reshape(-1).numpy() for v in (said_n, given_n))
    if len(f) < LEAST or f.std() < 1e-9 or y.std() < 1e-9:
        return None
    f, y = (f - np.median(f)) / f.std(), y - np.median(y)
    y = y / (_mad(y / y.std()) * y.std())  # by what most do: few may be far away
    own = _fitted(f, y, start=None)
    first = max(STARTS, key=lambda c: _fitted(f, y, start=c, steps=FIRST)[0])
    best = _fitted(f, y, start=first)
    if not math.isfinite(own[0]) or not math.isfinite(best[0]):
        return None
    gain = 2 * (best[0] - own[0])
    p, (_, b1, s1), (_, b2, s2), r = best[1:]
    core = r < 0.5
    rest = int((~core).sum())
    if not SHARE[0] <= p <= SHARE[1] or rest < 8 or b1 <= 0 or s2 < 0.2 * s1:
        constant = SHARE[0] <= p <= SHARE[1] and s2 < 0.2 * s1
        if not constant or b1 <= 0:
            return None
    spread = float(f[core].std()) if rest < len(f) else 0.0
    known = (b1 * spread) ** 2 / ((b1 * spread) ** 2 + s1**2)
    slope = b2 / b1
    other = abs(b2) * float(f[~core].std()) if rest > 2 else 0.0
    away = slope <= OTHER or (slope >= STEEP and s2 <= TIGHT * other)
    if known < KNOWN or not away or gain <= 0:
        return None
    return TwoLines(p, slope, gain, one=s2 < ONE * max(s1, 1e-9) and abs(slope) < 1)


Array: TypeAlias = NDArray[np.float64]
Line = tuple[float, float, float]


def _fitted(
    f: Array, y: Array, *, start: float | None, steps: int = STEPS
) -> tuple[float, float, Line, Line, Array]:
    """Return log-likelihood, share of the other line, both lines, and whose rows are: (n,).

    start  slope of the other line to begin with; None: it has the first line's
    """
    a1, b1 = _line(f, y, np.ones_like(f))
    for _ in range(4):  # a first line that does not heed what is far
        w = 1 / (1 + ((y - a1 - b1 * f) / _mad(y - a1 - b1 * f)) ** 2)
        a1, b1 = _line(f, y, w)
    s1 = _mad(y - a1 - b1 * f)
    a2, b2, s2, p = a1, b1, 4 * s1, 0.15
    if start is not None:
        b2 = start * b1
        far = np.abs(y - a1 - b1 * f) > 2 * s1
        a2 = float(np.median((y - b2 * f)[far])) if far.any() else a1
        s2 = max(_mad((y - a2 - b2 * f)[far]) if int(far.sum()) > 4 else 2 * s1, 0.3 * s1)
    total, r = -math.inf, np.zeros_like(f)
    for _ in range(steps):
        one, two = (math.log1p(-p) + _normal(y - a1 - b1 * f, s1),
                    math.log(p) + _normal(y - a2 - b2 * f, s2))  # fmt: skip
        both = np.logaddexp(one, two)
        before, total = total, float(both.sum())
        r = np.exp(two - both)
        if total - before < STILL:
            break
        p = min(max(float(r.mean()), 1e-3), 0.6)
        if start is None:
            w = (1 - r) / s1**2 + r / s2**2
            a1, b1 = _line(f, y, w)
            a2, b2 = a1, b1
        else:
            (a1, b1), (a2, b2) = _line(f, y, 1 - r), _line(f, y, r)
        s1, s2 = _spread(y - a1 - b1 * f, 1 - r), _spread(y - a2 - b2 * f, r)
    return total, p, (a1, b1, s1), (a2, b2, s2), r


def _line(f: Array, y: Array, w: Array) -> tuple[float, float]:
    total = max(float(w.sum()), 1e-9)
    f0, y0 = float(w @ f) / total, float(w @ y) / total
    from_mean = f - f0
    slope = float(w @ (from_mean * (y - y0))) / max(float(w @ np.square(from_mean)), 1e-9)
    return y0 - slope * f0, slope


def _spread(off: Array, w: Array) -> float:
    return max(math.sqrt(float(w @ np.square(off)) / max(float(w.sum()), 1e-9)), 1e-3)


def _mad(off: Array) -> float:
    return max(1.4826 * float(np.median(np.abs(off - np.median(off)))), 1e-3)


def _normal(off: Array, s: float) -> Array:
    found: Array = -0.5 * np.square(off / s) - math.log(s)
    return found
