"""The part of the report about a language model: what it wrote, and where it was surprised."""

from __future__ import annotations

from typing import Any

from gipi.core.page import both, card
from gipi.core.svg import Line, line_chart, text
from gipi.report.charts import histogram_chart
from gipi.report.read import RunData, finite, listed

ROWS = ("passage", "written")  # keys of the evaluation that hold data, or what looks like it
FULL = 10.0  # bits of a token that is painted in full colour


def is_language(run: RunData) -> bool:
    """Return whether the run trained a language model."""
    return run.evaluation.get("task") == "generate"


def cards(run: RunData) -> list[str]:
    """Return the cards of the evaluation: surprise by place, how often which, what it wrote."""
    return [c for c in (_by_place(run), _histogram(run)) if c]


def passages(run: RunData) -> str:
    """Return what the model wrote, and the painted passage of held-back text."""
    samples = [str(s) for s in listed(run.evaluation.get("written"))]
    body = "".join(
        f'<article class="sample"><div><p class="wrote">{text(s.strip())}</p>'
        f'<p class="name">sample {i}</p></div></article>'
        for i, s in enumerate(samples, 1)
    )
    painted = "".join(_token(t) for t in listed(run.evaluation.get("passage")))
    if painted:
        body += (
            f'<article class="sample"><div><p class="wrote">{painted}</p><p class="name">held-back '
            "text: the darker a token, the more it surprised</p></div></article>"
        )
    return f'<div class="texts">{body}</div>' if body else ""


def _token(row: Any) -> str:
    if not isinstance(row, dict):
        return ""
    bits = finite(row.get("bits")) or 0.0
    share = min(max(bits / FULL, 0.0), 1.0)
    return (
        f'<span class="bits" style="--share:{share * 60:.0f}%" title="{bits:.1f} bits">'
        f"{text(str(row.get('text', '')))}</span>"
    )


def _by_place(run: RunData) -> str:
    values = run.arrays.get("bits_by_place")
    if values is None or values.ndim != 1 or len(values) < 2:
        return ""
    bits = values.astype(float).tolist()
    line = Line("bits", [float(i + 1) for i in range(len(bits))], bits, 1)

    def draw(width: int) -> str:
        return line_chart([line], width=width, height=270 if width > 400 else 220,
                          x_label="place in the window", label="bits by place")  # fmt: skip

    note = "Bits of a token by how many stand before it in its window: what context is worth."
    return card("surprise by place", both(draw), note)


def _histogram(run: RunData) -> str:
    counts, edges = run.arrays.get("bits_counts"), run.arrays.get("bits_edges")
    if counts is None or edges is None or len(edges) != len(counts) + 1:
        return ""
    return card(
        "surprise of tokens",
        both(lambda w: histogram_chart(counts.tolist(), edges.tolist(), x_label="bits", width=w,
                                       height=230)),
        "How many tokens cost how many bits; the last bar holds everything beyond.",
    )  # fmt: skip
