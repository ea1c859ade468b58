"""The page: one HTML file without a single outside request, readable on a phone, light and dark."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gipi.core.atomic import write_file
from gipi.core.page import page
from gipi.core.rundir import REPORT
from gipi.core.schema import PAIRED, PRETEXT, WRITTEN
from gipi.core.svg import text
from gipi.report import curves, drawn, facts, forecasts, judged, tagged, written
from gipi.report.read import RunData, dig, finite, read_run
from gipi.report.style import STYLE

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

ROWLESS = (*PAIRED, *PRETEXT)
"""Tasks whose rows have no loss of their own."""
WORDS = (*WRITTEN, "answer", *ROWLESS)
"""Tasks without confusions, residuals or classes: their score and their rows say it all."""
MISSING = '<p class="missing">not recorded</p>'


def write_report(run: Path, *, samples: bool = True) -> Path:
    """Write report.html of a run folder, from the files in it alone, and return its path.

    samples  False keeps data rows out of the page: no worst rows, no point of a single row

    What is missing or damaged is shown as not recorded. Raises `StorageError` where the page
    cannot be written.
    """
    path = run / REPORT
    write_file(path, render(read_run(run), samples=samples))
    return path


def render(run: RunData, *, samples: bool = True) -> str:
    """Return the page of a run as HTML."""
    if not samples:
        for name in ("truth", "value"):
            run.arrays.pop(name, None)
        for name in written.ROWS:
            run.evaluation.pop(name, None)
    data = run.about.get("data") or run.config.get("data") or run.name
    sections = [
        _guard(judged.headline, run),
        _section("How it learned", _cards(curves.learning_cards, run)),
        _known("How it answers", _cards(judged.answer_cards, run, css="cards flow"), run, WORDS),
        _known(_rows_title(run), _worst(run, samples=samples), run, ROWLESS, intro=_intro(run)),
        _section("Why these choices", _guard(facts.choices, run)),
        _section("Inside the training", _inside(run)),
        _section("Findings and events", _guard(facts.happenings, run), empty="nothing to report"),
        _section("Data", _guard(facts.data_section, run)),
        _section("Configuration", _guard(facts.configuration, run)),
        _section("Environment", _guard(facts.environment, run)),
        _section("Sources", _guard(facts.citations, run)),
    ]
    if run.problems:
        sections.insert(1, _section("Not readable", facts.bullets(run.problems)))
    return page(
        f"{data} · gipi report",
        run.name,
        "\n".join(sections),
        style=STYLE,
        foot="Written by gipi from the files of the run folder.",
    )


_WORST = (
    "The rows of the evaluation with the largest loss: look here first for wrong labels, broken "
    "files and cases that the training rows lack."
)


_WRITTEN = (
    "The rows whose answer alone scores least against the text of the data, then rows at random. A "
    "good translation in other words scores low too: read before you judge."
)


def _rows_title(run: RunData) -> str:
    return "What it writes and reads" if written.is_language(run) else "Worst-predicted rows"


def _intro(run: RunData) -> str:
    if tagged.is_tagged(run):
        return tagged.WORST
    if written.is_language(run):
        return "Drawn from the model from a new line on, and one passage that it did not train on."
    if forecasts.is_forecast(run):
        return forecasts.WINDOWS
    if run.evaluation.get("row_score"):
        return _WRITTEN
    return drawn.WORST.get(drawn.kind_of(run), _WORST)


def _known(title: str, body: str, run: RunData, without: Sequence[str], *, intro: str = "") -> str:
    """Return a section, nothing where it is empty because runs of the task have none."""
    if not body and run.evaluation.get("task") in without:
        return ""
    return _section(title, body, intro=intro)


def _section(title: str, body: str, *, intro: str = "", empty: str = "") -> str:
    anchor = title.lower().replace(" ", "-")
    lead = f'<p class="quiet">{text(intro)}</p>' if intro and body and body != MISSING else ""
    fallback = f'<p class="missing">{text(empty)}</p>' if empty else MISSING
    return f'<section id="{anchor}"><h2>{text(title)}</h2>{lead}{body or fallback}</section>'


def _guard(build: Callable[[RunData], str], run: RunData) -> str:
    """Return a part of the page, or "not recorded" where the run folder holds nonsense."""
    try:
        return build(run)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError):
        return MISSING


def _cards(build: Callable[[RunData], list[str]], run: RunData, *, css: str = "cards") -> str:
    def joined(data: RunData) -> str:
        cards = build(data)
        return f'<div class="{css}">{"".join(cards)}</div>' if cards else ""

    return _guard(joined, run)


def _inside(run: RunData) -> str:
    def build(data: RunData) -> list[str]:
        return [*curves.speed_cards(data), *curves.layer_cards(data)]

    return _cards(build, run)


def _worst(run: RunData, *, samples: bool) -> str:
    if not samples or run.evaluation.get("samples") is False:
        return '<p class="missing">left out: this report holds no data rows</p>'
    return _guard(judged.worst_rows, run)


def summary_lines(run: Path) -> list[str]:
    """Return the few lines that a terminal shows of a run: what, score, verdict, hints."""
    data = read_run(run)
    primary: Any = data.evaluation.get("primary")
    lines = [str(data.name)]
    name = dig(primary, "name")
    if isinstance(name, str):
        low, high = (finite(dig(primary, k)) for k in ("low", "high"))
        value = judged.score(name, finite(dig(primary, "value")))
        around = f"95 % interval {judged.score(name, low)} to {judged.score(name, high)}"
        if low is None:
            around = str(dig(primary, "method") or "no interval")
        lines.append(f"{curves.metric_name(name)} {value} ({around})")
    lines.append(judged.verdict(data))
    return lines + judged.hints(data)
