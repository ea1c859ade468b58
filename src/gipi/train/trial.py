"""The measuring behind the choice of a setup: candidates take the real step in turn.

A turn is one step that nobody times (it brings weights, threads and libraries back to where the
candidate wants them) and a few that are timed. Where steps with the whole batch are too slow to
try all candidates, a first round with fewer rows leaves those that can still win, and only these
are measured with as many rows as the budget allows. What a first round shows is the least of its
times: a disturbance only slows a step, and must not throw out the candidate that it happens to hit.
"""

from __future__ import annotations

import copy
import math
import statistics
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from gipi import optim
from gipi.core import device as machine_facts
from gipi.train.evaluate import in_layout
from gipi.train.precision import Setup, apply_threads_and_gemm, autocast

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from gipi.core.batch import Batch
    from gipi.tasks import Task

MIN_STEPS = 3
GAIN = 0.03
"""A candidate must be at least this share faster: below it lies the noise of a short trial."""
LOSS_TOLERANCE = 0.02
CROWDED = 0.15
"""Share of the trial spent waiting for a processor above which its result is not cached."""
STILL_OPEN = 1.3
"""After the first round a candidate this many times slower than the best is out."""
FEW_ROWS, SOME_ROWS = 8, 64
"""Rows of the first look, and at most of the first round: few rows say little about many."""
FIRST_TURNS, FIRST_SHARE = 2, 0.4
LEAST_S, SHORT = 0.3, 0.05
TURN_S = 0.02
"""A turn is two timed steps, or as many as fill this time."""


@dataclass(frozen=True)
class Work:
    """The real step: model, task, device, optimizer, and whether the stream stores rows as asked.

    optimizer  builds the run's optimizer for a copy of the model
    """

    model: nn.Module
    task: Task
    device: torch.device
    optimizer: Callable[[nn.Module], torch.optim.Optimizer]
    stored: bool = False


@dataclass
class Candidate:
    """One setup with its own copy of the model and of the optimizer."""

    work: Work
    setup: Setup
    times: list[float] = field(default_factory=list)
    loss: float | None = None

    def __post_init__(self) -> None:
        net = copy.deepcopy(self.work.model).train()
        if self.setup.memory_format is not None:
            net = net.to(memory_format=self.setup.memory_format)  # type: ignore[call-overload]
        self._optimizer = self.work.optimizer(net)
        self._lr = float(self._optimizer.param_groups[0]["lr"])
        self._take_step = optim.bind(self._optimizer)
        self._net: Any = torch.compile(net) if self.setup.compile else net
        self._context = autocast(self.setup, self.work.device)

    def feed(self, batch: Batch) -> None:
        """Take the rows to step on, as the stream would hand them out under this setup."""
        self._batch, kept = batch.slice(0, len(batch)), dict(batch.inputs)
        if self.setup.rows == "bf16":
            kept = {k: v.bfloat16() if v.is_floating_point() else v for k, v in kept.items()}
        if self.work.stored and self.setup.memory_format is not None:
            kept = in_layout(kept, self.setup.memory_format)
        self._kept: dict[str, Tensor] = kept
        self.times = []

    def look(self, batch: Batch) -> None:
        """Remember the loss of these rows with the weights as they are, before any step."""
        self.feed(batch)
        apply_threads_and_gemm(self.setup, self.work.device)
        layout = self.setup.memory_format
        self._batch.inputs = self._kept if layout is None else in_layout(self._kept, layout)
        with torch.random.fork_rng(), torch.no_grad(), self._context:
            torch.manual_seed(0)  # the same dropout for every candidate
            loss = self.work.task.phases[0].loss(self._net, self._batch)
        self.loss = float(loss.total) / float(loss.count)

    def step(self) -> float:
        """Take one step and return its seconds; the first loss is remembered."""
        began, layout = time.perf_counter(), self.setup.memory_format
        self._batch.inputs = self._kept if layout is None else in_layout(self._kept, layout)
        for group in self._optimizer.param_groups:
            for p in group["params"]:
                p.grad = None
        with self._context:
            loss = self.work.task.phases[0].loss(self._net, self._batch)
        (loss.total / loss.count).backward()
        self._take_step(self._lr, None, None)
        machine_facts.synchronize(self.work.device)
        seconds = time.perf_counter() - began
        if self.loss is None:
            self.loss = float(loss.total.detach()) / float(loss.count)
        return seconds

    def turn(self) -> None:
        """Warm up with one step, then time two or more."""
        apply_threads_and_gemm(self.setup, self.work.device)
        pace = max(self.step(), 1e-6)
        self.times += [self.step() for _ in range(max(2, min(20, round(TURN_S / pace))))]

    @property
    def seconds(self) -> float:
        """Median seconds of a step."""
        return statistics.median(self.times)


