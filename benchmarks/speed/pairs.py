"""`gipi.fit` against the hand-written loop, in one process, in turns: A B A B.

    python pairs.py [mlp lenet tiny resnet] [--pairs 40] [--chunk 0.4] [--setup shared|auto] [--again]

`fit` runs undisturbed, from start to end, with everything on. Its training stream is wrapped: at
the border of each chunk, before it hands out the next batch, it lets the hand-written loop take as
many steps on the same rows, and stops the clock of `fit` for that long. So both see the same
weather, and nothing of the loop is bypassed. What is compared is seconds per step; the ratio is
fit over hand-written, one per pair, with the bootstrap interval of the median.

On a shared machine other processes take the cores now and then, and a loop with two threads then
waits for the one that lost its core. The kernel's own account of the time our threads stood ready
but waiting tells; a pair in which either loop stood more than `DISTURBED` of its turn is set aside
and counted (`disturbed`), whichever loop it hit, and the run goes on until enough pairs are clean.
Before each pair, with both clocks stopped, it waits for a quiet moment, for `--wait` seconds in all.

`fit`'s figure holds gathering, rows, progress, metrics, checks, checkpoints and the choice of the
best weights. The forward passes over validation rows are timed apart (`evaluation_s`): the
hand-written loop makes none.
`fit` asks the C library to keep freed memory, which holds for the whole process. In its turns the
hand-written loop gets what glibc's own adaptation arrives at by itself: blocks under 32 MiB kept.

--setup shared gives `fit` the hand-written loop's arithmetic, layout and threads; auto leaves them
to its trial.
"""

from __future__ import annotations

import argparse
import ctypes
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter as now
from typing import TYPE_CHECKING, Any

import handwritten
import torch
from library import Evaluated, fit_work, recipe_of, stream_of
from stats import Results, bootstrap, versions
from works import BY_NAME, WORKS, Data, Work, make_data, make_model

from gipi.core.events import Action, Step
from gipi.core.memory import M_MMAP_THRESHOLD, M_TRIM_THRESHOLD, keep_freed_pages
from gipi.train import Setup

if TYPE_CHECKING:
    from gipi.core.batch import Batch
    from gipi.data.stream import RowStream

mallopt = getattr(ctypes.CDLL(None), "mallopt", lambda *_: 0)

WARM_S = 1.0
DISTURBED = 0.05
"""Share of a turn that our threads waited for a processor, above which a pair is set aside."""
QUIET = 0.1
"""Share of the processors that others may use when a pair begins."""
PATIENCE = 5
"""Turns are at most this many times the pairs that were asked for."""


def waiting_s() -> float:
    """Seconds that the threads of this process stood ready but waited for a processor (Linux)."""
    total = 0
    for task in Path("/proc/self/task").glob("*/schedstat"):
        try:
            total += int(task.read_text().split()[1])
        except (OSError, ValueError, IndexError):
            continue
    return total * 1e-9


