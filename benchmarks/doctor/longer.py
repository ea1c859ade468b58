"""Measure what the doctor costs as the same runs are planned longer.

    python -m benchmarks.doctor.longer [--times 1 2 4 8] [--seed 0] [--table]

from the repository's root. Of every setting of the tuned half the first sick and the first healthy
case are trained, diagnosed and repaired with the epochs of the setting times each factor, one
after the other on one thread. One JSON row a (commit, case, factor) is appended to
`results/*-longer.jsonl`; rows that are there are not measured again. `--table` only prints medians
of processor seconds, in runs of that length, of the newest commit that was measured.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import json
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from benchmarks.doctor.cases import SETTINGS, cases
from benchmarks.doctor.run import RESULTS, append, plain_run, warm
from benchmarks.doctor.setup import Case, Setup, build
from benchmarks.doctor.table import markdown
from benchmarks.speed.stats import commit, machine, versions

from gipi.doctor import diagnose
from gipi.doctor.copies import duplicate

Settings = Mapping[str, Callable[[int], Setup]]


def longer(settings: Settings, times: int) -> Settings:
    """Return the settings with `times` as many epochs each."""

    def of(make: Callable[[int], Setup]) -> Callable[[int], Setup]:
        def made(seed: int) -> Setup:
            setup = make(seed)
            return dataclasses.replace(setup, epochs=setup.epochs * times)

        return made

    return {name: of(make) for name, make in settings.items()}


def chosen() -> list[Case]:
    """Return the first sick and the first healthy case of every setting of the tuned half."""
    first: dict[tuple[str, bool], Case] = {}
    for case in cases("tuned", ""):
        first.setdefault((case.setting, bool(case.truth)), case)
    return list(first.values())


def judge(case: Case, times: int, seed: int) -> dict[str, Any]:
    """Return processor seconds of the run, the diagnosis and the repair."""
    exp = build(case, longer(SETTINGS, times), seed).sick
    twin, seconds = duplicate(exp), {}
    began = time.process_time()
    plain_run(twin)
    seconds["run"] = time.process_time() - began
    began = time.process_time()
    diagnosis = diagnose(exp)
    seconds["diagnose"] = time.process_time() - began
    began = time.process_time()
    treatment = diagnosis.repair()
    seconds["repair"] = time.process_time() - began
    return {
        "planned": exp.total_steps, "sick": bool(case.truth), "repaired": treatment is not None,
        "found": [f.code for f in diagnosis.findings],
        "seconds": {k: round(v, 4) for k, v in seconds.items()},
    }  # fmt: skip


def read() -> list[dict[str, Any]]:
    """Return all rows."""
    paths = sorted(RESULTS.glob("*-longer.jsonl"))
    return [json.loads(line) for path in paths for line in path.read_text().splitlines()]


def table(rows: list[dict[str, Any]]) -> str:
    """Return a line a factor: medians of all runs, and with the repair of those repaired."""
    rows = [r for r in rows if r["commit"] == rows[-1]["commit"]]
    lines = [
        ["epochs", "runs", "steps", "diagnose", "diagnose + repair", "the same, repaired runs"]
    ]
    for times in sorted({r["times"] for r in rows}):
        part = [r for r in rows if r["times"] == times]

        def median(part: list[dict[str, Any]], *names: str) -> str:
            values = [sum(r["seconds"][n] for n in names) / r["seconds"]["run"] for r in part]
            return f"{statistics.median(values):.2f}" if values else "-"

        treated = [r for r in part if r["repaired"]]
        lines.append([
            f"x {times}", str(len(part)), f"{statistics.median(r['planned'] for r in part):g}",
            median(part, "diagnose"), median(part, "diagnose", "repair"),
            f"{median(treated, 'diagnose', 'repair')} ({len(treated)})",
        ])  # fmt: skip
    return markdown(lines)


def main() -> None:
    """Run what is missing, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--times", nargs="*", type=int, default=[1, 2, 4, 8])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--table", action="store_true")
    asked = parser.parse_args()
    if not asked.table:
        torch.set_num_threads(1)
        head = commit()
        path = RESULTS / f"{datetime.date.today().isoformat()}-longer.jsonl"  # noqa: DTZ011
        known = {(r["commit"], r["case"], r["times"], r["seed"]) for r in read()}
        about = {"machine": machine(), "versions": versions("torch", "numpy", "scikit-learn")}
        warm()
        for case in chosen():
            for times in asked.times:
                key = (head, case.name, times, asked.seed)
                if key not in known:
                    names = dict(zip(("commit", "case", "times", "seed"), key, strict=True))
                    append(path, names | judge(case, times, asked.seed) | about)
    print(table(read()))


if __name__ == "__main__":
    main()
