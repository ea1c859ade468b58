"""The part of the report about tagged sentences: F1 by type, and sentences with their entities."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gipi.core.page import card
from gipi.core.svg import number, text
from gipi.report.charts import share_bar, short
from gipi.report.read import RunData, dig, finite, listed

if TYPE_CHECKING:
    from collections.abc import Sequence

COLOURS = 6  # that the page has for types; further types begin again
MOST = 30  # types in the table

WORST = (
    "The sentences with the most wrong entities, missed and false ones together: the truth above, "
    "what was found below. Look here first for wrong tags."
)


def is_tagged(run: RunData) -> bool:
    """Return whether the answers of a run are tags."""
    return run.evaluation.get("tagged") is True


def type_card(run: RunData) -> str:
    """Return the table of the types of entities, the weakest first."""
    rows = [r for r in listed(run.evaluation.get("per_class")) if isinstance(r, dict)]
    if not rows:
        return ""
    rows = sorted(rows, key=_f1)
    body = "".join(
        f"<tr><th scope=row>{text(short(str(r.get('class', '?')), 36))}</th>"
        f"<td>{number(finite(r.get('rows')) or 0)}</td>"
        + "".join(f"<td>{_share(r.get(key))}</td>" for key in ("f1", "recall", "precision"))
        + "</tr>"
        for r in rows[:MOST]
    )
    note = f"The {MOST} weakest of {len(rows)} types. " if len(rows) > MOST else ""
    right, total = (finite(dig(run.evaluation, "sentences", k)) for k in ("right", "rows"))
    if right is not None and total:
        note += f"{number(right)} of {number(total)} sentences have no wrong entity."
    return card(
        "types, weakest first",
        '<div class="scroll"><table><thead><tr><th>type</th><th>entities</th><th>F1</th>'
        f"<th>found</th><th>right when said</th></tr></thead><tbody>{body}</tbody></table></div>",
        note,
    )


def _f1(row: dict[str, Any]) -> float:
    found = finite(row.get("f1"))
    return -1.0 if found is None else found


def _share(value: Any) -> str:
    v = finite(value)
    return "–" if v is None else f"{v * 100:.1f} %{share_bar(v)}"


def worst_sentences(run: RunData) -> str:
    """Return the sentences with the most wrong entities, true and found ones in colour."""
    rows = [r for r in listed(run.evaluation.get("worst")) if isinstance(r, dict)]
    types = [str(t) for t in listed(run.evaluation.get("types"))]
    if not rows:
        return "<p>no sentence has a wrong entity</p>" if "worst" in run.evaluation else ""
    return f'<div class="tagged">{"".join(_sentence(r, types) for r in rows)}</div>'


def _sentence(row: dict[str, Any], types: Sequence[str]) -> str:
    tokens = [str(t) for t in listed(row.get("tokens"))]
    more = finite(row.get("cut")) or 0
    tail = f' <span class="quiet">[… {number(more)} more]</span>' if more else ""
    lines = "".join(
        f'<p dir="auto"><span class="quiet">{name}</span> '
        f"{_marked(tokens, listed(row.get(key)), types)}{tail}</p>"
        for name, key in (("true", "target"), ("found", "prediction"))
    )
    wrong = finite(row.get("loss")) or 0
    said = f"{text(row.get('name', ''))}: {number(wrong)} wrong"
    return f'<article class="sentence">{lines}<p class="name">{said}</p></article>'


def _marked(tokens: Sequence[str], entities: Sequence[Any], types: Sequence[str]) -> str:
    """Return tokens as HTML, entities (type, first, last) in the colour of their type."""
    gap = "" if any(t.isspace() for t in tokens) else " "
    first = {int(e[1]): e for e in entities if isinstance(e, list) and len(e) == 3}
    parts, at = [], 0
    while at < len(tokens):
        entity = first.get(at)
        if entity is None:
            parts.append(text(tokens[at]))
            at += 1
            continue
        end = max(int(entity[2]) + 1, at + 1)
        kind = str(entity[0])
        colour = types.index(kind) % COLOURS + 1 if kind in types else 1
        words = text(gap.join(tokens[at:end]))
        parts.append(f'<mark class="t{colour}">{words}<sub>{text(kind)}</sub></mark>')
        at = end
    return gap.join(parts)
