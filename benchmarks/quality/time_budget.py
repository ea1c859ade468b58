"""Accuracy against time: `gipi train DATA --time T`, whole processes, one row per run.

    GIPI_DATA=folder python time_budget.py [fashion-mnist:1m cifar10:10m ...] [--seeds 0 1 2] [--again]

Every run is a process of its own, from typing the command to its exit; nothing but the data, the
time and the seed is given. A row holds test accuracy, the seconds by this script's clock, and what
was chosen. Rows of the same commit, work and seed are not run twice, so that the table can be
filled over several days. Each test evaluation is written to test_evaluations.md.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "speed"))

from stats import commit, machine, versions  # noqa: E402

RESULTS = HERE / "results" / "time_budget.json"
WORKS = ("fashion-mnist:1m", "fashion-mnist:5m", "fashion-mnist:10m", "cifar10:10m", "cifar10:20m")
SECONDS = {"s": 1, "m": 60, "h": 3600}


def load() -> list[dict[str, Any]]:
    """Return the rows so far."""
    return json.loads(RESULTS.read_text())["rows"] if RESULTS.exists() else []


def run(work: str, seed: int) -> dict[str, Any]:
    """Train once and return the row."""
    data, budget = work.split(":")
    with tempfile.TemporaryDirectory() as folder:
        words = [sys.executable, "-m", "gipi", "train", data, "--time", budget, "--seed", str(seed)]
        words += ["--out", str(Path(folder) / "run"), "--json"]
        began = time.time()
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        seconds = time.time() - began
        if done.returncode:
            raise SystemExit(f"{' '.join(words)} failed:\n{done.stderr[-2000:]}")
        said = json.loads(done.stdout.strip().splitlines()[-1])
        setup = json.loads((Path(folder) / "run" / "setup.json").read_text())
    asked = float(budget[:-1]) * SECONDS[budget[-1]]
    plan = [line for line in done.stderr.splitlines() if line.startswith("model:")]
    return {
        "work": work, "seed": seed, "commit": commit(), "accuracy": said["metrics"]["test/accuracy"],
        "val": said["metrics"]["val/accuracy"], "seconds": round(seconds, 2),
        "of_budget": round(seconds / asked, 4), "epochs": said["epochs"], "steps": said["steps"],
        "samples_per_s": round(said["samples_per_s"], 1), "plan": plan,
        "setup": {k: setup[k] for k in ("precision", "layout", "threads", "gemm", "rows")},
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "load": [round(x, 2) for x in os.getloadavg()], "versions": versions("torch", "numpy"),
    }  # fmt: skip


def main() -> None:
    """Run what is missing and print one line a run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("works", nargs="*", default=list(WORKS))
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument("--again", action="store_true")
    asked = parser.parse_args()
    for seed in asked.seeds:
        for work in asked.works:
            rows = load()
            key = (commit(), work, seed)
            known = [r for r in rows if (r["commit"], r["work"], r["seed"]) == key]
            if known and not asked.again:
                continue
            row = run(work, seed)
            rows = [r for r in load() if r not in known] + [row]
            RESULTS.parent.mkdir(exist_ok=True)
            RESULTS.write_text(json.dumps({"machine": machine(), "rows": rows}, indent=1) + "\n")
            day, data = row["time"][:10], work.split(":")[0]
            command = f"`gipi train {data} --time {work.split(':')[1]} --seed {seed}`"
            with (HERE / "test_evaluations.md").open("a") as log:
                log.write(
                    f"| {day} | {row['commit']} | {data} | {command} | accuracy {row['accuracy']:.4f} |\n"
                )
            print(f"{work} seed {seed}: {row['accuracy']:.4f} in {seconds_of(row)}", flush=True)


def seconds_of(row: dict[str, Any]) -> str:
    """Return the duration for people."""
    return (
        f"{row['seconds']:.1f} s ({row['of_budget']:.3f} of the budget), {row['epochs']:.1f} epochs"
    )


if __name__ == "__main__":
    main()
