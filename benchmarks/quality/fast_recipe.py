"""Which optimizer for FastNet: validation accuracy on CIFAR-10 after a few passes, equal otherwise.

    GIPI_DATA=folder python fast_recipe.py [--seeds 0 1 2] [--epochs 3] [--again]

Every run is a process of its own that leaves the given test rows out; rows of the same work, seed
and epochs are not run twice, so that the table can be filled over several days.
"""

from __future__ import annotations

import argparse
import datetime
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "speed"))

from stats import commit, machine, versions  # noqa: E402

RESULTS = HERE / "results" / "fast_recipe.json"
SAME = (
    "test=0", "model.widths=64,128,256", "precision=bf16", "layout=channels_last",
    "augment=[flip, crop]", "batch_size=512",
)  # fmt: skip
WORKS = {
    "adamw 0.0113": ("optimizer=adamw", "lr=0.0113"),
    "muon 0.015": ("optimizer=muon", "lr=0.015"),
    "muon 0.035": ("optimizer=muon", "lr=0.035"),
    "muon 0.07": ("optimizer=muon", "lr=0.07"),
    "muon 0.035, momentum 0.85": ("optimizer=muon", "lr=0.035", "optimizer.momentum=0.85"),
}


def load() -> list[dict[str, Any]]:
    """Return the rows so far."""
    return json.loads(RESULTS.read_text())["rows"] if RESULTS.exists() else []


def run(work: str, seed: int, epochs: float) -> dict[str, Any]:
    """Train once and return the row."""
    with tempfile.TemporaryDirectory() as folder:
        words = [sys.executable, "-m", "gipi", "train", "cifar10", "--model", "fastnet"]
        words += ["--epochs", str(epochs), "--seed", str(seed), "--json"]
        words += ["--out", str(Path(folder) / "run")]
        for setting in (*SAME, *WORKS[work]):
            words += ["--set", setting]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        if done.returncode:
            raise SystemExit(f"{' '.join(words)} failed:\n{done.stderr[-2000:]}")
        said = json.loads(done.stdout.strip().splitlines()[-1])
    return {
        "work": work, "seed": seed, "epochs": epochs, "commit": commit(),
        "val": said["metrics"]["val/accuracy"], "loss": said["metrics"]["val/loss"],
        "seconds": round(said["seconds"], 1), "samples_per_s": round(said["samples_per_s"], 1),
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "versions": versions("torch", "numpy"),
    }  # fmt: skip


def main() -> None:
    """Run what is missing and print one line a run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("works", nargs="*", default=list(WORKS))
    parser.add_argument("--seeds", nargs="*", type=int, default=[0])
    parser.add_argument("--epochs", type=float, default=3)
    parser.add_argument("--again", action="store_true")
    asked = parser.parse_args()
    for seed in asked.seeds:
        for work in asked.works:
            key = (work, seed, asked.epochs)
            known = [r for r in load() if (r["work"], r["seed"], r["epochs"]) == key]
            if known and not asked.again:
                continue
            row = run(work, seed, asked.epochs)
            rows = [r for r in load() if r not in known] + [row]
            RESULTS.parent.mkdir(exist_ok=True)
            RESULTS.write_text(json.dumps({"machine": machine(), "rows": rows}, indent=1) + "\n")
            print(f"{work} seed {seed}: val {row['val']:.4f} in {row['seconds']} s", flush=True)


if __name__ == "__main__":
    main()
