"""The defaults against the textbook loop and the peers: processes in turns, warm and from the start.

    python warm.py [mlp lenet tiny resnet] [--contenders gipi textbook ...] [--rounds 5]
                   [--peers PYTHON] [--again]

Each round runs every contender once, in an order that turns by one each round, in a process of its
own that trains the work for the same number of epochs. From each come two figures: warm samples/s
(rows over the median of its epochs after the first) and samples/s from the start (all rows over the
seconds from starting the process to the end of training: imports, building, compiling, trials).
Ratios are taken within a round, against the textbook loop of that round. `gipi` runs twice:
"gipi" with whatever its cache holds after the first round, "gipi-cold" with an empty cache.

--peers   the Python that has Keras, JAX, Lightning, fastai and skorch; without it (or where one
          cannot be imported) a peer is reported as missing with the reason, never guessed.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from stats import Results, bootstrap

HERE = Path(__file__).parent
OWN = ("textbook", "handwritten", "gipi", "gipi-cold")
PEERS = ("keras-torch", "keras-jax", "lightning", "fastai", "skorch")
EPOCHS = {"mlp": 4, "lenet": 3, "tiny": 8, "resnet": 4}
LIMIT_S = 600


def run_once(
    contender: str, work: str, *, python: str, cache: Path, seed: int, epochs: int
) -> dict[str, Any]:
    """Return what one process printed, or {"missing": reason}."""
    environment = {**os.environ, "GIPI_CACHE": str(cache), "TF_CPP_MIN_LOG_LEVEL": "3"}
    name = contender.removesuffix("-cold")
    words = [python, str(HERE / "contender.py"), name, work, str(epochs)]
    words += [repr(time.time()), str(seed)]
    try:
        done = subprocess.run(
            words, capture_output=True, text=True, env=environment, cwd=HERE, check=False,
            timeout=LIMIT_S,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return {"missing": f"not done after {LIMIT_S} s"}
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["no message"]
        return {"missing": lines[-1][:300]}
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    later = found["epoch_s"][1:] or found["epoch_s"]
    found["warm"] = found["rows"] / statistics.median(later)
    found["start"] = found["rows"] * found["epochs"] / found["total_s"]
    return found


def measure(
    work: str, contenders: list[str], *, rounds: int, peers: str | None, results: Results
) -> None:
    """Run the rounds of one work and write one row a contender."""
    seen: dict[str, list[dict[str, Any]]] = {c: [] for c in contenders}
    missing: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as kept:
        for turn in range(rounds):
            shift = turn % len(contenders)
            for contender in contenders[shift:] + contenders[:shift]:
                if contender in missing:
                    continue
                python = peers if contender in PEERS else sys.executable
                if python is None:
                    missing[contender] = "no Python with the peers was given (--peers)"
                    continue
                with tempfile.TemporaryDirectory() as empty:
                    cold = contender.endswith("-cold")
                    found = run_once(
                        contender, work, python=python, cache=Path(empty if cold else kept),
                        seed=0, epochs=EPOCHS[work],
                    )  # fmt: skip
                if "missing" in found:
                    missing[contender] = found["missing"]
                    continue
                seen[contender].append(found)
                print(
                    f"{work} round {turn} {contender}: warm {found['warm']:,.0f}/s, from the start "
                    f"{found['start']:,.0f}/s, accuracy {found['accuracy']:.4f}", flush=True,
                )  # fmt: skip
    reference = seen.get("textbook", [])
    for contender in contenders:
        if contender in missing:
            results.add(work, contender, missing=missing[contender])
            print(f"{work} {contender}: missing ({missing[contender]})")
            continue
        runs = seen[contender]
        row: dict[str, Any] = {"rounds": len(runs), "seed": 0, "epochs": EPOCHS[work]}
        for kind in ("warm", "start"):
            row[kind] = bootstrap([r[kind] for r in runs])
            if reference:
                ratios = [a[kind] / b[kind] for a, b in zip(runs, reference, strict=False)]
                row[f"{kind}_ratio"] = bootstrap(ratios)
        row["accuracy"] = [r["accuracy"] for r in runs]
        row["import_s"] = statistics.median(r["import_s"] for r in runs)
        row["peak_mib"] = statistics.median(r["peak_mib"] for r in runs)
        row["settings"], row["versions"] = runs[-1]["settings"], runs[-1]["versions"]
        results.add(work, contender, **row)


def main() -> None:
    """Measure what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("works", nargs="*", default=list(EPOCHS))
    parser.add_argument("--contenders", nargs="+", default=[*OWN, *PEERS])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peers", help="Python of the environment with the peers")
    parser.add_argument("--again", action="store_true", help="measure rows that are there already")
    asked = parser.parse_args()
    results = Results("warm")
    for work in asked.works:
        open_ones = [c for c in asked.contenders if asked.again or not results.has(work, c)]
        if open_ones and "textbook" in asked.contenders and "textbook" not in open_ones:
            open_ones.insert(0, "textbook")  # ratios are taken within a round
        if open_ones:
            measure(work, open_ones, rounds=asked.rounds, peers=asked.peers, results=results)


if __name__ == "__main__":
    main()
