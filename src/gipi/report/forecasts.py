"""The part of the report about forecasts: the error by step ahead, the series, and windows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gipi.core.page import both, card
from gipi.core.svg import Line, Mark, line_chart, number, text
from gipi.report.charts import share_bar, short
from gipi.report.read import RunData, dig, finite, listed

if TYPE_CHECKING:
    from collections.abc import Callable

MOST = 30  # series in the table

WINDOWS = (
    "The forecasts with the largest, the middle and the smallest error, in the units of the data. "
    "Left of the line what the model saw, right of it the truth and what was forecast."
)


def is_forecast(run: RunData) -> bool:
    """Return whether the evaluation is of forecasts."""
    return isinstance(run.evaluation.get("forecast"), dict)


def cards(run: RunData) -> list[str]:
    """Return the cards of the evaluation: the error by step ahead, and the series."""
    return [c for c in (_by_step(run), _series(run)) if c]


def _by_step(run: RunData) -> str:
    found = run.evaluation.get("by_step")
    lines: list[Line] = []
    for rule, errors in found.items() if isinstance(found, dict) else ():
        values = [v if (v := finite(e)) is not None else float("nan") for e in listed(errors)]
        if values:
            x = [float(i + 1) for i in range(len(values))]
            lines.append(Line(str(rule), x, values, len(lines) + 1, dashed=len(lines) > 0))
    if not lines:
        return ""
    step = text(dig(run.evaluation, "forecast", "step") or "step")
    note = f"Mean squared error of each step ahead, standardised; steps of {step}."
    return card(
        "error by step ahead",
        both(
            lambda w: line_chart(
                lines, width=w, height=270 if w > 400 else 220, x_label="steps ahead",
                from_zero=True, label="error by step ahead",
            )
        ),
        note,
        keys=[(line.name, line.colour) for line in lines],
    )  # fmt: skip


def _series(run: RunData) -> str:
    rows = [r for r in listed(run.evaluation.get("per_series")) if isinstance(r, dict)]
    if not rows:
        return ""
    rows = sorted(rows, key=lambda r: -(finite(r.get("mse")) or 0.0))
    most = max(finite(r.get("mse")) or 0.0 for r in rows) or 1.0
    body = "".join(
        f"<tr><th scope=row>{text(short(str(r.get('series', '?')), 36))}</th>"
        f"<td>{_cell(r.get('mse'))}{share_bar((finite(r.get('mse')) or 0.0) / most)}</td>"
        f"<td>{_cell(r.get('floor'))}</td><td>{_cell(r.get('original_mae'))}</td></tr>"
        for r in rows[:MOST]
    )
    note = "Floor: the better of the naive rules."
    if len(rows) > MOST:
        note = f"The {MOST} worst of {len(rows)}. {note}"
    return card(
        "series, worst first",
        '<div class="scroll"><table><thead><tr><th>series</th><th>MSE</th><th>floor</th>'
        f"<th>MAE, in its unit</th></tr></thead><tbody>{body}</tbody></table></div>",
        note,
    )


def _cell(value: Any) -> str:
    found = finite(value)
    return "–" if found is None else number(found)


def windows(run: RunData) -> str:
    """Return the windows that were kept, as charts: one for each series of each."""
    found = [w for w in listed(run.evaluation.get("windows")) if isinstance(w, dict)]
    out = []
    for window in found:
        charts = [
            c for s in listed(window.get("series")) if isinstance(s, dict) and (c := _chart(s))
        ]
        if not charts:
            continue
        loss = finite(window.get("loss"))
        title = (
            f"{text(window.get('kind', ''))} window: {text(window.get('first', ''))} to "
            f"{text(window.get('last', ''))}"
            + (f", MSE {number(loss)}" if loss is not None else "")
        )
        out.append(f'<h3>{title}</h3><div class="cards">{"".join(charts)}</div>')
    if not out:
        return ""
    keys = "".join(
        f'<span class="key c{colour}">{name}</span>'
        for name, colour in (("truth", 1), ("forecast", 2))
    )
    return f'<p class="legend">{keys}</p>{"".join(out)}'


def _chart(series: dict[str, Any]) -> str:
    past, truth, said = (_numbers(series.get(key)) for key in ("past", "truth", "forecast"))
    if not truth or len(truth) != len(said):
        return ""
    name = str(series.get("series", ""))
    return card(short(name, 36), both(_drawer(past, truth, said, name)), "")


def _drawer(
    past: list[float], truth: list[float], said: list[float], name: str
) -> Callable[[int], str]:
    """Return what draws the past and the truth as one line, and the forecast from step 1 on."""
    ahead = [float(i + 1) for i in range(len(truth))]
    before = [float(i + 1 - len(past)) for i in range(len(past))]
    lines = [
        Line("truth", [*before, *ahead], [*past, *truth], 1),
        Line("forecast", ahead, said, 2),
    ]

    def draw(width: int) -> str:
        return line_chart(
            lines, width=width, height=200, x_label="steps ahead",
            marks=[Mark(0.5, "now")] if past else (), label=f"forecast of {name} beside the truth",
        )  # fmt: skip

    return draw


def _numbers(values: Any) -> list[float]:
    return [v if (v := finite(x)) is not None else float("nan") for x in listed(values)]
