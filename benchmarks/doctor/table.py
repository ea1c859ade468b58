"""The figures of the doctor's benchmark as Markdown, from `results/` alone.

    python -m benchmarks.doctor.table [--commit HASH] [--details] > results/DATE-doctor.md

Shares carry Wilson's 95 % interval over runs. Seeds of one case are no independent runs, so true
intervals are somewhat wider; the count of cases is printed beside. A run that broke or took too
long counts as one in which nothing was found (sick) and stands in a line of its own.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from benchmarks.doctor.run import RESULTS, read

from gipi.metrics.shares import wilson

Row = dict[str, Any]
ENOUGH = 0.9
"""Share of the gap to the healthy twin that a repair has to close."""
SE = 2.0
"""Standard errors beyond which a difference of held-out scores counts."""


@dataclass(frozen=True)
class Share:
    """A figure: hits of runs; target and whether more is better (">=") or less ("<=")."""

    name: str
    hits: int
    runs: int
    sense: str = ""
    target: float = 0.0

    @property
    def value(self) -> float:
        """The share, NaN without a run."""
        return self.hits / self.runs if self.runs else math.nan

    @property
    def met(self) -> str:
        """Return yes or no where there is a target and a run."""
        if not self.sense or not self.runs:
            return ""
        return (
            "yes"
            if (self.value >= self.target if self.sense == ">=" else self.value <= self.target)
            else "no"
        )

    def cells(self) -> list[str]:
        """Return the cells of a line of a table."""
        low, high = wilson(self.value, self.runs)
        share = f"{100 * self.value:.1f} %" if self.runs else "-"
        asked = f"{self.sense} {100 * self.target:g} %" if self.sense else ""
        return [
            self.name,
            share,
            f"{100 * low:.1f}-{100 * high:.1f}" if self.runs else "",
            f"{self.hits}/{self.runs}",
            asked,
            self.met,
        ]


# ---------------------------------------------------------------------- what a row says


def truth(row: Row) -> set[str]:
    """Return the codes that are right, none for a healthy run."""
    return {row["code"], *row["also"]} if row["code"] else set()


def codes(row: Row) -> list[str]:
    """Return the codes found, as ranked."""
    return [f["code"] for f in row.get("findings", [])]


def within(row: Row, first: int) -> bool:
    """Whether the true cause is among the first findings."""
    return bool(truth(row) & set(codes(row)[:first]))


def roots(row: Row) -> list[str]:
    """Return the codes of problems that are said to be causes and no consequences."""
    return [
        f["code"]
        for f in row.get("findings", [])
        if f["severity"] == "problem" and not f["parents"]
    ]


def has(row: Row, severity: str, *, key: str = "findings") -> bool:
    """Whether a finding of that severity is there."""
    return any(f["severity"] == severity for f in row.get(key, []))


def repairable(row: Row) -> bool:
    """Whether the doctor may repair it by itself, and there is a gap to close."""
    gap, se = row.get("scores", {}).get("gap", (0.0, 0.0))
    return bool(row["code"]) and row["auto"] and float(gap) > SE * float(se) and float(gap) > 0


def closed(row: Row) -> bool:
    """Whether the repair closed enough of the gap to the healthy twin."""
    gain = row.get("scores", {}).get("gain")
    return gain is not None and float(gain[0]) >= ENOUGH * float(row["scores"]["gap"][0])


def nearly(row: Row) -> bool:
    """Whether it closed enough, or what is left may be the noise of the held-out rows."""
    rest = row.get("scores", {}).get("rest")
    if rest is None:
        return closed(row)
    left = (1 - ENOUGH) * float(row["scores"]["gap"][0])
    return closed(row) or float(rest[0]) <= left + SE * float(rest[1])


def worse(row: Row) -> bool:
    """Whether a repair made held-out rows worse by more than two standard errors."""
    gain = row.get("scores", {}).get("gain")
    return gain is not None and float(gain[0]) < -SE * float(gain[1])


# ---------------------------------------------------------------------- figures


def count(
    name: str, rows: Iterable[Row], hit: Callable[[Row], bool], sense: str = "", target: float = 0.0
) -> Share:
    """Return the share of rows that hit."""
    listed = list(rows)
    return Share(name, sum(map(bool, map(hit, listed))), len(listed), sense, target)


def figures(rows: list[Row]) -> list[Share]:
    """Return the shares that the doctor is asked to reach."""
    sick = [r for r in rows if r["code"]]
    healthy = [r for r in rows if not r["code"] and "error" not in r]
    treated = [r for r in rows if "after" in r and r["code"]]
    named = [(r, c) for r in rows for c in roots(r)]
    early = [r["found_share"] if r.get("found_share") is not None else math.inf for r in sick]
    return [
        count("true cause among the first three", sick, lambda r: within(r, 3), ">=", 0.95),
        count("true cause ranked first", sick, lambda r: within(r, 1), ">=", 0.85),
        count("the fault's own code first", sick, lambda r: codes(r)[:1] == [r["code"]]),
        Share("named problems that are true", sum(c in truth(r) for r, c in named), len(named), ">=", 0.90),
        count("healthy runs with a problem", healthy, lambda r: has(r, "problem"), "<=", 0.02),
        count("healthy runs with a hint", healthy, lambda r: has(r, "hint"), "<=", 0.08),
        count("repaired twins with a problem", treated, lambda r: has(r, "problem", key="after"), "<=", 0.02),
        count("repaired twins with a hint", treated, lambda r: has(r, "hint", key="after"), "<=", 0.08),
        count("repairable runs brought to 90 % of the gap", filter(repairable, sick), closed, ">=", 0.85),
        count("the same, or what is left is within two standard errors", filter(repairable, sick), nearly),
        count("runs made worse by a repair", [r for r in rows if "gain" in r.get("scores", {})], worse, "<=", 0.0),
        Share("found before the first step", sum(v == 0 for v in early), len(early), ">=", 0.40),
        Share("found within a tenth of the steps", sum(v <= 0.1 for v in early), len(early), ">=", 0.80),
        count("runs that broke or took too long", rows, lambda r: "error" in r),
        count("runs that a diagnosis did not leave as they were", rows, lambda r: r.get("left_alone") is False, "<=", 0.0),
        count("runs in which a rule failed", rows, lambda r: bool(r.get("broken")), "<=", 0.0),
    ]  # fmt: skip


def costs(rows: list[Row]) -> list[list[str]]:
    """Return medians and worst values of what looking and repairing cost, in runs."""
    timed = [r for r in rows if "seconds" in r and r["seconds"].get("run")]
    if not timed:
        return []

    def ratio(*names: str, of: list[Row]) -> list[float]:
        return [sum(r["seconds"].get(n, 0.0) for n in names) / r["seconds"]["run"] for r in of]

    treated = [r for r in timed if "gain" in r.get("scores", {})]
    lines = [
        ("diagnose / run", ratio("diagnose", of=timed), "median <= 1.5"),
        ("(diagnose + repair) / run, all", ratio("diagnose", "repair", of=timed), "median <= 3"),
        ("(diagnose + repair) / run, repaired", ratio("diagnose", "repair", of=treated), "median <= 3"),
        ("passes of diagnose / steps of the run",
         [r["passes"]["diagnose"] / max(1, r["planned"]) for r in timed if "passes" in r], ""),
        ("seconds before the first step", [r["seconds"]["preflight"] for r in timed if "preflight" in r["seconds"]], "<= 2 s"),
    ]  # fmt: skip
    return [
        [
            name,
            f"{statistics.median(v):.2f}",
            f"{sorted(v)[int(0.9 * (len(v) - 1))]:.2f}",
            f"{max(v):.2f}",
            str(len(v)),
            asked,
        ]
        for name, v, asked in lines
        if v
    ]


def baseline_rows(rows: list[Row], who: str) -> list[Row]:
    """Return rows of a published rule set in the form of the doctor's, verdicts as findings.

    A verdict is named by the true code where it may stand for it, else by its own name.
    """
    made = []
    for row in rows:
        found, shares = [], []
        for v in row.get("said", {}).get(who, []):
            right = truth(row) & set(v["codes"])
            found.append(
                {"code": min(right) if right else v["name"], "severity": "problem", "parents": []}
            )
            if right:
                shares.append(v["step"] / max(1, row["planned"]))
        made.append({**row, "findings": found, "found_share": min(shares) if shares else None})
    return made


COMPARED = (
    "true cause among the first three", "true cause ranked first", "named problems that are true",
    "healthy runs with a problem", "found before the first step", "found within a tenth of the steps",
)  # fmt: skip


def compared(rows: list[Row], others: list[Row]) -> list[list[str]]:
    """Return a line a figure, a column a rule set, over the same cases and seeds."""
    keys = {(r["half"], r["case"], r["seed"]) for r in rows} & {
        (r["half"], r["case"], r["seed"]) for r in others
    }
    kept = [r for r in others if (r["half"], r["case"], r["seed"]) in keys]
    sets = {"gipi": [r for r in rows if (r["half"], r["case"], r["seed"]) in keys]}
    names = sorted({name for r in kept for name in r.get("said", {})})
    sets |= {name: baseline_rows(kept, name) for name in names}
    found = {who: {s.name: s for s in figures(part)} for who, part in sets.items()}
    lines = [["", *sets]]
    for name in COMPARED:
        cells = []
        for who in sets:
            s = found[who][name]
            low, high = wilson(s.value, s.runs)
            cells.append(
                f"{100 * s.value:.1f} % ({100 * low:.1f}-{100 * high:.1f})" if s.runs else "-"
            )
        lines.append([name, *cells])
    return lines


def markdown(lines: list[list[str]]) -> str:
    """Return a table; the first line is its head."""
    head, *body = lines
    said = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join(said + ["| " + " | ".join(line) + " |" for line in body])


def by(rows: list[Row], key: str) -> list[list[str]]:
    """Return a line for every value of a key of the sick rows."""
    parts: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        if row["code"]:
            parts[str(row[key])].append(row)
    lines = [[key, "runs", "first", "first three", "repairable", "closed"]]
    for name, part in sorted(parts.items()):
        fit = [r for r in part if repairable(r)]
        lines.append([
            name, str(len(part)), str(sum(within(r, 1) for r in part)),
            str(sum(within(r, 3) for r in part)), str(len(fit)), str(sum(map(closed, fit))),
        ])  # fmt: skip
    return lines


def alarms(rows: list[Row]) -> list[list[str]]:
    """Return the healthy cases with findings, and what was found."""
    lines = [["healthy case", "seed", "found"]]
    for r in rows:
        if not r["code"] and r.get("findings"):
            said = [f["code"] + ("" if f["severity"] == "problem" else "?") for f in r["findings"]]
            lines.append([r["case"], str(r["seed"]), " ".join(said)])
    return lines


def missed(rows: list[Row]) -> list[list[str]]:
    """Return the sick cases whose cause is not first, and what was found instead."""
    lines = [["code", "case", "seed", "found"]]
    for r in rows:
        if r["code"] and not within(r, 1):
            said = [
                f["code"] + ("" if f["severity"] == "problem" else "?")
                for f in r.get("findings", [])
            ]
            lines.append(
                [r["code"], r["case"], str(r["seed"]), r.get("error") or " ".join(said) or "-"]
            )
    return lines


def unrepaired(rows: list[Row]) -> list[list[str]]:
    """Return the repairable runs whose gap stayed open, and repairs that did harm."""
    lines = [["code", "case", "seed", "sick", "repaired", "healthy", "why"]]
    for r in rows:
        if worse(r) or (repairable(r) and not closed(r)):
            s = r["scores"]
            after = f"{float(s['repaired'][0]):.3f}" if "repaired" in s else "-"
            why = "made worse" if worse(r) else r.get("why_not") or "; ".join(r.get("changes", []))
            lines.append([r["code"] or "healthy", r["case"], str(r["seed"]), f"{float(s['sick'][0]):.3f}",
                          after, f"{float(s['healthy'][0]):.3f}", why.replace("|", "/")[:160]])  # fmt: skip
    return lines


def newest(rows: list[Row]) -> list[Row]:
    """Return the rows of the commit that was measured last."""
    last = max(rows, key=lambda r: r["time"], default={"commit": ""})["commit"]
    return [r for r in rows if r["commit"] == last]


def about(rows: list[Row]) -> str:
    """Return when, of what and on what these rows were measured."""
    last = max(rows, key=lambda r: r["time"])
    machine = last.get("machine", {})
    versions = ", ".join(f"{k} {v}" for k, v in last.get("versions", {}).items())
    loads = statistics.median(r.get("load", 0.0) for r in rows)
    return (
        f"{last['time'][:10]}, commit {last['commit']}; {machine.get('processor', '?')}, {machine.get('cores', '?')} cores, "
        f"{machine.get('memory_gib', '?')} GiB; Python {machine.get('python', '?')}, {versions}; one thread, "
        f"median load {loads:.1f}; seeds {', '.join(str(s) for s in sorted({r['seed'] for r in rows}))}."
    )


def report(rows: list[Row], others: list[Row], *, details: bool = False) -> str:
    """Return the whole page for the rows of one commit."""
    if not rows:
        return "no rows"
    parts = [f"# The doctor on {len({r['case'] for r in rows})} cases\n\n{about(rows)}"]
    for half in ("tuned", "drawn"):
        part = [r for r in rows if r["half"] == half]
        if not part:
            continue
        sick, healthy = (
            {r["case"] for r in part if bool(r["code"]) == ill} for ill in (True, False)
        )
        parts.append(
            f"## {half.capitalize()} half: {len(sick)} sick and {len(healthy)} healthy cases, {len(part)} runs"
        )
        head = ["figure", "share", "95 % interval", "runs", "asked", "met"]
        parts.append(markdown([head, *(s.cells() for s in figures(part))]))
        parts.append(
            markdown([["cost", "median", "nine tenths", "worst", "runs", "asked"], *costs(part)])
        )
        mine = [r for r in others if r["half"] == half]
        if mine:
            parts.append(
                "Published rule sets on the same runs (a verdict counts where it may stand for the fault):"
            )
            parts.append(markdown(compared(part, mine)))
        parts.append(markdown(by(part, "code")))
        if details:
            parts += [markdown(by(part, "data")), markdown(by(part, "net")), markdown(alarms(part)),
                      markdown(missed(part)), markdown(unrepaired(part))]  # fmt: skip
    return "\n\n".join(parts) + "\n"


def main() -> None:
    """Print the page for a commit, the one measured last by default."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--commit", default="")
    parser.add_argument("--details", action="store_true")
    asked = parser.parse_args()
    rows = read()
    chosen = [r for r in rows if r["commit"] == asked.commit] if asked.commit else newest(rows)
    others = [
        json.loads(line)
        for p in sorted(RESULTS.glob("*-baselines.jsonl"))
        for line in p.read_text().splitlines()
    ]
    print(report(chosen, others, details=asked.details))


if __name__ == "__main__":
    main()
