"""Charts that only the lab draws: maps of layers, stacked histograms, surfaces with paths."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from gipi.core.svg import CHAR, Axes, close, number, open_axes, text

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

SMALL, LARGE = (262, 168), (350, 240)
"""Sizes of panels: of one among many, of one among few. Both fit a phone."""

EDGES = (-6.0, -3.0, -1.5, -0.5, 0.5, 1.5, 3.0, 6.0)
"""log10 of a ratio -> nine shades; the middle one is "kept within a factor of three"."""

SHADES = (
    "below 1e-6", "1e-6 to 0.001", "0.001 to 0.03", "0.03 to 0.3", "kept: 0.3 to 3", "3 to 30",
    "30 to 1000", "1000 to 1e6", "above 1e6",
)  # fmt: skip


def shade(value: float) -> int:
    """Return the shade 0..8 of a ratio: 0 for nothing at all, 8 for what is not finite.

    >>> [shade(v) for v in (0.0, 1e-7, 0.1, 1.0, 2.0, 10.0, float("inf"))]
    [0, 0, 3, 4, 4, 5, 8]
    """
    if not math.isfinite(value):
        return 8
    if value <= 0:
        return 0
    return sum(math.log10(value) > edge for edge in EDGES)


def _fill(level: int) -> str:
    """Return the look of a shade: pale in the middle, one colour for less, one for more."""
    if level == 4:
        return "fill:var(--faint)"
    colour = "var(--c1)" if level < 4 else "var(--miss)"
    return f"fill:{colour};fill-opacity:{(0.25, 0.45, 0.7, 1.0)[abs(level - 4) - 1]}"


def layer_map(
    rows: Sequence[tuple[str, Sequence[float]]],
    *,
    title: str,
    size: tuple[int, int],
    said: int = -1,
) -> str:
    """Return one strip a row, one cell a layer, shaded by the ratio; at the right one value.

    rows  (name, ratio of each layer)
    said  the layer whose value stands at the right: -1 the last, 0 the first
    """
    width, height = size
    left = 8 + CHAR * max((len(name) for name, _ in rows), default=1)
    right, top, bottom = 52.0, 22.0, 16.0
    axes = Axes(width, height, left, right, top, bottom, (0, 1), (0, 1))
    out = axes.parts
    out.append(f'<text class="title" x="{left:.1f}" y="13">{text(title)}</text>')
    step = (height - top - bottom) / max(len(rows), 1)
    layers = max((len(values) for _, values in rows), default=1)
    cell = (width - left - right) / layers
    boxes: dict[int, list[str]] = {}
    for i, (name, values) in enumerate(rows):
        y = top + i * step
        shown = number(values[said], 2) if math.isfinite(values[said]) else "∞"
        out.append(
            f'<text class="tick" x="{left - 5:.1f}" y="{y + step / 2 + 3.5:.1f}" '
            f'text-anchor="end">{text(name)}</text><text class="tick" '
            f'x="{width - right + 5:.1f}" y="{y + step / 2 + 3.5:.1f}">{shown}</text>'
        )
        for j, value in enumerate(values):
            w, h = cell - 0.8, step - 2
            boxes.setdefault(shade(value), []).append(
                f"M{left + j * cell:.1f} {y + 1:.1f}h{w:.1f}v{h:.1f}h-{w:.1f}z"
            )
    for level, shapes in sorted(boxes.items()):
        out.append(f'<path style="{_fill(level)}" d="{"".join(shapes)}"/>')
    foot = height - 4
    out.append(
        f'<text class="tick" x="{left:.1f}" y="{foot}">layer 1</text><text class="tick" '
        f'x="{width - right:.1f}" y="{foot}" text-anchor="end">{layers}</text>'
    )
    return close(axes, title)


def shade_key(size: tuple[int, int], title: str) -> str:
    """Return a panel that explains the shades of `layer_map`."""
    width, height = size
    axes = Axes(width, height, 0, 0, 0, 0, (0, 1), (0, 1))
    axes.parts.append(f'<text class="title" x="12" y="13">{text(title)}</text>')
    step = (height - 26) / len(SHADES)
    for level, said in enumerate(SHADES):
        y = 24 + level * step
        axes.parts.append(
            f'<rect style="{_fill(level)}" x="12" y="{y:.1f}" width="26" height="{step - 3:.1f}"/>'
            f'<text class="tick" x="46" y="{y + step / 2 + 2.5:.1f}">{said}</text>'
        )
    return close(axes, title)


def ridges(
    rows: Sequence[tuple[str, Sequence[float]]],
    *,
    span: tuple[float, float],
    title: str,
    size: tuple[int, int],
) -> str:
    """Return histograms one above the other, each as high as its own fullest bin.

    Where one bin holds far more than any other (ReLU's zeros) it is cut, so that the others show.

    rows  (name, counts over equal bins of `span`)
    """
    width, height = size
    axes = open_axes(width, height, x_range=span, y_range=(0.0, 1.0), title=title)
    axes.parts.clear()
    left = 10 + CHAR * max(len(name) for name, _ in rows)
    axes = Axes(width, height, left, 12, 24, 22, span, (0.0, 1.0))
    axes.parts.append(f'<text class="title" x="{left:.1f}" y="14">{text(title)}</text>')
    floor = height - axes.bottom
    step = (floor - axes.top) / len(rows)
    for value in (span[0], 0.0, span[1]) if span[0] < 0 < span[1] else span:
        axes.parts.append(
            f'<line class="grid" x1="{axes.x(value):.1f}" x2="{axes.x(value):.1f}" '
            f'y1="{axes.top}" y2="{floor:.1f}"/><text class="tick" x="{axes.x(value):.1f}" '
            f'y="{floor + 15:.1f}" text-anchor="middle">{number(value, 2)}</text>'
        )
    for i, (name, counts) in enumerate(rows):
        base = axes.top + (i + 1) * step
        most = _height(counts)
        w = (axes.x(span[1]) - left) / max(len(counts), 1)
        line = "".join(
            f"L{left + j * w:.1f} {base - min(c / most, 1.0) * step * 0.86:.1f}h{w:.1f}"
            for j, c in enumerate(counts)
        )
        end = left + w * len(counts)
        axes.parts.append(
            f'<path class="bar" d="M{left:.1f} {base:.1f}{line}L{end:.1f} {base:.1f}z"/>'
            f'<line class="grid" x1="{left:.1f}" x2="{end:.1f}" y1="{base:.1f}" y2="{base:.1f}"/>'
            f'<text class="tick" x="{left - 5:.1f}" y="{base - 3:.1f}" text-anchor="end">'
            f"{text(name)}</text>"
        )
    return close(axes, title)


def _height(counts: Sequence[float]) -> float:
    """Return the count that fills a row of `ridges`."""
    *_, second, most = sorted([0.0, 0.0, *counts])
    return (second * 1.3 if most > 4 * second > 0 else most) or 1.0


def surface(
    height_of: Callable[[float, float], float],
    *,
    span: tuple[float, float, float, float],
    levels: Sequence[float],
    paths: Sequence[tuple[int, Sequence[tuple[float, float]]]],
    stars: Sequence[tuple[float, float]],
    title: str,
    size: tuple[int, int],
) -> str:
    """Return the contour lines of a function of two variables with paths of descent on it.

    span    (least x, greatest x, least y, greatest y)
    paths   (colour, points); the start is a ring, the end a dot
    stars   the global minima
    """
    width, height = size
    axes = Axes(width, height, 8, 8, 24, 8, (span[0], span[1]), (span[2], span[3]))
    out = axes.parts
    out.append(f'<text class="title" x="8" y="14">{text(title)}</text>')
    lines = contours(height_of, span=span, levels=levels)
    shapes = "".join(
        f"M{axes.x(a):.1f} {axes.y(b):.1f}l{axes.x(c) - axes.x(a):.1f} {axes.y(d) - axes.y(b):.1f}"
        for a, b, c, d in lines
    )
    out.append(f'<path class="contour" d="{shapes}"/>')
    for x, y in stars:
        out.append(f'<path class="star" d="{_star(axes.x(x), axes.y(y))}"/>')
    for colour, points in paths:
        inside = [p for p in points if all(map(math.isfinite, p))]
        shown = inside[: _leaves(inside, span)]
        if not shown:
            continue
        path = "".join(
            f"{'L' if i else 'M'}{axes.x(x):.1f} {axes.y(y):.1f}" for i, (x, y) in enumerate(shown)
        )
        x, y = shown[0]
        out.append(
            f'<path class="line c{colour}" d="{path}"/><circle class="ring c{colour}" '
            f'cx="{axes.x(x):.1f}" cy="{axes.y(y):.1f}" r="4"/>'
        )
        x, y = shown[-1]
        out.append(
            f'<circle class="dot c{colour}" cx="{axes.x(x):.1f}" cy="{axes.y(y):.1f}" r="3.4"/>'
        )
    return close(axes, title)


def _leaves(points: Sequence[tuple[float, float]], span: tuple[float, float, float, float]) -> int:
    """Return how many points lie inside before the first one outside."""
    for i, (x, y) in enumerate(points):
        if not (span[0] <= x <= span[1] and span[2] <= y <= span[3]):
            return i
    return len(points)


def _star(x: float, y: float) -> str:
    tips = [
        (x + r * math.sin(i * math.pi / 5), y - r * math.cos(i * math.pi / 5))
        for i, r in enumerate([6.0, 2.6] * 5)
    ]
    return "M" + "L".join(f"{a:.1f} {b:.1f}" for a, b in tips) + "z"


def contours(
    height_of: Callable[[float, float], float],
    *,
    span: tuple[float, float, float, float],
    levels: Sequence[float],
    cells: int = 32,
) -> list[tuple[float, float, float, float]]:
    """Return the contour lines as segments (x0, y0, x1, y1), by marching over triangles.

    Each cell of the grid is cut into two triangles; a level crosses none or two of their sides,
    so no case is ambiguous (Lorensen and Cline 1987 in two dimensions, on simplices).

    >>> found = contours(lambda x, y: x, span=(0, 1, 0, 1), levels=[0.25], cells=2)
    >>> {round(x, 3) for x0, _, x1, _ in found for x in (x0, x1)}
    {0.25}
    """
    x_low, x_high, y_low, y_high = span
    xs = [x_low + (x_high - x_low) * i / cells for i in range(cells + 1)]
    ys = [y_low + (y_high - y_low) * j / cells for j in range(cells + 1)]
    grid = [[(x, y, height_of(x, y)) for y in ys] for x in xs]
    found = []
    for i in range(cells):
        for j in range(cells):
            a, b, c, d = grid[i][j], grid[i + 1][j], grid[i + 1][j + 1], grid[i][j + 1]
            for triangle in ((a, b, c), (a, c, d)):
                for level in levels:
                    ends = [
                        _between(p, q, level)
                        for p, q in zip(triangle, (*triangle[1:], triangle[0]), strict=True)
                        if (p[2] < level) != (q[2] < level)
                    ]
                    if ends:
                        found.append((*ends[0], *ends[1]))
    return found


def _between(
    p: tuple[float, float, float], q: tuple[float, float, float], level: float
) -> tuple[float, float]:
    share = (level - p[2]) / (q[2] - p[2])
    return p[0] + share * (q[0] - p[0]), p[1] + share * (q[1] - p[1])
