"""On a crowded machine: loaded over idle throughput, for `gipi.fit` and for the textbook loop.

    python crowded.py [mlp lenet] [--rounds 3] [--seconds 12] [--neighbours 3] [--again]

Three busy processes (plain Python loops, ended after the measurement whatever happens) run beside
the contender, which trains for `--seconds`; before and after it trains alone. The figure is the
median loaded samples/s over the median idle samples/s, and whether `fit` said so in its rows.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

from stats import Results, versions

HERE = Path(__file__).parent
CONTENDERS = ("gipi", "textbook")


def busy(until: float) -> None:
    """Keep one processor busy until a moment that is fixed beforehand."""
    x = 1
    while time.time() < until:
        for _ in range(10_000):
            x = x * 1_103_515_245 + 12_345 & 0x7FFFFFFF


@contextmanager
def neighbours(count: int, limit_s: float) -> Iterator[None]:
    """Run `count` busy processes beside the block, for `limit_s` at most."""
    context = multiprocessing.get_context("spawn")
    until = time.time() + limit_s
    others = [context.Process(target=busy, args=(until,), daemon=True) for _ in range(count)]
    for other in others:
        other.start()
    try:
        yield
    finally:
        for other in others:
            other.terminate()
            other.join()


def train_for(contender: str, work_name: str, seconds: float) -> dict[str, Any]:
    """Train for about `seconds` in this process; return samples/s and what was said."""
    from works import BY_NAME, make_data, make_model

    work = BY_NAME[work_name]
    data, model = make_data(work), make_model(work)
    said: list[str] = []
    if contender == "textbook":
        import textbook

        loop, done, start = textbook.steps(work, data, model), 0, time.perf_counter()
        while time.perf_counter() - start < seconds:
            next(loop)
            done += 1
        spent = time.perf_counter() - start
    else:
        from library import fit_work, recipe_of, stream_of

        from gipi.core.events import Action, Step

        marks: list[tuple[int, float]] = []

        def watch(step: Step) -> Action | None:
            marks.append((step.step, time.perf_counter()))
            if "event" in step.row:
                said.append(f"{step.row['event']}: {step.row.get('reason', '')}")
            over = marks[-1][1] - marks[0][1] > seconds
            return Action("stop", "time is up") if over and step.when == "row" else None

        train = stream_of(work, data.x, data.y, train=True)
        fit_work(work, data, model, train, recipe_of(work, epochs=10_000), observers=[watch])
        done, spent = marks[-1][0] - marks[0][0], marks[-1][1] - marks[0][1]
    return {"samples_per_s": done * work.batch_size / spent, "said": said}


def in_process(contender: str, work: str, seconds: float) -> dict[str, Any]:
    """Return what `train_for` gives in a process of its own."""
    words = [sys.executable, str(HERE / "crowded.py"), "--one", contender, work, str(seconds)]
    done = subprocess.run(
        words, capture_output=True, text=True, check=True, cwd=HERE, timeout=20 * seconds + 120
    )
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def main() -> None:
    """Measure idle and loaded throughput in turns."""
    if len(sys.argv) > 1 and sys.argv[1] == "--one":
        print(json.dumps(train_for(sys.argv[2], sys.argv[3], float(sys.argv[4]))))
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("works", nargs="*", default=["mlp", "lenet"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=12.0)
    parser.add_argument("--neighbours", type=int, default=3)
    parser.add_argument("--again", action="store_true", help="measure rows that are there already")
    asked = parser.parse_args()
    results = Results("crowded")
    for work in asked.works:
        if all(results.has(work, c) for c in CONTENDERS) and not asked.again:
            continue
        idle: dict[str, list[float]] = {c: [] for c in CONTENDERS}
        loaded: dict[str, list[float]] = {c: [] for c in CONTENDERS}
        said: list[str] = []
        for _ in range(asked.rounds):
            for contender in CONTENDERS:
                alone = in_process(contender, work, asked.seconds)
                with neighbours(asked.neighbours, 20 * asked.seconds + 120):
                    beside = in_process(contender, work, asked.seconds)
                idle[contender].append(alone["samples_per_s"])
                loaded[contender].append(beside["samples_per_s"])
                said += beside["said"]
        for contender in CONTENDERS:
            share = median(loaded[contender]) / median(idle[contender])
            results.add(
                work, contender, idle=idle[contender], loaded=loaded[contender], share=share,
                neighbours=asked.neighbours, seconds=asked.seconds,
                said=said if contender == "gipi" else [], versions=versions("torch", "gipi"),
            )  # fmt: skip
            print(
                f"{work} {contender}: idle {median(idle[contender]):,.0f}/s, loaded "
                f"{median(loaded[contender]):,.0f}/s, {share:.3f} of it"
            )
        print(f"{work} said: {said}")


if __name__ == "__main__":
    main()
