"""The part of the report about answers that lie on pictures: figures per class, worst pictures."""

from __future__ import annotations

import base64
import re
from typing import TYPE_CHECKING, Any

from gipi.core.page import card
from gipi.core.svg import number, text
from gipi.report.charts import share_bar, short
from gipi.report.read import RunData, dig, finite, listed

if TYPE_CHECKING:
    from collections.abc import Callable

    Cell = Callable[[dict[str, Any]], str]
    Order = Callable[[dict[str, Any]], float]
    Form = tuple[list[str], list[Cell], Order, str]

KINDS = ("mask", "boxes", "keypoints")
MOST = 20  # lines of the table
_COLOUR = re.compile(r"#[0-9a-f]{6}")

WORST = {
    "mask": "The pictures with the lowest mean IoU over the classes in them. Left the truth, right "
    "the answer; what nobody labelled stays grey.",
    "boxes": "The pictures with the most missed objects and false alarms. White: the truth; in "
    "colour: the answers, with class and score.",
    "keypoints": "The pictures with the largest mean error. White rings: the truth; dots: the "
    "answers; red lines join the two.",
}


def kind_of(run: RunData) -> str:
    """Return "mask", "boxes" or "keypoints", or "" where answers lie on no picture."""
    kind = run.evaluation.get("drawn")
    return kind if kind in KINDS else ""


def class_card(run: RunData) -> str:
    """Return the table of classes or points, the weakest first."""
    kind = kind_of(run)
    rows = [r for r in listed(run.evaluation.get("per_class")) if isinstance(r, dict)]
    if not kind or not rows:
        return ""
    head, cells, key, note = _FORMS[kind](run)
    rows = sorted(rows, key=key)
    shown = rows[:MOST]
    body = "".join(
        f"<tr><th scope=row>{text(short(str(r.get('class', '?')), 36))}</th>"
        f"{''.join(f'<td>{cell(r)}</td>' for cell in cells)}</tr>"
        for r in shown
    )
    if len(rows) > len(shown):
        note = f"The {len(shown)} weakest of {len(rows)}. {note}"
    title = "points, weakest first" if kind == "keypoints" else "classes, weakest first"
    columns = "".join(f"<th>{text(h)}</th>" for h in head)
    return card(
        title,
        f'<div class="scroll"><table><thead><tr>{columns}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>",
        note,
    )


def _mask_form(run: RunData) -> Form:  # noqa: ARG001
    head = ["class", "of the pixels", "IoU", "found", "right when said"]
    cells = [_percent("share", bar=False), *(_percent(k) for k in ("iou", "recall", "precision"))]
    note = "IoU: of the pixels that are or were called so, the share where both agree."
    return head, cells, _by("iou"), note


def _box_form(run: RunData) -> Form:
    sure = finite(run.evaluation.get("sure")) or 0.0
    head = ["class", "objects", "AP50", f"found at {sure:g}", "right when said"]
    cells = [_count("rows"), *(_percent(k) for k in ("ap50", "recall", "precision"))]
    how = run.evaluation.get("ap_from")
    note = f"AP by {text(how)}." if isinstance(how, str) else ""
    return head, cells, _by("ap50"), note


def _point_form(run: RunData) -> Form:  # noqa: ARG001
    head = ["point", "rows", "mean error", "90 % below"]
    cells = [_count("rows"), _pixels("error"), _pixels("error90")]
    return head, cells, _by("error", largest=True), "In pixels of the picture that the model sees."


_FORMS: dict[str, Callable[[RunData], Form]] = {
    "mask": _mask_form, "boxes": _box_form, "keypoints": _point_form,
}  # fmt: skip


def _percent(key: str, *, bar: bool = True) -> Cell:
    def cell(row: dict[str, Any]) -> str:
        value = finite(row.get(key))
        if value is None:
            return "–"
        return f"{value * 100:.1f} %{share_bar(value) if bar else ''}"

    return cell


def _count(key: str) -> Cell:
    return lambda row: number(finite(row.get(key)) or 0)


def _pixels(key: str) -> Cell:
    def cell(row: dict[str, Any]) -> str:
        value = finite(row.get(key))
        return "–" if value is None else f"{value:.1f} px"

    return cell


def _by(key: str, *, largest: bool = False) -> Order:
    def place(row: dict[str, Any]) -> float:
        value = finite(row.get(key))
        if value is None:
            return float("inf")
        return -value if largest else value

    return place


def worst_pictures(run: RunData) -> str:
    """Return the worst pictures with what was answered on them, and the legend."""
    rows = [r for r in listed(run.evaluation.get("worst")) if isinstance(r, dict)]
    if not rows:
        return ""
    return f'{_legend(run)}<div class="drawn">{"".join(_picture(run, r) for r in rows)}</div>'


def _legend(run: RunData) -> str:
    keys = []
    for entry in listed(run.evaluation.get("legend")):
        colour, name = dig(entry, "colour"), dig(entry, "class")
        if isinstance(colour, str) and _COLOUR.fullmatch(colour) and name is not None:
            swatch = f'<i style="background:{colour}"></i>'
            keys.append(f'<span class="swatch">{swatch}{text(name)}</span>')
    return f'<p class="legend">{"".join(keys)}</p>' if keys else ""


def _picture(run: RunData, row: dict[str, Any]) -> str:
    image, content = "", run.pictures.get(str(row.get("picture")))
    name = text(row.get("name", row.get("id", "")))
    if content is not None and content.startswith(b"\x89PNG"):
        coded = base64.b64encode(content).decode()
        image = f'<img alt="{name}" src="data:image/png;base64,{coded}">'
    words = text(row.get("words", ""))
    caption = f"<figcaption><b>{name}</b> {words}</figcaption>"
    return f'<figure class="pictured">{image}{caption}</figure>'
