"""Markdown tables from the dated results: the newest row of each (work, variant).

    python table.py [pairs warm startup crowded] > tables.md

Used for the README and the documentation; nothing in a table is typed by hand.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from stats import RESULTS

WORKS = ("mlp", "lenet", "tiny", "resnet")
KINDS = ("pairs", "warm", "startup", "crowded")


def newest(kind: str) -> tuple[dict[tuple[str, str], dict[str, Any]], dict[str, Any]]:
    """Return the newest row of each (work, variant), and the machine of the newest file."""
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    machine: dict[str, Any] = {}
    for path in sorted(RESULTS.glob(f"*-{kind}.json")):
        found = json.loads(path.read_text())
        machine = found["machine"]
        for row in sorted(found["rows"], key=lambda r: r["time"]):
            rows[row["work"], row["variant"]] = row
    return rows, machine


def _lines(head: list[str], body: list[list[str]]) -> list[str]:
    align = ["---", *["--:"] * (len(head) - 1)]
    return ["| " + " | ".join(cells) + " |" for cells in (head, align, *body)]


def _range(found: dict[str, float], form: str) -> str:
    return f"{found['median']:{form}} ({found['low']:{form}}-{found['high']:{form}})"


def pairs() -> list[str]:
    """Return the table of `fit` over the hand-written loop."""
    rows, machine = newest("pairs")
    body = []
    for (work, variant), row in sorted(rows.items(), key=lambda r: (WORKS.index(r[0][0]), r[0][1])):
        ratio, extra = row["ratio"], row["overhead_us"]
        body.append(
            [work, variant, f"{row['fit_ms']:.3f}", f"{row['hand_ms']:.3f}",
             f"{ratio['median']:.3f}", f"{ratio['upper95']:.3f}",
             f"{extra['median']:.0f} ({extra['upper95']:.0f})",
             f"{ratio['n']} x {row['chunk_steps']}", row["commit"]]
        )  # fmt: skip
    head = ["work", "settings", "fit ms", "hand-written ms", "ratio", "95 % upper",
            "overhead us (upper)", "pairs x steps", "commit"]  # fmt: skip
    return [*_lines(head, body), *_foot(rows, machine)]


def warm() -> list[str]:
    """Return the tables of samples/s beside the textbook loop and the peers."""
    rows, machine = newest("warm")
    contenders = list(dict.fromkeys(variant for _, variant in rows))
    out: list[str] = []
    for kind, title in (("warm", "warm samples/s"), ("start", "samples/s from process start")):
        body = []
        for contender in contenders:
            cells = [contender]
            for work in WORKS:
                row = rows.get((work, contender))
                if row is None:
                    cells.append("-")
                elif "missing" in row:
                    cells.append("missing")
                else:
                    ratio = row.get(f"{kind}_ratio", {"median": float("nan")})["median"]
                    cells.append(f"{row[kind]['median']:,.0f} ({ratio:.2f}x)")
            body.append(cells)
        out += [f"**{title}** (in brackets: over the textbook loop)", ""]
        out += [*_lines(["", *WORKS], body), ""]
    body = []
    for contender in contenders:
        cells = [contender]
        for work in WORKS:
            row = rows.get((work, contender), {})
            scores = row.get("accuracy")
            cells.append(f"{sum(scores) / len(scores):.4f}" if scores else "-")
        body.append(cells)
    out += ["**validation accuracy after the same epochs**", "", *_lines(["", *WORKS], body)]
    reasons = [f"- {c} on {w}: {r['missing']}" for (w, c), r in rows.items() if "missing" in r]
    return [*out, *([""] + reasons if reasons else []), *_foot(rows, machine)]


def startup() -> list[str]:
    """Return the table of cold starts."""
    rows, machine = newest("startup")
    body = []
    for (_, variant), row in rows.items():
        extra = row.get("over_torch_s")
        ratio = row.get("over_torch_ratio")
        peak = row.get("peak_mib")
        body.append(
            [f"`{variant}`", _range(row["seconds"], ".3f"),
             f"{1e3 * extra['median']:.0f} ms ({ratio['median']:.2f}x)" if extra else "",
             f"{peak:.0f}" if peak else ""]
        )  # fmt: skip
    return [*_lines(["", "seconds (95 %)", "over torch", "peak MiB"], body), *_foot(rows, machine)]


def crowded() -> list[str]:
    """Return the table of loaded over idle throughput."""
    rows, machine = newest("crowded")
    body = [
        [work, contender, f"{sorted(r['idle'])[len(r['idle']) // 2]:,.0f}",
         f"{sorted(r['loaded'])[len(r['loaded']) // 2]:,.0f}", f"{r['share']:.3f}"]
        for (work, contender), r in rows.items()
    ]  # fmt: skip
    head = ["work", "contender", "idle samples/s", "loaded samples/s", "loaded / idle"]
    return [*_lines(head, body), *_foot(rows, machine)]


def _foot(rows: dict[tuple[str, str], dict[str, Any]], machine: dict[str, Any]) -> list[str]:
    if not rows:
        return ["", "No results yet."]
    dates = sorted({r["time"][:10] for r in rows.values()})
    torch = {r["versions"]["torch"] for r in rows.values() if "torch" in r.get("versions", {})}
    return [
        "",
        f"{machine['cores']} cores of {machine['processor']}, {machine['memory_gib']} GiB, Python "
        f"{machine['python']}, torch {', '.join(sorted(torch))}; {dates[0]}"
        + (f" to {dates[-1]}" if dates[-1] != dates[0] else "") + ".",
    ]  # fmt: skip


def main() -> None:
    """Print the tables that were asked for, or all."""
    makers = {"pairs": pairs, "warm": warm, "startup": startup, "crowded": crowded}
    for kind in sys.argv[1:] or KINDS:
        print(f"### {kind}\n")
        print("\n".join(makers[kind]()), "\n", sep="")


if __name__ == "__main__":
    main()
