"""The audit in words: lines of plain text for a terminal or a page."""

from __future__ import annotations

import unicodedata
from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

MARKS = {"error": "✗", "warning": "!", "note": "·"}


def audit_lines(facts: Mapping[str, Any]) -> list[str]:
    """Return an audit as plain lines: what it is, the columns, the classes, the findings.

    facts  what `Audit.to_dict` returns, so that a saved audit can be shown too
    """
    what = f"{facts['name']}: {facts['rows']:,} rows, {counted(len(facts['fields']), 'column')}"
    target = facts["target"]
    out = [what + (f", {facts['task']} '{target}'" if target else ", no target")]
    if facts["task_reason"]:
        out.append(f"  task      {facts['task']} ({facts['task_reason']})")
    if facts["splits"]:
        out.append("  given     " + ", ".join(f"{k} {n:,}" for k, n in facts["splits"].items()))
    origin = [t for t in (facts["citation"], facts["licence"]) if t]
    out += ["  source    " + "; ".join(origin)] if origin else []
    out += ["", *_table(facts["fields"])]
    if facts["classes"]:
        out += ["", "classes", *_class_lines(facts["classes"], facts["rows"])]
    if facts["target_facts"]:
        values = ", ".join(f"{k} {short(v)}" for k, v in facts["target_facts"].items())
        out += ["", f"target    {values}"]
    if facts["pictures"].get("forms"):
        forms = ", ".join(f"{k} ({n:,})" for k, n in facts["pictures"]["forms"].items())
        out += ["", f"pictures  {forms}"]
    out += ["", "findings" if facts["findings"] else "findings  none"]
    for f in facts["findings"]:
        out.append(f"  {MARKS[f['level']]} {f['message']}" + (f"  → {f['do']}" if f["do"] else ""))
    out += [f"  {MARKS['note']} {note}" for note in facts["notes"]]
    return [*out, "", facts["sampled"]] if facts["sampled"] else out


def _table(fields: Sequence[Mapping[str, Any]], most: int = 60) -> list[str]:
    head = ("column", "kind", "role", "missing", "distinct", "values", "why")
    rows = [_row(f) for f in fields[:most]]
    widths = [max(_width(r[i]) for r in (head, *rows)) for i in range(len(head) - 1)]
    lines = []
    for row in (head, *rows):
        cells = [
            cell.rjust(width) if i in (3, 4) else _pad(cell, width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=False))
        ]
        lines.append("  ".join([*cells, row[-1]]).rstrip())
    if len(fields) > most:
        kinds = Counter(f"{f['kind']} ({f['role']})" for f in fields[most:])
        rest = ", ".join(f"{n:,} {k}" for k, n in kinds.most_common())
        lines.append(f"... and {len(fields) - most:,} more: {rest}")
    return lines


def _row(f: Mapping[str, Any]) -> tuple[str, ...]:
    missing = f"{f['missing']:,}" if f["missing"] else ""
    distinct = "" if f["distinct"] is None else f"{f['distinct']:,}"
    return cut(f["name"], 28), f["kind"], f["role"], missing, distinct, f["values"], f["reason"]


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
