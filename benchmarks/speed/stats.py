"""Medians with their uncertainty, the facts of the machine, and the dated file of results."""

from __future__ import annotations

import datetime
import json
import os
import platform
import random
import statistics
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def bootstrap(values: list[float], *, draws: int = 4000, seed: int = 0) -> dict[str, float]:
    """Return the median of `values` and its bootstrap 95 % interval (percentile method)."""
    rng = random.Random(seed)
    medians = sorted(statistics.median(rng.choices(values, k=len(values))) for _ in range(draws))
    return {
        "median": statistics.median(values),
        "low": medians[int(0.025 * draws)],
        "high": medians[int(0.975 * draws) - 1],
        "upper95": medians[int(0.95 * draws) - 1],
        "min": min(values),
        "max": max(values),
        "n": len(values),
    }


def commit() -> str:
    """Return the short commit of the library, with + where its sources differ from it."""
    here = Path(__file__).parent
    head = _git("rev-parse", "--short", "HEAD", where=here)
    changed = _git("status", "--porcelain", "--", "../../src", where=here)
    return head + ("+" if changed else "")


def _git(*words: str, where: Path) -> str:
    found = subprocess.run(["git", *words], cwd=where, capture_output=True, text=True, check=False)
    return found.stdout.strip() or ("unknown" if found.returncode else "")


def machine() -> dict[str, Any]:
    """Return what the figures depend on: processor, cores, memory, system, versions."""
    model = platform.processor()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = cpuinfo.read_text().splitlines()
        names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
        family = [line.split(":", 1)[1].strip() for line in lines if line.startswith("cpu family")]
        model = f"{names[0]} family {family[0]}" if names and family else model
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "processor": model, "cores": os.cpu_count(), "memory_gib": round(memory, 1),
        "system": platform.platform(), "python": platform.python_version(),
    }  # fmt: skip


def versions(*names: str) -> dict[str, str]:
    """Return the versions of the packages that are installed."""
    found = {}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


class Results:
    """The rows of one kind of measurement, one JSON file a day; a row is written at once.

    A row is known by (commit, work, variant); with `again` False, known rows are not measured twice.
    A row that was measured on another machine than the first one of its file says on which.
    """

    def __init__(self, kind: str) -> None:
        self.path = RESULTS / f"{datetime.date.today().isoformat()}-{kind}.json"  # noqa: DTZ011
        self.rows: list[dict[str, Any]] = []
        self.machine = machine()
        if self.path.exists():
            body = json.loads(self.path.read_text())
            self.rows, self.machine = body["rows"], body["machine"]

    def has(self, work: str, variant: str) -> bool:
        """Whether this commit's row is there already."""
        key = (commit(), work, variant)
        return any((r["commit"], r["work"], r["variant"]) == key for r in self.rows)

    def add(self, work: str, variant: str, **values: Any) -> None:
        """Write one row, replacing the one it repeats."""
        row = {"commit": commit(), "work": work, "variant": variant,
               "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
               "load": os.getloadavg(), **values}  # fmt: skip
        if (here := machine()) != self.machine:
            row["machine"] = here
        key = (row["commit"], work, variant)
        self.rows = [r for r in self.rows if (r["commit"], r["work"], r["variant"]) != key]
        self.rows.append(row)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        body = {"machine": self.machine, "rows": self.rows}
        self.path.write_text(json.dumps(body, indent=1) + "\n")