def compete(
    work: Work,
    batch: Batch,
    setups: list[Setup],
    budget_s: float,
    *,
    run_s: float | None = None,
    run_steps: int | None = None,
) -> Setup:
    """Return the fastest of `setups` (the first is plain fp32) with what was measured.

    budget_s          seconds at most; a run that is known to be short (`run_s`, `run_steps`) gets
                      `SHORT` of its length, but at least `LEAST_S`
    """
    began, queued = time.perf_counter(), machine_facts.run_delay_s()
    rivals = [Candidate(work, setup) for setup in setups]
    plain, table = rivals[0], dict.fromkeys(setup.name for setup in setups)
    few = batch.slice(0, min(FEW_ROWS, len(batch)))
    for rival in rivals:
        rival.look(few)
    per_row = _pace(plain, few)
    expected = run_s or (run_steps * per_row * len(batch) if run_steps else math.inf)
    budget_s = min(budget_s, max(LEAST_S, SHORT * expected))
    if per_row * len(batch) * len(rivals) * (MIN_STEPS + 1) > budget_s:
        steps = FIRST_TURNS * MIN_STEPS * len(rivals)
        rows = min(int(FIRST_SHARE * budget_s / (per_row * steps)), SOME_ROWS, len(batch))
        some = batch.slice(0, max(rows, len(few)))
        for rival in rivals:
            rival.feed(some)
        for rival in rivals * FIRST_TURNS:
            rival.turn()
        least = {r.setup.name: min(r.times) for r in rivals}
        table.update({name: s / len(some) * len(batch) for name, s in least.items()})
        best = min(least.values())
        rivals = [r for r in rivals if least[r.setup.name] < STILL_OPEN * best]
        if len(rivals) == 1 and agrees(rivals[0].loss, plain.loss):
            return _told(rivals[0], best / len(some) * len(batch), table, began, queued)
        left = max(budget_s - (time.perf_counter() - began), FIRST_SHARE * budget_s)
        rows = int(left / (best / len(some) * len(rivals) * MIN_STEPS))
        batch = batch.slice(0, max(len(few), min(rows, len(batch))))
    for rival in rivals:
        rival.feed(batch)
    turns = 0
    while turns == 0 or (time.perf_counter() - began < budget_s and turns < 100):
        for rival in rivals:
            rival.turn()
        turns += 1
        best = min(r.seconds for r in rivals)
        rivals = [r for r in rivals if r is plain or turns < 2 or r.seconds < STILL_OPEN * best]
    for rival in rivals:
        table[rival.setup.name] = rival.seconds
    winner = _winner(plain, rivals)
    return _told(winner, winner.seconds if winner.times else 0.0, table, began, queued)


def _told(
    winner: Candidate, step_s: float, table: dict[str, Any], began: float, queued: float
) -> Setup:
    """Return the winner's setup with what was measured, and whether the machine was crowded."""
    waited = (machine_facts.run_delay_s() - queued) / (time.perf_counter() - began)
    return replace(
        winner.setup,
        step_s=step_s,
        origin="trial" if waited < CROWDED else "trial on a crowded machine",
        trial=tuple((name, seconds) for name, seconds in table.items() if seconds is not None),
    )


def _pace(plain: Candidate, few: Batch) -> float:
    """Seconds per row of a plain step on few rows."""
    plain.feed(few)
    apply_threads_and_gemm(plain.setup, plain.work.device)
    plain.step()
    return plain.step() / len(few)


def _winner(plain: Candidate, rivals: list[Candidate]) -> Candidate:
    """Return the fastest candidate whose loss agrees, or plain fp32 where the gain is noise."""
    sane = [r for r in rivals if r is plain or agrees(r.loss, plain.loss)]
    if not sane:
        return plain
    best = min(sane, key=lambda r: r.seconds)
    if plain not in rivals or best is plain:
        return best
    noise = spread(plain.times) / len(plain.times) ** 0.5
    return best if 1 - best.seconds / plain.seconds > max(GAIN, noise) else plain


def compiled(work: Work, batch: Batch, eager: Setup, run_s: float) -> Setup:
    """Return `eager` compiled where the whole run repays what compiling costs, else `eager`."""
    optim.allow_compiler()
    plain = Candidate(work, eager)
    rival = Candidate(work, replace(eager, compile=True))
    began = time.perf_counter()
    try:
        for candidate in (plain, rival):
            candidate.feed(batch)
            candidate.turn()
    except Exception:  # noqa: BLE001  no compiler, or a graph it cannot take: eager it stays
        return eager
    cost = time.perf_counter() - began
    for candidate in (plain, rival, plain, rival):
        candidate.turn()
    table = (*eager.trial, (rival.setup.name, rival.seconds))
    saved = run_s * (1 - rival.seconds / plain.seconds)
    slower = rival.seconds > plain.seconds * (1 - GAIN)
    if slower or saved < cost or not agrees(rival.loss, plain.loss):
        return replace(eager, trial=table)
    return replace(rival.setup, step_s=rival.seconds, trial=table)


def agrees(loss: float | None, reference: float | None) -> bool:
    """Whether the first loss of a candidate is that of plain fp32 to within `LOSS_TOLERANCE`."""
    if loss is None or reference is None:
        return False
    return abs(loss - reference) <= LOSS_TOLERANCE * max(abs(reference), 0.1)


def spread(times: list[float]) -> float:
    """Relative half-width of the middle half of the times: the noise of one step."""
    ordered = sorted(times)
    n = len(ordered)
    return (ordered[3 * (n - 1) // 4] - ordered[(n - 1) // 4]) / 2 / statistics.median(ordered)


def row_storage(work: Work, batch: Batch, setup: Setup) -> str:
    """Return "bf16" where inputs stored in bf16 give the same loss and outputs to the last bit.

    That is so where the first layer rounds them under autocast anyway; a model that looks at its
    input in fp32 first, or refuses bf16, keeps fp32 rows.
    """
    if setup.precision != "bf16" or not work.stored:
        return "fp32"
    net, phase = copy.deepcopy(work.model).eval(), work.task.phases[0]
    rounded = batch.slice(0, len(batch))
    rounded.inputs = {
        k: v.bfloat16() if v.is_floating_point() else v for k, v in batch.inputs.items()
    }
    apply_threads_and_gemm(setup, work.device)
    try:
        with torch.no_grad(), autocast(setup, work.device):
            plain, stored = phase.loss(net, batch), phase.loss(net, rounded)
    except Exception:  # noqa: BLE001  a model that cannot take bf16 input keeps fp32 rows
        return "fp32"
    same = torch.equal(plain.total, stored.total) and torch.equal(plain.outputs, stored.outputs)
    return "bf16" if same else "fp32"
