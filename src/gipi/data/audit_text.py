"""The audit in words: lines of plain text for a terminal or a page."""

from __future__ import annotations

import unicodedata
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from gipi.data.audit import Audit, FieldFacts

MARKS = {"error": "✗", "warning": "!", "note": "·"}


def audit_lines(a: Audit) -> list[str]:
    """Return the audit as plain lines: what it is, the columns, the classes, the findings."""
    what = f"{a.name}: {a.rows:,} rows, {len(a.fields):,} columns"
    out = [what + (f", {a.task} '{a.target}'" if a.target else ", no target")]
    if a.task_reason:
        out.append(f"  task      {a.task} ({a.task_reason})")
    if a.splits:
        out.append("  given     " + ", ".join(f"{k} {n:,}" for k, n in a.splits.items()))
    if a.licence or a.citation:
        out.append("  source    " + "; ".join(t for t in (a.citation, a.licence) if t))
    out += ["", *_table(a.fields)]
    if a.classes:
        out += ["", "classes", *_class_lines(a.classes, a.rows)]
    if a.target_facts:
        out += ["", "target    " + ", ".join(f"{k} {short(v)}" for k, v in a.target_facts.items())]
    if a.pictures.get("forms"):
        forms = ", ".join(f"{k} ({n:,})" for k, n in a.pictures["forms"].items())
        out += ["", f"pictures  {forms}"]
    out += ["", "findings" if a.findings else "findings  none"]
    for f in a.findings:
        out.append(f"  {MARKS[f.level]} {f.message}" + (f"  → {f.do}" if f.do else ""))
    out += [f"  {MARKS['note']} {note}" for note in a.notes]
    if a.sampled:
        out += ["", a.sampled]
    return out


def _table(fields: tuple[FieldFacts, ...], most: int = 60) -> list[str]:
    head = ("column", "kind", "role", "missing", "distinct", "values", "why")
    rows = [
        (cut(f.name, 28), f.kind, f.role, f"{f.missing:,}" if f.missing else "",
         "" if f.distinct is None else f"{f.distinct:,}", f.values, f.reason)
        for f in fields[:most]
    ]  # fmt: skip
    widths = [max(_width(r[i]) for r in (head, *rows)) for i in range(len(head) - 1)]
    lines = [
        "  ".join(
            [*(c.rjust(w) if i in (3, 4) else _pad(c, w)
               for i, (c, w) in enumerate(zip(row, widths, strict=False))), row[-1]]
        ).rstrip()
        for row in (head, *rows)
    ]  # fmt: skip
    if len(fields) > most:
        kinds = Counter(f"{f.kind} ({f.role})" for f in fields[most:])
        rest = ", ".join(f"{n:,} {k}" for k, n in kinds.most_common())
        lines.append(f"... and {len(fields) - most:,} more: {rest}")
    return lines


def _class_lines(classes: dict[str, int], rows: int, most: int = 20) -> list[str]:
    top = max(classes.values())
    width = max(_width(cut(k, 28)) for k in classes)
    lines = [
        f"  {_pad(cut(name, 28), width)}  {n:>8,}  {n / rows:6.1%}  {'█' * round(20 * n / top)}"
        for name, n in list(classes.items())[:most]
    ]
    if len(classes) > most:
        lines.append(f"  ... and {len(classes) - most:,} more classes")
    return lines


def _width(text: str) -> int:
    """Return the columns that `text` takes in a terminal; Korean letters take two each."""
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def _pad(text: str, width: int) -> str:
    return text + " " * (width - _width(text))


def listed(names: tuple[str, ...], total: int) -> str:
    """Return the names, and how many more there are.

    >>> listed(("a", "b"), 5)
    'a, b and 3 more'
    """
    return ", ".join(names) + (f" and {total - len(names):,} more" if total > len(names) else "")


def counted(count: int, what: str) -> str:
    """Return a count with its noun.

    >>> counted(1, "row"), counted(1200, "class")
    ('1 row', '1,200 classes')
    """
    if count == 1:
        return f"1 {what}"
    return f"{count:,} {what}{'es' if what.endswith('s') else 's'}"


def short(value: Any) -> str:
    """Return a number, a date or a truth value in few characters."""
    if isinstance(value, np.datetime64):
        return str(value.astype("datetime64[s]")).removesuffix("T00:00:00")
    if isinstance(value, bool | np.bool_):
        return str(bool(value))
    return f"{value:,}" if isinstance(value, int | np.integer) else f"{value:,.6g}"


def cut(text: str, width: int = 18) -> str:
    """Return `text` on one line of at most `width` characters."""
    text = " ".join(text.split())
    return text if len(text) <= width else text[: width - 1] + "…"
