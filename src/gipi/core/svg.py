"""Charts as SVG text: scales, ticks, marks. Colours are CSS variables, so both themes work.

A chart is drawn for a width in CSS pixels (text keeps its size); the page shows the one that fits.
Nothing is smoothed: a non-finite value breaks its line and leaves a cross at the top.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

FONT = 11
CHAR = 6.0
"""Mean width of a character at `FONT`, for margins."""

MOST_POINTS = 360


@dataclass(frozen=True)
class Line:
    """One series: `x` ascending, `y` with non-finite values where there was nothing finite.

    colour  number of the palette's colour, 1..6; 0 is the pale colour of a background
    dots    also draw a dot at each point (few, measured points such as evaluations)
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]
    colour: int = 1
    dots: bool = False
    dashed: bool = False


@dataclass(frozen=True)
class Mark:
    """A vertical line at `x` with a short label, e.g. the best epoch."""

    x: float
    label: str


@dataclass(frozen=True)
class Axes:
    """The drawing area and its scales: data to CSS pixels."""

    width: int
    height: int
    left: float
    right: float
    top: float
    bottom: float
    x_range: tuple[float, float]
    y_range: tuple[float, float]
    log: bool = False
    log_x: bool = False
    parts: list[str] = field(default_factory=list)

    def x(self, value: float) -> float:
        """Return the horizontal position of `value`."""
        low, high = self.x_range
        if self.log_x:
            value, low, high = (math.log10(max(v, 1e-300)) for v in (value, low, high))
        return self.left + (value - low) / (high - low) * (self.width - self.left - self.right)

    def y(self, value: float) -> float:
        """Return the vertical position of `value`, kept within the axes."""
        low, high = self.y_range
        if self.log:
            value, low, high = (math.log10(max(v, 1e-300)) for v in (value, low, high))
        share = min(max((value - low) / (high - low), 0.0), 1.0)
        return self.height - self.bottom - share * (self.height - self.top - self.bottom)


def text(value: object) -> str:
    """Return any value as escaped text: markup in names stays text."""
    return escape(str(value), quote=True)


def number(value: float, digits: int = 3) -> str:
    """Return a number as people read it: 0.0123, 12.3, 4,560, 1.2M, 3e-5.

    >>> [number(v) for v in (0.012345, 12.345, 4560, 1234567, 0.00003, 0, float("nan"))]
    ['0.0123', '12.3', '4,560', '1.23M', '3e-5', '0', 'nan']
    """
    if not math.isfinite(value):
        return str(float(value))
    size = abs(value)
    if size == 0:
        return "0"
    if size < 1e-3 or size >= 1e15:
        mantissa, _, exponent = f"{value:.{digits - 1}e}".partition("e")
        return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"
    for limit, name in ((1e12, "T"), (1e9, "G"), (1e6, "M")):
        if size >= limit:
            return f"{value / limit:.{digits}g}{name}"
    if size >= 100:
        return f"{value:,.0f}"
    return f"{value:.{digits}g}"


