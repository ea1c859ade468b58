"""The panels of the doctor's pictures: what a finding holds, drawn; and how its run went on.

Which panel a finding gets is told by its evidence, see `evidence_panel`. All panels have one size,
and a colour means the same in both of a picture, see `KEYS`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gipi.core.svg import CHAR, Axes, Line, close, line_chart, log_ticks, number, text, ticks

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

SIZE = (400, 232)
AS_IS, REPAIRED, TWIN, TRAIN, VAL, TRUE = 2, 3, 1, 4, 5, 6
KEYS = {AS_IS: "as it is", REPAIRED: "repaired", TWIN: "healthy twin", TRAIN: "training rows",
        VAL: "validation rows", TRUE: "what is true"}  # fmt: skip
POINTS, BINS, MOST_BARS, LONG = 60, 40, 9, 24
WIDE = 30.0
"""Largest over smallest value from which on an axis is logarithmic."""
PERCENT = ("classes", "binary", "multilabel")
SCORES = dict.fromkeys(PERCENT, "right answers") | {"language": "log-likelihood of a word, nats"}
EXPLAINED = "1 - squared error / variance"
"""What is scored where there is no right or wrong."""
LISTED = {
    "moves_by_place": ("how far outputs move with later places", "place"),
    "gradient_by_place": ("size of the gradient", "place"),
    "rates": ("learning rate", "part of the run"),
    "means": ("mean training loss", "stretch of the run"),
    "last_losses": ("the last losses", "step"),
}
"""Lists of numbers that rules keep as evidence: what they are, and what stands below them."""
SHARES = (
    "share", "alike", "expected", "explained_raw", "explained_transformed", "errors",
    "errors_net_val", "errors_net_train", "recall_rare", "recall_others", "old", "before", "now",
    "auc", "kept", "lost", "next", "rest", "train", "val", "linear", "neighbours", "exact",
    "mean_recall_as_is", "mean_recall_weighted", "explained", "explained_train", "explained_val",
    "net_on_training_rows", "simple_on_new_rows", "linear_on_training_rows", "variance_lost",
)  # fmt: skip
"""Numbers of the evidence that are shares of a whole."""
SHARE_TABLES = ("dead units", "flat units", "rates")
OWN = ("as it is", "own", "lr x 1")
"""The side of a counter-experiment that nothing was changed on."""
NO_SIDE = ("loss_as_is", "loss_at", "loss_before")
"""Losses in the evidence that are drawn in another way, or are no side's."""


@dataclass(frozen=True)
class Course:
    """How a run went: the loss of every step, and scores of rows after epochs.

    held, val  (epoch, score) of rows that nobody saw, and of validation rows; more is better
    """

    losses: list[float] = field(default_factory=list)
    held: list[tuple[float, float]] = field(default_factory=list)
    val: list[tuple[float, float]] = field(default_factory=list)


@dataclass(frozen=True)
class Panel:
    """A chart as SVG text, what it shows in words, and the colours that it uses."""

    svg: str
    words: str
    colours: frozenset[int]


Row = tuple[str, float, int]
"""Name, value and colour of a bar."""


# ------------------------------------------------------------------------ kinds of panels


