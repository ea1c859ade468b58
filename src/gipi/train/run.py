"""A run: everything one call of `fit` works with, and what it writes and tells."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from gipi.core import dist
from gipi.core.device import memory_bytes
from gipi.core.errors import Interrupted
from gipi.core.events import Action, Step
from gipi.train import checkpoint
from gipi.train.finite import explain, is_finite
from gipi.train.state import rng_state

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from contextlib import AbstractContextManager, ExitStack
    from pathlib import Path

    from torch import nn

    from gipi.core.batch import Batch, Stream
    from gipi.core.config import Recipe
    from gipi.core.events import Observer, When
    from gipi.core.rows import Rows
    from gipi.core.schema import Schema
    from gipi.tasks import Task
    from gipi.train.clock import Clock
    from gipi.train.guard import Guard
    from gipi.train.kept import Kept
    from gipi.train.lanes import Lane
    from gipi.train.precision import Setup
    from gipi.train.state import State
    from gipi.train.window import Layers, Window

SAVE_S = 30.0
"""Seconds between checkpoints where `save_every` leaves it open."""
MEMORY_S = 1.0
EXPLAINED = 3
"""Skipped steps that are run again to be explained; further ones are only counted."""


@dataclass
class Run:
    """Everything one call of `fit` works with."""

    model: nn.Module
    net: nn.Module
    task: Task
    recipe: Recipe
    schema: Schema | None
    val: Stream | None
    out: Path | None
    device: torch.device
    setup: Setup
    state: State
    lanes: list[Lane]
    clock: Clock
    guard: Guard
    window: Window
    layers: Layers
    context: AbstractContextManager[Any]
    observers: list[Observer]
    recorder: ExitStack
    rows: Rows | None = None
    norm: torch.Tensor = field(default_factory=lambda: torch.zeros(()))
    saved_at: float = field(default_factory=time.perf_counter)
    save_cost_s: float = 0.0
    explained: int = 0
    epoch_steps: int = 0
    kept: Kept | None = None
    rewound: bool = False
    thaw: Callable[[float], None] = lambda progress: None  # noqa: ARG005
    memory: int = 0
    memory_at: float = -1e9

    def tell(self, when: When, row: Mapping[str, Any]) -> list[Action]:
        """Write a row, show it to every observer and return what they ask for."""
        if self.rows is not None and when in ("row", "evaluate"):
            self.rows.write(row)
        seen = Step(
            when=when, step=self.state.step, epoch=self.state.epoch, progress=self.state.progress,
            row=row, model=self.model, state=self.state, total_steps=self.clock.total_steps,
            steps_per_epoch=self.epoch_steps, history=self.state.history,
        )  # fmt: skip
        answers = [observer(seen) for observer in self.observers]
        return [a for a in answers if a is not None]

    def note(self, event: str, reason: str, *, more: Mapping[str, Any] | None = None) -> None:
        """Write an event row and show it to the observers."""
        row = {"step": self.state.step, "event": event, "reason": reason, **(more or {})}
        if self.rows is not None:
            self.rows.write(row)
        for observer in self.observers:
            observer(Step("row", self.state.step, self.state.epoch, self.state.progress, row))

    def skip(self, bad: bool, lane: Lane, batch: Batch) -> None:  # noqa: FBT001
        """Count and explain a step that was left out."""
        if not bad:
            return
        self.state.skipped += 1
        self.norm = torch.tensor(torch.nan)  # a row must not show the norm of another step
        if self.kept is not None:
            self.kept.restore()
        reason = "not explained: more than enough were"
        if self.explained < EXPLAINED:
            self.explained += 1
            names = {id(p): n for n, p in self.model.named_parameters()}
            reason = explain(self.model, lane.phase, batch, names)
        self.note("skipped: loss or gradient not finite", reason)
        self.guard.give_up(reason)

    def interrupted(self, by: str) -> Interrupted:
        """Return what a run that was asked to stop ends with."""
        saved = "everything is saved" if self.out is not None else "nothing was to be saved"
        again = f"gipi resume {self.out}" if self.out is not None else "start again, with out=..."
        return Interrupted(
            f"stopped by {by} at step {self.state.step}, {saved}", "nothing; the run can go on",
            again,
        )  # fmt: skip

    def explain_skipped(self, train: Stream) -> None:
        """Explain the steps that the device skipped since the last row (GPU)."""
        for step, epoch, index in self.guard.read():
            again = None
            if train.steps and (self.guard.scaled or self.explained < EXPLAINED):
                again = place(next(iter(train.epoch(epoch, index))), self.device)
            if (
                self.guard.scaled
                and float(self.guard.scale) >= 1.0
                and (again is None or is_finite(self.model, self.lanes[0].phase, again))
            ):
                continue  # fp16 looks for its largest scale: an overflow is no finding
            self.state.skipped += 1
            reason = "not explained: more than enough were"
            if self.explained < EXPLAINED and again is not None:
                self.explained += 1
                names = {id(p): n for n, p in self.model.named_parameters()}
                reason = f"step {step}: " + explain(self.model, self.lanes[0].phase, again, names)
            self.note("skipped: loss or gradient not finite", reason)
        self.guard.give_up("see the rows of this run")

    def memory_in_use(self) -> int:
        """Return the memory in use, asked of the system once in `MEMORY_S` seconds."""
        now = time.perf_counter()
        if now - self.memory_at > MEMORY_S:
            self.memory, self.memory_at = memory_bytes(self.device), now
        return self.memory

    def save_due(self, *, at_row: bool) -> bool:
        """Whether a checkpoint is due: every `save_every` steps, or by time at bounded cost.

        Several ranks agree on the time at rows, where they meet anyway.
        """
        if self.out is None:
            return False
        if self.recipe.save_every is not None:
            return self.state.step % self.recipe.save_every == 0
        wait = max(SAVE_S, 50 * self.save_cost_s)
        due = time.perf_counter() - self.saved_at >= wait
        if dist.world() == 1:
            return due
        return at_row and dist.any_rank(due, self.device)

    def save(self) -> None:
        """Write a checkpoint (rank 0) with everything that a resumed run needs."""
        if self.out is None:
            return
        began = time.perf_counter()
        self.state.elapsed = self.clock.elapsed()
        self.state.extras["observers"] = observer_states(self.observers)
        self.state.extras["guard"] = self.guard.state()
        if dist.world() > 1:  # each rank draws its own dropout
            self.state.extras["ranks"] = dist.gather(rng_state())
        if dist.rank() == 0:
            if self.rows is not None:
                self.rows.sync()
            checkpoint.save(self.out, self.state, keep=self.recipe.keep)
        dist.barrier()
        self.saved_at = time.perf_counter()
        self.save_cost_s = self.saved_at - began
        self.tell("save", {"step": self.state.step})


def observer_states(observers: Sequence[Observer]) -> dict[str, Any]:
    """Return what the observers remember, by class name and order."""
    return {
        f"{type(o).__name__}.{i}": o.state() for i, o in enumerate(observers) if hasattr(o, "state")
    }


def load_observers(observers: Sequence[Observer], saved: dict[str, Any]) -> None:
    """Give back to each observer what it remembered; new observers start afresh."""
    for i, observer in enumerate(observers):
        key = f"{type(observer).__name__}.{i}"
        if key in saved and hasattr(observer, "load_state"):
            observer.load_state(saved[key])


def place(batch: Batch, device: torch.device) -> Batch:
    """Return the batch on the device; a resident stream's batch passes untouched."""
    if device.type == "cpu":
        return batch
    return batch if batch.target is not None and batch.target.device == device else batch.to(device)
