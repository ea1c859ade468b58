"""Score against time: `gipi train DATA --time T`, whole processes, one row per run.

    GIPI_DATA=folder python time_budget.py [fashion-mnist:1m bccd:15m ...] [--seeds 0 1 2] [--again]
    GIPI_DATA=folder python time_budget.py camvid:20m --rehearse [--time 60s | --steps 100] [--set lr=2e-3]
    python time_budget.py --table

Every run is a process of its own, from typing the command to its exit; nothing but the data, the
time, the seed and the settings of `WORKS` is given. A row holds the score on the test rows, the
seconds by this script's clock, and what was chosen. Rows of the same commit, work and seed are not
run twice, so that the table can be filled over several days. Each test evaluation is written to
test_evaluations.md.

A rehearsal trains and scores on validation rows alone, opens no test row, writes nothing, and is what
settings may be chosen by. `--table` prints, per work, the newest commit's rows and their median.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "speed"))

from stats import commit, machine, versions  # noqa: E402

RESULTS = HERE / "results" / "time_budget.json"
SECONDS = {"s": 1, "m": 60, "h": 3600}


@dataclass(frozen=True)
class Work:
    """A data set, its budget ("": the recipe's own length) and settings, and the score to reach."""

    data: str
    time: str
    metric: str
    bound: float
    settings: tuple[str, ...] = ()
    below: bool = False

    def words(self, seed: int) -> list[str]:
        """Return the command line behind `gipi`."""
        words = ["train", self.data, *(["--time", self.time] if self.time else [])]
        words += ["--seed", str(seed)]
        for setting in self.settings:
            words += ["--set", setting]
        return words

    def met(self, score: float) -> bool:
        """Return whether a score reaches the bound."""
        return score < self.bound if self.below else score >= self.bound


WORKS = {
    "fashion-mnist:1m": Work("fashion-mnist", "1m", "accuracy", 0.92),
    "fashion-mnist:5m": Work("fashion-mnist", "5m", "accuracy", 0.94),
    "fashion-mnist:10m": Work("fashion-mnist", "10m", "accuracy", 0.946),
    "cifar10:10m": Work("cifar10", "10m", "accuracy", 0.91),
    "cifar10:20m": Work("cifar10", "20m", "accuracy", 0.93),
    "camvid:20m": Work("camvid", "20m", "mean_iou", 0.40, ("image_size=240",)),
    "face-keypoints:10m": Work("face-keypoints", "10m", "nme", 0.06, below=True),
    "face-landmarks:10m": Work(
        "face-keypoints", "10m", "nme", 0.06, ("model=landmarks",), below=True
    ),
    "bccd:15m": Work("bccd", "15m", "ap50", 0.75),
    "nsmc:10m": Work("nsmc", "10m", "accuracy", 0.85),
    "conll2003:15m": Work("conll2003", "15m", "entity_f1", 0.84),
    "multi30k:25m": Work("multi30k", "25m", "bleu", 35.0),
    "wikitext2:15m": Work("wikitext2", "15m", "bits_per_byte", 1.6, below=True),
    "etth1": Work("etth1", "", "mse", 0.375, below=True),
}


def load() -> list[dict[str, Any]]:
    """Return the rows so far."""
    return json.loads(RESULTS.read_text())["rows"] if RESULTS.exists() else []


def run(name: str, seed: int) -> dict[str, Any]:
    """Train once and return the row."""
    work = WORKS[name]
    load_before = os.getloadavg()
    with tempfile.TemporaryDirectory() as folder:
        words = [sys.executable, "-m", "gipi", *work.words(seed)]
        words += ["--out", str(Path(folder) / "run"), "--json"]
        began = time.time()
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        seconds = time.time() - began
        if done.returncode:
            raise SystemExit(f"{' '.join(words)} failed:\n{done.stderr[-2000:]}")
        said = json.loads(done.stdout.strip().splitlines()[-1])
        setup = json.loads((Path(folder) / "run" / "setup.json").read_text())
    asked = float(work.time[:-1]) * SECONDS[work.time[-1]] if work.time else None
    plan = [line for line in done.stderr.splitlines() if line.startswith(("model:", "settings:"))]
    score = said["metrics"][f"test/{work.metric}"]
    return {
        "work": name, "seed": seed, "commit": commit(), "metric": work.metric, "score": score,
        "bound": work.bound, "met": work.met(score), "metrics": said["metrics"],
        "seconds": round(seconds, 2), "of_budget": round(seconds / asked, 4) if asked else None,
        "epochs": said["epochs"], "steps": said["steps"],
        "samples_per_s": round(said["samples_per_s"], 1), "plan": plan,
        "setup": {k: setup[k] for k in ("precision", "layout", "threads", "gemm", "rows")},
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "load": [round(x, 2) for x in load_before], "cores": len(os.sched_getaffinity(0)),
        "versions": versions("torch", "numpy"),
    }  # fmt: skip


def keep(row: dict[str, Any]) -> None:
    """Write the row, in place of an older one of its kind, and the look at the test rows."""
    key = ("commit", "work", "seed")
    rows = [r for r in load() if [r[k] for k in key] != [row[k] for k in key]] + [row]
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps({"machine": machine(), "rows": rows}, indent=1) + "\n")
    work = WORKS[row["work"]]
    with (HERE / "test_evaluations.md").open("a") as log:
        log.write(
            f"| {row['time'][:10]} | {row['commit']} | {work.data} "
            f"| `gipi {' '.join(work.words(row['seed']))}` | {row['metric']} {row['score']:.4f} |\n"
        )


