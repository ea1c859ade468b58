"""Page faults and seconds of a step of the hand-written loop, with and without `keep_freed_pages`.

    python page_faults.py [mlp lenet resnet] [--rounds 3]

Each round is a process of its own, in turns: whether a step faults depends on the shape of the
heap, so one process says little.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
from itertools import pairwise

import handwritten
from stats import Results, versions
from works import BY_NAME, make_data, make_model

from gipi.core.memory import keep_freed_pages

STEPS = {"mlp": 400, "lenet": 100, "tiny": 2000, "resnet": 6}


def faults() -> int:
    """Return the page faults of this process so far that needed no disk."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def one(name: str, *, keep: bool) -> None:
    """Print faults per step (median), milliseconds per step (median) and peak memory as JSON."""
    if keep and not keep_freed_pages():
        raise SystemExit("the C library did not agree")
    work, settings = BY_NAME[name], handwritten.BEST[name]
    loop = handwritten.steps(work, make_data(work), make_model(work), settings)
    with handwritten.settings_of(settings):
        for _ in range(STEPS[name] // 2):
            next(loop)
        seconds, seen = [], [faults()]
        for _ in range(STEPS[name]):
            seconds.append(next(loop))
            seen.append(faults())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    each = statistics.median(b - a for a, b in pairwise(seen))
    print(json.dumps({"faults": each, "ms": statistics.median(seconds) * 1e3, "peak_mib": peak}))


def main() -> None:
    """Measure each work in turns and keep the rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("works", nargs="*", default=["mlp", "lenet", "resnet"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--one", choices=["keep", "shipped"], help="measure in this process")
    asked = parser.parse_args()
    if asked.one:
        one(asked.works[0], keep=asked.one == "keep")
        return
    results = Results("page_faults")
    for name in asked.works:
        found: dict[str, list[dict[str, float]]] = {"shipped": [], "keep": []}
        for _ in range(asked.rounds):
            for variant, rows in found.items():
                done = subprocess.run(
                    [sys.executable, __file__, name, "--one", variant],
                    check=True, capture_output=True, text=True,
                )  # fmt: skip
                rows.append(json.loads(done.stdout))
        for variant, rows in found.items():
            results.add(name, variant, rounds=rows, versions=versions("torch", "gipi"))
            print(name, variant, [{k: round(v, 2) for k, v in row.items()} for row in rows])


if __name__ == "__main__":
    main()
