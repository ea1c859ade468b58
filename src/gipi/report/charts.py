"""The charts that are no lines: confusion matrix, calibration, residuals, layers over time."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any
from unicodedata import east_asian_width

from gipi.core.svg import CHAR, Axes, close, number, open_axes, text

if TYPE_CHECKING:
    from collections.abc import Sequence

MOST_CLASSES = 24
"""Beyond this many classes a matrix is no longer readable; the page lists the confusions."""


def _cell(box: tuple[float, float, float, float], css: str, strength: float, title: str) -> str:
    """Return one cell at (x, y, width, height); `strength` in 0..1 is its opacity."""
    x, y, w, h = box
    return (
        f'<rect class="{css}" x="{x:.1f}" y="{y:.1f}" width="{w:.1f}" height="{h:.1f}" rx="2" '
        f'fill-opacity="{min(max(strength, 0.0), 1.0):.3f}"><title>{text(title)}</title></rect>'
    )


def short(name: str, length: int) -> str:
    """Return `name`, cut in the middle to at most `length` characters."""
    if len(name) <= length:
        return name
    head = max((length - 1) // 2, 1)
    return f"{name[:head]}…{name[len(name) - (length - 1 - head) :]}"


def drawn(name: str) -> float:
    """Return about how many pixels wide a name is drawn; East Asian letters take two places."""
    return CHAR * sum(2 if east_asian_width(c) in "WF" else 1 for c in name)


def confusion_chart(counts: Sequence[Sequence[float]], classes: Sequence[str], width: int) -> str:
    """Return the confusion matrix: truth down, prediction across; shade = share of the true row."""
    k = len(classes)
    length = 14 if width > 450 else 9
    names = [short(name, length) for name in classes]
    widest = max(map(drawn, names))
    left = 24 + widest
    tilted = widest > (width - left) / k - 4
    headed = not tilted or (width - left) / k > 18  # else the rows' names must do for both
    tilted = tilted and headed
    top = 24 + (widest * 0.66 + 4 if tilted else 8)
    cell = min((width - left - (widest * 0.72 if tilted else 6)) / k, 56)
    height = int(top + cell * k + 8)
    axes = Axes(width, height, left, 0, top, 0, (0, 1), (0, 1))
    out = axes.parts
    out.append(
        f'<text class="axis" x="{left + cell * k / 2:.1f}" y="11" text-anchor="middle">predicted'
        f'</text><text class="axis" transform="translate(10 {top + cell * k / 2:.1f}) rotate(-90)" '
        f'text-anchor="middle">true</text>'
    )
    for i, name in enumerate(names):
        x, y = left + (i + 0.5) * cell, top + (i + 0.5) * cell
        head = name if headed else ""
        turn = f' transform="rotate(-40 {x:.1f} {top - 6:.1f})"' if tilted else ""
        anchor = "start" if tilted else "middle"
        out.append(
            f'<text class="tick" x="{x:.1f}" y="{top - 6:.1f}" text-anchor="{anchor}"{turn}>'
            f'{text(head)}</text><text class="tick" x="{left - 6:.1f}" y="{y + 4:.1f}" '
            f'text-anchor="end">{text(name)}</text>'
        )
    for i, row in enumerate(counts):
        total = sum(row) or 1.0
        for j, count in enumerate(row):
            share = count / total
            css = "hit" if i == j else "miss"
            strength = 0.06 + 0.86 * share if i == j else (0.12 + 0.85 * share if count else 0.0)
            title = f"true {classes[i]}, predicted {classes[j]}: {number(count)} ({share:.1%})"
            x, y = left + j * cell, top + i * cell
            out.append(_cell((x + 1, y + 1, cell - 2, cell - 2), css, strength, title))
            said = number(count)
            if count and CHAR * len(said) < cell - 3:
                strong = " on" if strength > 0.5 else ""
                out.append(
                    f'<text class="count{strong}" x="{x + cell / 2:.1f}" '
                    f'y="{y + cell / 2 + 4:.1f}" text-anchor="middle">{said}</text>'
                )
    return close(axes, f"confusion matrix of {k} classes")


def reliability_chart(
    points: Sequence[tuple[float, float, float]], *, x_label: str, width: int, height: int
) -> str:
    """Return (promised, observed, rows) points against the diagonal; stems show the gaps."""
    axes = open_axes(
        width, height, x_range=(0.0, 1.0), y_range=(0.0, 1.0), x_label=x_label, percent=True
    )
    axes.parts.append(
        f'<line class="ideal" x1="{axes.x(0):.1f}" y1="{axes.y(0):.1f}" '
        f'x2="{axes.x(1):.1f}" y2="{axes.y(1):.1f}"/>'
    )
    most = max((rows for _, _, rows in points), default=1.0) or 1.0
    for promised, observed, rows in points:
        x, y = axes.x(promised), axes.y(observed)
        radius = 2.5 + 6 * math.sqrt(rows / most)
        count = f", {number(rows)} rows" if rows else ""
        axes.parts.append(
            f'<line class="stem" x1="{x:.1f}" x2="{x:.1f}" y1="{axes.y(promised):.1f}" '
            f'y2="{y:.1f}"/><circle class="bubble" cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}">'
            f"<title>said {promised:.1%}, was {observed:.1%}{count}</title></circle>"
        )
    return close(axes, "calibration: promised against observed")


def scatter_chart(
    truth: Sequence[float], value: Sequence[float], *, width: int, height: int, unit: str
) -> str:
    """Return predicted (up) against true (across) values with the line of perfect answers."""
    pairs = [
        (t, v) for t, v in zip(truth, value, strict=True) if math.isfinite(t) and math.isfinite(v)
    ]
    low = min((min(p) for p in pairs), default=0.0)
    high = max((max(p) for p in pairs), default=1.0)
    axes = open_axes(
        width, height, x_range=(low, high), y_range=(low, high), x_label=f"true {unit}"
    )
    axes.parts.append(
        f'<line class="ideal" x1="{axes.x(low):.1f}" y1="{axes.y(low):.1f}" '
        f'x2="{axes.x(high):.1f}" y2="{axes.y(high):.1f}"/>'
    )
    axes.parts.extend(
        f'<circle class="speck" cx="{axes.x(t):.1f}" cy="{axes.y(v):.1f}" r="2"/>' for t, v in pairs
    )
    return close(axes, "predicted against true values")


def histogram_chart(
    counts: Sequence[float], edges: Sequence[float], *, x_label: str, width: int, height: int
) -> str:
    """Return bars of `counts` between consecutive `edges`."""
    axes = open_axes(
        width, height, x_range=(edges[0], edges[-1]), y_range=(0.0, max(counts)), x_label=x_label
    )
    floor = axes.y(0)
    for count, low, high in zip(counts, edges, edges[1:], strict=False):
        x, y = axes.x(low), axes.y(count)
        axes.parts.append(
            f'<rect class="bar" x="{x + 0.5:.1f}" y="{y:.1f}" '
            f'width="{max(axes.x(high) - x - 1, 0.5):.1f}" height="{max(floor - y, 0):.1f}">'
            f"<title>{number(low)} to {number(high)}: {number(count)}</title></rect>"
        )
    if edges[0] < 0 < edges[-1]:
        x = axes.x(0)
        axes.parts.append(
            f'<line class="ideal" x1="{x:.1f}" x2="{x:.1f}" y1="{axes.top}" y2="{floor:.1f}"/>'
        )
    return close(axes, f"histogram of {x_label}")


def layer_chart(
    layers: dict[str, list[tuple[float, float]]], *, width: int, x_label: str, label: str
) -> str:
    """Return one strip a layer: time across, shade = log10 of the value.

    layers  name -> (x, value) in order; a cell is marked where the value is not finite
    """
    logs = [
        math.log10(v) for points in layers.values() for _, v in points if math.isfinite(v) and v > 0
    ]
    low, high = (min(logs), max(logs)) if logs else (0.0, 1.0)
    span = max(high - low, 1e-9)
    length = 26 if width > 450 else 14
    names = {name: short(name, length) for name in layers}
    left = 10 + max(map(drawn, names.values()), default=CHAR)
    row = 18.0
    height = int(row * len(layers) + 44)
    xs = [x for points in layers.values() for x, _ in points]
    axes = Axes(width, height, left, 10, 4, 40, (min(xs), max(xs)), (0, 1))
    for i, (name, points) in enumerate(layers.items()):
        y = 4 + i * row
        axes.parts.append(
            f'<text class="tick" x="{left - 6:.1f}" y="{y + 12:.1f}" text-anchor="end">'
            f"{text(names[name])}<title>{text(name)}</title></text>"
        )
        shown = points[:: max(1, math.ceil(len(points) / 60))]
        w = (width - left - 10) / max(len(shown), 1)
        for j, (at, value) in enumerate(shown):
            fine = math.isfinite(value)
            strength = (
                0.08 + 0.9 * ((math.log10(value) if value > 0 else low) - low) / span
                if fine
                else 1.0
            )
            title = f"{name}: {number(value)} at {number(at)}"
            box = (left + j * w, y, w + 0.3, row - 3)
            cell = _cell(box, "hit" if fine else "miss", strength, title)
            axes.parts.append(cell)
    foot = 4 + row * len(layers)
    axes.parts.append(
        f'<text class="tick" x="{left:.1f}" y="{foot + 12:.1f}">{number(min(xs))}</text>'
        f'<text class="tick" x="{width - 10}" y="{foot + 12:.1f}" text-anchor="end">'
        f'{number(max(xs))} {text(x_label)}</text><text class="axis" x="{left:.1f}" '
        f'y="{foot + 30:.1f}">faint {number(10**low)} · strong {number(10**high)} '
        f"(logarithmic)</text>"
    )
    return close(axes, label)


def share_bar(share: Any, css: str = "hit") -> str:
    """Return a small horizontal bar for a share in 0..1, or nothing where it is no number."""
    if not isinstance(share, (int, float)) or not math.isfinite(share):
        return ""
    width = min(max(share, 0.0), 1.0) * 100
    return (
        f'<svg class="share" viewBox="0 0 100 6" preserveAspectRatio="none" aria-hidden="true">'
        f'<rect class="track" width="100" height="6" rx="3"/>'
        f'<rect class="{css}" width="{width:.1f}" height="6" rx="3"/></svg>'
    )