def rehearse(name: str, seed: int, budget: dict[str, str], settings: list[str]) -> None:
    """Train for a time or for steps and print the scores on validation rows; no test row is opened."""
    from gipi.core import resolve
    from gipi.core.device import pick_device
    from gipi.train import fit
    from gipi.train.prepare import Own, prepare

    flags = {"data": WORKS[name].data, "seed": str(seed), **budget}
    layer = resolve.layer_from_flags(flags, [*WORKS[name].settings, *settings])
    ready = prepare([layer], Own())
    config, dataset = ready.config, ready.dataset
    size = min(int(config.batch_size), len(dataset.splits["train"]))
    device = pick_device(config.device)
    train = dataset.stream("train", batch_size=size, seed=config.seed,
                           augment=config.augment or (), device=device)  # fmt: skip
    val = dataset.stream("val", batch_size=16, shuffle=False, device=device)
    state = fit(ready.model, ready.task, train, config, val=val, schema=dataset.schema,
                device=device)  # fmt: skip
    scores = "  ".join(f"{k} {v:.4f}" for k, v in state.metrics.items())
    print(f"{name} {budget} {settings}: {state.step} steps, {scores}", flush=True)


def table() -> str:
    """Return, per work, the newest row of each seed, their median, and how many rows ever missed."""
    lines = ["| work | metric | newest score of each seed | median | wanted | of the budget, worst "
             "| threads | all runs, missed | commits |",
             "|---|---|---|--:|--:|--:|--:|--:|---|"]  # fmt: skip
    for name, work in WORKS.items():
        every = [r for r in load() if r["work"] == name]
        newest = {r["seed"]: r for r in every}
        if not newest:
            continue
        rows = [newest[seed] for seed in sorted(newest)]
        median = statistics.median(r["score"] for r in rows)
        shares = [r["of_budget"] for r in rows if r["of_budget"]]
        worst = f"{max(shares, key=lambda share: abs(share - 1)):.3f}" if shares else "-"
        scores = ", ".join(f"{r['score']:.4f}" for r in rows)
        sign = "<" if work.below else ">="
        commits = ", ".join(dict.fromkeys(r["commit"] for r in rows))
        threads = ", ".join(str(t) for t in sorted({r["setup"]["threads"] for r in rows}))
        missed = sum(not work.met(r["score"]) for r in every)
        lines.append(f"| {name} | {work.metric} | {scores} | {median:.4f} | {sign} {work.bound} "
                     f"| {worst} | {threads} | {len(every)}, {missed} | {commits} |")  # fmt: skip
    return "\n".join(lines)


def main() -> None:
    """Run what is missing and print one line a run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("works", nargs="*", default=list(WORKS))
    parser.add_argument("--seeds", nargs="*", type=int, default=[0, 1, 2])
    parser.add_argument("--again", action="store_true")
    parser.add_argument("--table", action="store_true", help="print what is there")
    parser.add_argument("--rehearse", action="store_true")
    parser.add_argument("--time", default="60s", help="of a rehearsal")
    parser.add_argument("--steps", help="of a rehearsal, in place of the time")
    parser.add_argument("--set", action="append", default=[], help="of a rehearsal")
    asked = parser.parse_args()
    if asked.table:
        print(table())
        return
    for seed in asked.seeds:
        for name in asked.works:
            if asked.rehearse:
                budget = {"steps": asked.steps} if asked.steps else {"time": asked.time}
                rehearse(name, seed, budget, asked.set)
                continue
            known = {(r["commit"], r["work"], r["seed"]) for r in load()}
            if (commit(), name, seed) in known and not asked.again:
                continue
            row = run(name, seed)
            keep(row)
            share = "" if row["of_budget"] is None else f" ({row['of_budget']:.3f} of the budget)"
            print(
                f"{name} seed {seed}: {row['metric']} {row['score']:.4f} "
                f"({'met' if row['met'] else 'not met'}: {row['bound']}) in {row['seconds']:.1f} s"
                f"{share}, {row['epochs']:.1f} epochs",
                flush=True,
            )


if __name__ == "__main__":
    main()
