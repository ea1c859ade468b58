"""How often each problem is named where it is, and where it is not: a line a code.

Rows are those of `run`; "repaired" counts, of the runs that the doctor may repair by itself and that
have a gap to their healthy twin, those of which nine tenths were closed.
"""

from __future__ import annotations

from collections.abc import Iterable

from benchmarks.doctor.table import Row, closed, repairable, roots, truth, within

SEVERITIES = ("problem", "hint")


def rates(rows: list[Row], order: Iterable[str]) -> list[list[str]]:
    """Return the lines of a table, its head first, a line for every code of `order`."""
    halves = [h for h in ("tuned", "drawn") if any(r["half"] == h for r in rows)]
    healthy = [r for r in rows if not r["code"] and "error" not in r]
    sick = [r for r in rows if r["code"]]
    lines = [
        ["code", *(f"named first, {h} half" for h in halves), "among the first three",
         f"in {len(healthy)} healthy runs", "wrongly in other sick runs", "repaired"]
    ]  # fmt: skip
    for code in order:
        mine = [r for r in sick if r["code"] == code]
        fit = [r for r in mine if repairable(r)]
        wrong = sum(code in roots(r) and code not in truth(r) for r in sick)
        lines.append([
            code,
            *(_share([within(r, 1) for r in mine if r["half"] == h]) for h in halves),
            _share([within(r, 3) for r in mine]),
            alarms(healthy, code),
            str(wrong),
            _share([closed(r) for r in fit]),
        ])  # fmt: skip
    return lines


def alarms(rows: list[Row], code: str) -> str:
    """Return in how many rows a code is called a problem or a hint: "0", "1 problem", "4 hints"."""
    said = []
    for severity in SEVERITIES:
        runs = sum(
            any((f["code"], f["severity"]) == (code, severity) for f in r.get("findings", []))
            for r in rows
        )
        if runs:
            said.append(f"{runs} {severity}{'s' * (runs > 1)}")
    return ", ".join(said) or "0"


def _share(hits: list[bool]) -> str:
    return f"{sum(hits)}/{len(hits)}" if hits else "-"
