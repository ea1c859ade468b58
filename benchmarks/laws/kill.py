"""Kills a training process at random moments and checks that nothing but time is lost.

    python benchmarks/laws/kill.py --kills 200 --out benchmarks/results/kill.json

For each work a reference run is left alone; then runs of the same request are killed (SIGKILL) at
random moments, whatever they are doing, and resumed until one ends by itself, over and over, until
the number of kills is reached. After every kill each checkpoint folder must be readable, and every
run that ends must have the SHA-256 of the reference's weights. The moment is drawn over the whole
life of the process; checkpoints are written every few steps so that many kills fall into saving
and pruning (counted by what they leave behind).

A killed process is a fork of one that has imported gipi, which saves the import of torch; works
that need the folder of real data (GIPI_DATA) are left out where there is none, and said so.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

WORKS = {
    "digits-mlp": (
        "train", "digits", "--model", "mlp", "--steps", "240", "--save-every", "9",
        "--set", "model.dropout=0.1",
    ),
    "fashion-lenet": (
        "train", "fashion-mnist", "--model", "lenet5", "--steps", "90", "--save-every", "7",
        "--batch-size", "64", "--set", "augment=[flip, shift, cutout]",
    ),
    "table-mlp": (
        "train", "breast-cancer", "--model", "mlp", "--steps", "240", "--save-every", "5",
        "--set", "ema=0.95",
    ),
}  # fmt: skip
PINNED = (
    "--seed", "1", "--quiet", "--precision", "fp32", "--set", "threads=1",
    "--set", "layout=contiguous", "--set", "gemm=native",
)  # fmt: skip
"""Given, not tried: on a busy machine each fresh run would choose its own arithmetic."""


@dataclass
class Tally:
    """What the kills of one work led to."""

    kills: int = 0
    unreadable: int = 0
    left_behind: int = 0
    before_first: int = 0
    ended: int = 0
    different: int = 0
    failures: list[str] = field(default_factory=list)


def fork(arguments: list[str], log: Path) -> int:
    """Start `gipi` with these arguments in a forked process; return its id."""
    pid = os.fork()
    if pid:
        return pid
    os.setsid()
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    from gipi.cli import main

    os._exit(main(arguments))
    return 0


def wait(pid: int, limit: float) -> int | None:
    """Return the exit status once the process ends; None when `limit` seconds pass first."""
    end = time.perf_counter() + limit
    while time.perf_counter() < end:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    return None


def sha(run: Path) -> str:
    """Return the hash of the final weights of a finished run."""
    return str(json.loads((run / "result.json").read_text())["weights_sha256"])


def inspect(run: Path, tally: Tally) -> None:
    """Read every checkpoint of a killed run; count the damaged and the half-written."""
    from gipi.core.errors import CheckpointError
    from gipi.train import checkpoint

    folder = run / "checkpoints"
    tally.left_behind += len(list(folder.glob(".step-*"))) if folder.is_dir() else 0
    for path in checkpoint.list_checkpoints(run):
        try:
            checkpoint.read(path)
        except CheckpointError as error:
            tally.unreadable += 1
            tally.failures.append(str(error))


def kill_work(name: str, kills: int, place: Path, rng: random.Random) -> Tally:
    """Kill runs of one work `kills` times."""
    tally, log = Tally(), place / f"{name}.log"
    request = [*WORKS[name], *PINNED]
    reference = place / f"{name}-reference"
    for _ in range(2):  # the first fills the caches of data and of measured choices
        shutil.rmtree(reference, ignore_errors=True)
        began = time.perf_counter()
        status = wait(fork([*request, "--out", str(reference)], log), 600)
        seconds = time.perf_counter() - began
        if status != 0:
            sys.exit(f"the reference run of {name} ended with {status}: see {log}")
    expected, number = sha(reference), 0
    while tally.kills < kills:
        number += 1
        run = place / f"{name}-{number}"
        arguments = [*request, "--out", str(run)]
        while True:
            if tally.kills < kills:
                status = wait(pid := fork(arguments, log), rng.uniform(0.05, 0.75) * seconds)
            else:
                status = wait(pid := fork(arguments, log), 600)
            if status is None:
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                tally.kills += 1
                inspect(run, tally)
                if (run / "config.yaml").exists() and (run / "split.json").exists():
                    arguments = ["resume", str(run), "--quiet"]
                else:  # killed before the run was set up: there is nothing to resume
                    tally.before_first += 1
                    shutil.rmtree(run, ignore_errors=True)
                continue
            tally.ended += 1
            if status != 0:
                tally.failures.append(f"{run.name} ended with {status}")
            elif sha(run) != expected:
                tally.different += 1
                tally.failures.append(f"{run.name}: other weights")
            shutil.rmtree(run, ignore_errors=True)
            break
    return tally


def main() -> int:
    """Run the works, print and save what happened; exit 1 unless nothing was lost."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--works", default=",".join(WORKS))
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    works = [w for w in arguments.works.split(",") if w]
    if not os.environ.get("GIPI_DATA") and "fashion-lenet" in works:
        print("fashion-lenet is left out: GIPI_DATA names no folder")
        works.remove("fashion-lenet")
    os.environ["OMP_NUM_THREADS"] = "1"
    import torch

    import gipi.api
    import gipi.cli.commands  # noqa: F401  imported once, before the forks

    rng = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["GIPI_CACHE"] = str(Path(folder) / "cache")
        tallies = {}
        for i, name in enumerate(works):
            share = arguments.kills // len(works) + (i < arguments.kills % len(works))
            tallies[name] = kill_work(name, share, Path(folder), rng)
            print(name, tallies[name], flush=True)
    lost = sum(t.unreadable + t.different + len(t.failures) for t in tallies.values())
    if arguments.out:
        from gipi.core.device import machine

        record = {
            "date": time.strftime("%Y-%m-%d"), "machine": machine(), "seed": arguments.seed,
            "torch": torch.__version__, "works": {k: vars(v) for k, v in tallies.items()},
        }  # fmt: skip
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps(record, indent=1) + "\n")
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main())