def ticks(low: float, high: float, *, most: int = 6) -> list[float]:
    """Return at most about `most` round numbers within [low, high].

    >>> ticks(0, 1), ticks(3, 97, most=4)
    ([0.0, 0.2, 0.4, 0.6, 0.8, 1.0], [25.0, 50.0, 75.0])
    """
    span = high - low
    if not span > 0 or not math.isfinite(span):
        return [low]
    rough = span / max(most, 1)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * m for m in (1, 2, 2.5, 5, 10) if power * m >= rough * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def log_ticks(low: float, high: float, *, most: int = 6) -> list[float]:
    """Return powers of ten within [low, high], with 2 and 5 where there are few decades."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    stride = max(1, math.ceil((last - first) / most))
    found = [10.0**e for e in range(first, last + 1, stride)]
    if high / low <= 100:
        found = [m * 10.0**e for e in range(first - 1, last + 1) for m in (1, 2, 5)]
    return [v for v in found if low * (1 - 1e-9) <= v <= high * (1 + 1e-9)]


def thinned(x: Sequence[float], y: Sequence[float]) -> tuple[list[float], list[float]]:
    """Keep at most about `MOST_POINTS` points: of each stretch its least and its greatest."""
    if len(x) <= MOST_POINTS:
        return list(x), list(y)
    size = math.ceil(len(x) / (MOST_POINTS / 2))
    keep: list[int] = []
    for start in range(0, len(x), size):
        part = range(start, min(start + size, len(x)))
        odd = [i for i in part if not math.isfinite(y[i])]
        fine = [i for i in part if math.isfinite(y[i])]
        chosen = {min(fine, key=lambda i: y[i]), max(fine, key=lambda i: y[i])} if fine else set()
        keep += sorted(chosen | set(odd[:1]))
    keep = sorted({0, *keep, len(x) - 1})
    return [x[i] for i in keep], [y[i] for i in keep]


def open_axes(
    width: int,
    height: int,
    *,
    x_range: tuple[float, float],
    y_range: tuple[float, float],
    x_label: str = "",
    log: bool = False,
    log_x: bool = False,
    percent: bool = False,
    x_ticks: bool = True,
    title: str = "",
) -> Axes:
    """Return axes with grid, tick labels, title and the label of the horizontal axis drawn."""
    y_range = _widened(y_range, log=log)
    x_range = x_range if x_range[1] > x_range[0] else (x_range[0] - 0.5, x_range[0] + 0.5)
    marks = log_ticks(*y_range) if log else ticks(*y_range, most=max(3, height // 38))
    names = [f"{v * 100:.4g} %" if percent else number(v) for v in marks]
    left = 12 + CHAR * max((len(n) for n in names), default=1)
    bottom = 36.0 if x_label else 22.0
    top = 30 if title else 18
    axes = Axes(width, height, left, 14, top, bottom, x_range, y_range, log, log_x)
    if title:
        axes.parts.append(f'<text class="title" x="{left:.1f}" y="14">{text(title)}</text>')
    floor = height - bottom
    for value, name in zip(marks, names, strict=True):
        y = axes.y(value)
        axes.parts.append(
            f'<line class="grid" x1="{left:.1f}" x2="{width - 14}" y1="{y:.1f}" y2="{y:.1f}"/>'
            f'<text class="tick" x="{left - 6:.1f}" y="{y + 3.5:.1f}" text-anchor="end">'
            f"{name}</text>"
        )
    if x_ticks:
        most = max(3, width // 80)
        for value in (log_ticks if log_x else ticks)(*x_range, most=most):
            axes.parts.append(
                f'<text class="tick" x="{axes.x(value):.1f}" y="{floor + 15:.1f}" '
                f'text-anchor="middle">{number(value)}</text>'
            )
    if x_label:
        axes.parts.append(
            f'<text class="axis" x="{(left + width - 14) / 2:.1f}" y="{height - 5}" '
            f'text-anchor="middle">{text(x_label)}</text>'
        )
    return axes


def _widened(y_range: tuple[float, float], *, log: bool) -> tuple[float, float]:
    low, high = y_range
    if not (math.isfinite(low) and math.isfinite(high)):
        return 0.0, 1.0
    if log:
        low = max(low, 1e-300)
        return (low / 1.3, max(high, low) * 1.3)
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def close(axes: Axes, label: str) -> str:
    """Return the finished SVG; `label` is what a screen reader says."""
    return (
        f'<svg viewBox="0 0 {axes.width} {axes.height}" width="{axes.width}" '
        f'height="{axes.height}" role="img" aria-label="{text(label)}">{"".join(axes.parts)}</svg>'
    )


def line_chart(
    series: Sequence[Line],
    *,
    width: int,
    height: int,
    x_label: str,
    label: str,
    log: bool = False,
    log_x: bool = False,
    percent: bool = False,
    from_zero: bool = False,
    marks: Sequence[Mark] = (),
    band: tuple[float, float] | None = None,
    title: str = "",
    y_range: tuple[float, float] | None = None,
) -> str:
    """Return a chart of lines over a common axis.

    log        logarithmic vertical axis (values of 0 or less sit at its foot)
    log_x      logarithmic horizontal axis; all x positive
    band       (low, high) shaded as the usual range
    title      inside the drawing, for a chart among others
    y_range    of the vertical axis, as it is; values beyond it lie on its edge
    """
    values = [v for s in series for v in s.y if math.isfinite(v) and (v > 0 or not log)]
    xs = [v for s in series for v in s.x]
    low, high = (min(values), max(values)) if values else (0.1 if log else 0.0, 1.0)
    if from_zero and not log:
        low = min(low, 0.0)
    if not log and high > low:
        margin = (high - low) * 0.04
        low = low if from_zero and low == 0 else low - margin
        high = high + margin
        if percent:
            low, high = max(low, 0.0), high if max(values) > 1 else min(high, 1.0)
    axes = open_axes(
        width, height, x_range=(min(xs, default=0), max(xs, default=1)),
        y_range=y_range or (low, high), x_label=x_label, log=log, log_x=log_x, percent=percent,
        title=title,
    )  # fmt: skip
    floor = height - axes.bottom
    if band is not None:
        top, foot = axes.y(band[1]), axes.y(band[0])
        if foot - top > 1:
            axes.parts.append(
                f'<rect class="band" x="{axes.left:.1f}" y="{top:.1f}" '
                f'width="{width - axes.left - axes.right:.1f}" height="{foot - top:.1f}"/>'
            )
    for mark in marks:
        x = axes.x(mark.x)
        anchor = "end" if x > width * 0.7 else "start"
        shift = -4 if anchor == "end" else 4
        axes.parts.append(
            f'<line class="mark" x1="{x:.1f}" x2="{x:.1f}" y1="{axes.top - 6}" y2="{floor:.1f}"/>'
            f'<text class="marked" x="{x + shift:.1f}" y="{axes.top - 6 + 5:.1f}" '
            f'text-anchor="{anchor}">{text(mark.label)}</text>'
        )
    for one in series:
        _draw_line(axes, one, percent=percent)
    return close(axes, label)


def _draw_line(axes: Axes, line: Line, *, percent: bool) -> None:
    x, y = thinned(line.x, line.y)
    path, pen_up = [], True
    alone: list[int] = []
    for i, (a, b) in enumerate(zip(x, y, strict=True)):
        if not math.isfinite(b):
            pen_up = True
            at = axes.x(a)
            axes.parts.append(
                f'<path class="lost" d="M{at - 3:.1f} {axes.top - 3}l6 6m0 -6l-6 6">'
                f"<title>{text(line.name)}: {number(b)} at {number(a)}</title></path>"
            )
            continue
        path.append(f"{'M' if pen_up else 'L'}{axes.x(a):.1f} {axes.y(b):.1f}")
        ends = i + 1 == len(y) or not math.isfinite(y[i + 1])
        if pen_up and ends:
            alone.append(i)
        pen_up = False
    dash = ' stroke-dasharray="5 3"' if line.dashed else ""
    if path:
        axes.parts.append(f'<path class="line c{line.colour}"{dash} d="{"".join(path)}"/>')
    if line.dots and len(x) <= 80:
        alone = [i for i in range(len(x)) if math.isfinite(y[i])]
    for i in alone:
        said = f"{y[i] * 100:.4g} %" if percent else number(y[i], 4)
        axes.parts.append(
            f'<circle class="dot c{line.colour}" cx="{axes.x(x[i]):.1f}" '
            f'cy="{axes.y(y[i]):.1f}" r="2.6">'
            f"<title>{text(line.name)} {said} at {number(x[i])}</title></circle>"
        )