def busy_share(span_s: float = 0.1) -> float:
    """Share of the processors that others kept busy while this process slept (Linux)."""

    def read() -> tuple[int, int]:
        ticks = [int(t) for t in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
        return sum(ticks), ticks[3] + ticks[4]

    try:
        before = read()
        time.sleep(span_s)
        after = read()
    except (OSError, ValueError, IndexError):
        return 0.0
    total = after[0] - before[0]
    return 1 - (after[1] - before[1]) / total if total else 0.0


@dataclass
class Turns:
    """A training stream that gives the hand-written loop its turn after each chunk of batches.

    warm    batches before the first timed chunk; chunk: batches of a turn
    fit_s, hand_s   seconds of each turn, pair by pair
    """

    inner: RowStream
    hand: Iterator[float]
    settings: handwritten.Settings
    val: Evaluated
    warm: int
    chunk: int
    wait_s: float
    fit_s: list[float] = field(default_factory=list)
    hand_s: list[float] = field(default_factory=list)
    disturbed: int = 0
    given: int = 0
    opened: int = 0

    def __post_init__(self) -> None:
        self.rows, self.batch_size = self.inner.rows, self.inner.batch_size
        self.steps = self.inner.steps
        self.began = self.evaluated = self.waited = 0.0

    can_store = True

    def store(self, *, half: bool, channels_last: bool) -> None:
        """Let the stream keep its rows as `fit` wants them."""
        self.inner.store(half=half, channels_last=channels_last)

    def epoch(self, epoch: int, skip: int = 0) -> Iterator[Batch]:
        """Yield the batches of the library's stream, with a turn of the other loop at borders."""
        self.opened += 1
        counting = self.opened > 1  # the first opening reads one batch for the trial
        for batch in self.inner.epoch(epoch, skip):
            if counting:
                self._count()
            yield batch

    def _count(self) -> None:
        timed = self.given - self.warm
        if timed >= 0 and timed % self.chunk == 0:
            if timed:
                spent = now() - self.began - (self.val.seconds - self.evaluated)
                waited = waiting_s() - self.waited
                self._turn(spent, waited)
            self._wait()
            self.evaluated, self.waited = self.val.seconds, waiting_s()
            self.began = now()
        self.given += 1

    def _wait(self) -> None:
        """Sleep until the machine is quiet, as long as there is patience left."""
        while self.wait_s > 0:
            start = now()
            if busy_share() < QUIET:
                return
            time.sleep(0.2)
            self.wait_s -= now() - start

    def _turn(self, fit_s: float, fit_waited: float) -> None:
        """Let the hand-written loop take its turn, and keep the pair if nobody disturbed it."""
        mallopt(M_MMAP_THRESHOLD, 32 << 20)
        mallopt(M_TRIM_THRESHOLD, 64 << 20)
        waited = waiting_s()
        with handwritten.settings_of(self.settings):
            start = now()
            for _ in range(self.chunk):
                next(self.hand)
            hand_s = now() - start
        waited = waiting_s() - waited
        keep_freed_pages()
        if max(fit_waited / fit_s, waited / hand_s) > DISTURBED:
            self.disturbed += 1
            return
        self.fit_s.append(fit_s / self.chunk)
        self.hand_s.append(hand_s / self.chunk)


@dataclass
class Enough:
    """An observer that ends the run when there are enough pairs."""

    turns: Turns
    pairs: int

    def __call__(self, step: Step) -> Action | None:
        """Ask for the end at the first row after the last pair."""
        if step.when == "row" and len(self.turns.fit_s) >= self.pairs:
            return Action("stop", "enough pairs")
        return None


def measure(
    work: Work, data: Data, *, pairs: int, chunk_s: float, setup: str, seed: int, wait_s: float
) -> dict[str, Any]:
    """Return the row of one work."""
    settings = handwritten.BEST[work.name]
    hand = handwritten.steps(work, data, make_model(work, seed=seed), settings, seed=seed)
    with handwritten.settings_of(settings):
        next(hand)
        pace = statistics.median([next(hand) for _ in range(3 if work.name == "resnet" else 30)])
        next(hand)
    chunk = max(1, round(chunk_s / pace))
    if 4 * chunk >= work.steps:  # whole epochs: the hand-written loop gathers once in each
        chunk = work.steps * -(-chunk // work.steps)
    warm = max(2, round(WARM_S / pace))
    val = Evaluated(stream_of(work, data.x_val, data.y_val, train=False))
    inner = stream_of(work, data.x, data.y, train=True, seed=seed)
    turns = Turns(inner, hand, settings, val, warm, chunk, wait_s)
    model = make_model(work, seed=seed)
    shared = Setup(
        precision="bf16" if settings.bf16 else "fp32", threads=settings.threads,
        layout="channels_last" if settings.channels_last else "contiguous",
        rows="bf16" if settings.bf16 else "fp32",
    )  # fmt: skip
    recipe = recipe_of(work, steps=warm + PATIENCE * pairs * chunk + 1)
    if setup == "shared":  # a given number of threads is not adapted on a crowded machine either
        recipe = recipe.model_copy(update={"threads": settings.threads})
    state = fit_work(
        work, data, model, turns, recipe, val=val, observers=[Enough(turns, pairs)],
        setup=shared if setup == "shared" else None,
    )  # fmt: skip
    if not turns.fit_s:
        raise SystemExit(f"{work.name}: all {turns.disturbed} pairs were disturbed; try later")
    ratios = [a / b for a, b in zip(turns.fit_s, turns.hand_s, strict=True)]
    extra = [1e6 * (a - b) for a, b in zip(turns.fit_s, turns.hand_s, strict=True)]
    return {
        "ratio": bootstrap(ratios), "overhead_us": bootstrap(extra),
        "ratio_of_sums": sum(turns.fit_s) / sum(turns.hand_s),
        "fit_ms": 1e3 * statistics.median(turns.fit_s),
        "hand_ms": 1e3 * statistics.median(turns.hand_s),
        "fit_min_ms": 1e3 * min(turns.fit_s), "hand_min_ms": 1e3 * min(turns.hand_s),
        "chunk_steps": chunk, "disturbed": turns.disturbed, "evaluations": val.times, "evaluation_s": val.seconds,
        "setup": state.setup, "seed": seed, "ratios": [round(r, 4) for r in ratios],
    }  # fmt: skip


def main() -> None:
    """Measure what was asked for and print one line per work."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("works", nargs="*", default=[w.name for w in WORKS])
    parser.add_argument("--pairs", type=int, default=40)
    parser.add_argument("--chunk", type=float, default=0.4, help="seconds of a turn")
    parser.add_argument("--wait", type=float, default=120.0, help="seconds to wait for quiet")
    parser.add_argument("--setup", choices=["shared", "auto"], default="auto")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--again", action="store_true", help="measure rows that are there already")
    asked = parser.parse_args()
    results = Results("pairs")
    for name in asked.works:
        work, variant = BY_NAME[name], f"fit/{asked.setup}"
        if results.has(name, variant) and not asked.again:
            print(f"{name} {variant}: there already")
            continue
        row = measure(
            work, make_data(work, seed=asked.seed), pairs=asked.pairs, chunk_s=asked.chunk,
            setup=asked.setup, seed=asked.seed, wait_s=asked.wait,
        )  # fmt: skip
        results.add(name, variant, **row, versions=versions("torch", "gipi", "numpy"))
        ratio, extra = row["ratio"], row["overhead_us"]
        print(
            f"{name:7} {variant}: fit {row['fit_ms']:.4f} ms, hand-written {row['hand_ms']:.4f} ms, "
            f"ratio {ratio['median']:.3f} (95 % upper {ratio['upper95']:.3f}; of the sums "
            f"{row['ratio_of_sums']:.3f}), overhead "
            f"{extra['median']:.1f} us (upper {extra['upper95']:.1f}), {ratio['n']} pairs of "
            f"{row['chunk_steps']} steps ({row['disturbed']} disturbed), {row['evaluations']} evaluations; {row['setup']}"
        )


if __name__ == "__main__":
    torch.manual_seed(0)
    main()