def bars(rows: Sequence[Row], *, title: str, percent: bool = False) -> Panel:
    """Return one horizontal bar a row, names at the left, values at the right; some of many rows.

    Where values differ by more than `WIDE` they are drawn by their logarithm, from a power of ten
    below the least. What is not finite reaches to the end.
    """
    if len(rows) > MOST_BARS:
        rows = [rows[i * (len(rows) - 1) // (MOST_BARS - 1)] for i in range(MOST_BARS)]
    width, height = SIZE
    left = 14 + CHAR * min(max((len(n) for n, *_ in rows), default=1), LONG)
    fine = [v for _, v, _ in rows if math.isfinite(v)] or [0.0]
    positive = [v for v in fine if v > 0]
    log = not percent and len(positive) == len(fine) and max(fine) > WIDE * min(fine)
    low = 10.0 ** math.floor(math.log10(min(fine)) - 0.2) if log else min(0.0, *fine)
    high = 1.0 if percent else max(low + 1e-12, *fine)
    axes = Axes(width, height, left, 56, 28, 24, (low, high), (0, 1), log_x=log)
    axes.parts.append(f'<text class="title" x="12" y="15">{text(title)}</text>')
    floor = height - axes.bottom
    for value in (log_ticks if log else ticks)(low, high, most=4):
        said = f"{100 * value:.3g} %" if percent else number(value)
        axes.parts.append(
            f'<line class="grid" x1="{axes.x(value):.1f}" x2="{axes.x(value):.1f}" '
            f'y1="{axes.top}" y2="{floor:.1f}"/><text class="tick" x="{axes.x(value):.1f}" '
            f'y="{floor + 15:.1f}" text-anchor="middle">{said}</text>'
        )
    step = min((floor - axes.top) / max(len(rows), 1), 40.0)
    for i, (name, value, colour) in enumerate(rows):
        y = axes.top + (i + 0.5) * step
        end = axes.x(value if math.isfinite(value) else high)
        start = axes.x(low if log else 0.0)
        said = f"{100 * value:.3g} %" if percent else number(value)
        axes.parts.append(
            f'<text class="tick" x="{left - 6:.1f}" y="{y + 3.5:.1f}" text-anchor="end">'
            f'{text(short(name))}</text><rect class="c{colour}" x="{min(start, end):.1f}" '
            f'y="{y - step * 0.34:.1f}" width="{max(abs(end - start), 1.0):.1f}" '
            f'height="{step * 0.68:.1f}" rx="2"/><text class="tick" '
            f'x="{max(start, end) + 5:.1f}" y="{y + 3.5:.1f}">{said}</text>'
        )
    return Panel(close(axes, title), title, frozenset(c for _, _, c in rows))


def histogram(parts: Mapping[int, Tensor], *, title: str, x_label: str) -> Panel:
    """Return the outlines of histograms over common bins, one a colour; one bin a whole number."""
    whole = not any(v.is_floating_point() for v in parts.values())
    kept = {c: v.detach().flatten().double() for c, v in parts.items()}
    kept = {c: v[v.isfinite()] for c, v in kept.items()}
    low = min(float(v.min()) for v in kept.values())
    high = max(float(v.max()) for v in kept.values())
    bins = min(int(high - low) + 1, 2 * BINS) if whole else BINS
    edges = torch.linspace(low - 0.5 * whole, high + 0.5 * whole + 1e-9, bins + 1)
    x = [float(e) for e in edges.repeat_interleave(2)]
    lines = []
    for colour, values in kept.items():
        counts = torch.histc(values, bins, x[0], x[-1]) / max(len(values), 1)
        y = [0.0, *(float(c) for c in counts.repeat_interleave(2)), 0.0]
        lines.append(Line(KEYS[colour], x, y, colour))
    drawn = line_chart(
        lines, width=SIZE[0], height=SIZE[1], x_label=x_label, label=title, title=title,
        percent=True, from_zero=True,
    )  # fmt: skip
    return Panel(drawn, title, frozenset(kept))


def over(
    lines: Sequence[Line], *, title: str, x_label: str, percent: bool = False, log: bool = False
) -> Panel:
    """Return lines over a common axis, the vertical one logarithmic where `log` and they are."""
    values = [v for line in lines for v in line.y if math.isfinite(v)]
    wide = bool(values) and min(values) > 0 and max(values) > WIDE * min(values)
    drawn = line_chart(
        lines, width=SIZE[0], height=SIZE[1], x_label=x_label, label=title, title=title,
        percent=percent, log=log and wide,
    )  # fmt: skip
    return Panel(drawn, title, frozenset(line.colour for line in lines))


def loss_panel(courses: Mapping[int, Course]) -> Panel:
    """Return the training loss of some runs, means of a few steps each."""
    longest = max(len(c.losses) for c in courses.values())
    size = max(1, math.ceil(longest / POINTS))
    lines = []
    for colour, course in below(courses):
        parts = [course.losses[i : i + size] for i in range(0, len(course.losses), size)]
        x = [float(i * size + len(p)) for i, p in enumerate(parts)]
        y = [sum(p) / len(p) for p in parts]
        if parts:
            lines.append(Line(KEYS[colour], x, y, colour, dashed=colour == TWIN))
    what = "training loss" + (f", means of {size} steps" if size > 1 else "")
    return over(lines, title=what, x_label="step", log=True)


def below(courses: Mapping[int, Course]) -> list[tuple[int, Course]]:
    """Return the runs as they are drawn: the healthy twin lies below the others."""
    return sorted(courses.items(), key=lambda c: c[0] != TWIN)


def score_panel(courses: Mapping[int, Course], kind: str, *, judging: bool) -> Panel:
    """Return how well held-out rows are told over the runs; `judging`: validation rows, too."""
    lines = []
    for colour, course in below(courses):
        if course.held:
            x, y = zip(*course.held, strict=True)
            twin = colour == TWIN
            lines.append(Line(KEYS[colour], x, y, colour, dots=not twin, dashed=twin))
    if judging and courses[AS_IS].val:
        x, y = zip(*courses[AS_IS].val, strict=True)
        lines.append(Line(KEYS[VAL], x, y, VAL, dots=True))
    what = f"held-out rows: {SCORES.get(kind, EXPLAINED)}"
    return over(lines, title=what, x_label="epoch", percent=kind in PERCENT)


# ------------------------------------------------------------------------ by the evidence


def evidence_panel(
    kind: str, evidence: Mapping[str, Any], values: Callable[[], tuple[str, Mapping[int, Tensor]]]
) -> Panel | None:
    """Return the panel of one kind; None where the evidence holds nothing of it.

    kind    "values" a histogram of what `values` returns (with its name); "trial" the losses of a
            counter-experiment; "shares" of a whole, see `SHARES`; "named" a table of names and
            numbers; "listed" a list of numbers
    """
    if kind == "values":
        what, found = values()
        parts = {c: v for c, v in found.items() if v.numel()}
        title = f"{what}: share of its values"
        return histogram(parts, title=title, x_label="value") if parts else None
    if kind == "listed":
        key, points = listed(evidence)
        if not points:
            return None
        what, across = LISTED[key]
        line = Line(what, [float(i) for i in range(len(points))], points, AS_IS, dots=True)
        return over([line], title=what, x_label=across, log=True)
    if kind == "named":
        title, rows = named(evidence)
    elif kind == "trial":
        title, rows = "counter-experiment: loss afterwards", trial(evidence)
    else:
        title, rows = "what the doctor counted", shares(evidence)
    percent = kind == "shares" or title in SHARE_TABLES
    least = 2 if kind == "shares" else 1
    return bars(rows, title=title, percent=percent) if len(rows) >= least else None


def trial(evidence: Mapping[str, Any]) -> list[Row]:
    """Return the losses of the sides of a counter-experiment; nothing where there is one side."""
    found = [(side(str(k)), v) for k, v in dict(evidence.get("loss_at") or {}).items()]
    if "loss_as_is" in evidence:
        others = [
            (k.removeprefix("loss_").replace("_", " "), v) for k, v in evidence.items()
            if k.startswith("loss_") and k not in NO_SIDE
        ]  # fmt: skip
        own = [] if any(n in OWN for n, _ in found) else [("as it is", evidence["loss_as_is"])]
        found = [*own, *others, *found]
    rows = [(n, number_of(v), AS_IS if n in OWN else REPAIRED) for n, v in found]
    return rows if len(rows) > 1 else []


def side(name: str) -> str:
    """Return the name of a side, one that is a number as the factor of the rate that it is."""
    factor = number_of(name)
    return name if math.isnan(factor) else f"lr x {factor:.3g}"


def shares(evidence: Mapping[str, Any]) -> list[Row]:
    """Return the shares of a whole, those below nothing as nothing."""
    return [
        (k.replace("_", " "), max(float(v), 0.0), AS_IS) for k, v in evidence.items()
        if k in SHARES and isinstance(v, float) and v <= 1
    ]  # fmt: skip


def named(evidence: Mapping[str, Any]) -> tuple[str, list[Row]]:
    """Return the key and the rows of the first table of names and numbers, the nearest first."""
    tables = [(k, v) for k, v in evidence.items() if isinstance(v, dict) and k != "loss_at"]
    if isinstance(spread := evidence.get("std"), list):
        tables.append(("spread", {f"column {i}": v for i, v in enumerate(spread)}))
    for key, table in tables:
        if table and all(isinstance(v, int | float) for v in table.values()):
            return key.replace("_", " "), [(str(n), float(v), AS_IS) for n, v in table.items()]
    inner = [(f"{key}: {found[0]}", found[1]) for key, t in tables if (found := named(t))[1]]
    return inner[0] if inner else ("", [])


def listed(evidence: Mapping[str, Any]) -> tuple[str, list[float]]:
    """Return the key and the numbers of the first list that is drawn."""
    for key in LISTED:
        points = evidence.get(key)
        if isinstance(points, list) and len(points) > 2:
            return key, [number_of(p) for p in points]
    return "", []


def number_of(value: Any) -> float:
    """Return what evidence holds as a number, NaN for what is none."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return math.nan


def short(name: str) -> str:
    """Return a name, cut in the middle where it is long."""
    return name if len(name) <= LONG else f"{name[:11]}…{name[12 - LONG :]}"
