"""The budget of a run: how far it is, and when it is over."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gipi.core import dist
from gipi.core.device import interactive, process_start
from gipi.core.errors import ConfigError

if TYPE_CHECKING:
    import torch

    from gipi.core.batch import Stream
    from gipi.core.config import Recipe

DEFAULT_EPOCHS = 10.0
ENDED: list[float] = []
"""When runs under a time budget ended in this process."""


@dataclass
class Clock:
    """Steps or seconds, whichever the recipe counts.

    total_steps  length of the run in optimizer steps; None under a time budget
    span_s       seconds between the first step and the last under a time budget
    asked_s      the time budget as it was given
    device       where several ranks agree on the time; None: there is one
    """

    total_steps: int | None
    span_s: float = 0.0
    asked_s: float | None = None
    device: torch.device | None = None
    called: float = field(default_factory=time.time)
    earlier_s: float = 0.0
    began: float = 0.0

    @property
    def budget(self) -> float | None:
        """The length of the run: steps, or seconds as they were asked for."""
        return self.total_steps if self.total_steps is not None else self.asked_s

    def start(self, earlier_s: float = 0.0) -> None:
        """Begin counting; `earlier_s` seconds were used by former processes of this run."""
        self.began, self.earlier_s = time.time(), earlier_s

    def elapsed(self) -> float:
        """Return the seconds of training so far, over all processes of this run."""
        return self.earlier_s + time.time() - self.began

    def progress(self, step: int) -> float:
        """Return the share of the budget used before step number `step`, within [0, 1]."""
        if self.total_steps is not None:
            return min(step / self.total_steps, 1.0)
        share = self.elapsed() / self.span_s
        if self.device is not None:  # clocks differ, the learning rate and the end must not
            share = dist.latest(share, self.device)
        return min(share, 1.0)

    def done(self, step: int) -> bool:
        """Whether the budget is used up before step number `step`."""
        return self.progress(step) >= 1.0

    def remaining_s(self, step: int, steps_per_s: float) -> float:
        """Return an estimate of the seconds that are left."""
        if self.total_steps is None:
            return max(self.span_s - self.elapsed(), 0.0)
        return max(self.total_steps - step, 0) / max(steps_per_s, 1e-9)


def counted_from(called: float) -> float:
    """Return when the seconds of a time budget begin: with the process, as a command is timed.

    A second run of the same process begins with the end of the one before it, and a run in an
    interactive session (a notebook) with the call that asked for it, at `called`.
    """
    return called if interactive() else max([process_start(), *ENDED])


def make_clock(recipe: Recipe, train: Stream) -> Clock:
    """Return the clock of a recipe; raise `ConfigError` unless at most one budget is given.

    Without any budget the run lasts `DEFAULT_EPOCHS`.
    """
    budgets = {
        name: value
        for name, value in (
            ("epochs", recipe.epochs), ("steps", recipe.steps), ("time", recipe.time),
        )
        if value is not None
    }  # fmt: skip
    if len(budgets) > 1:
        raise ConfigError(
            "several budgets: " + ", ".join(f"{k}={v}" for k, v in budgets.items()),
            "exactly one of epochs, steps, time",
            "keep one of them",
        )
    if recipe.steps is not None:
        return Clock(recipe.steps)
    if recipe.time is not None:
        return Clock(None, asked_s=recipe.time)
    epochs = recipe.epochs if recipe.epochs is not None else DEFAULT_EPOCHS
    if not train.steps:
        raise ConfigError(
            f"epochs={epochs} for a stream of unknown length",
            "a budget in steps or time",
            "give steps=... or time=...",
        )
    return Clock(max(1, math.ceil(epochs * train.steps - 1e-9)))


def set_span(clock: Clock, recipe: Recipe, reserve_s: float) -> None:
    """Fix the training span of a time budget: from now to the deadline less `reserve_s`.

    The deadline counts from `counted_from`. Raises `ConfigError` when nothing is left.
    """
    if recipe.time is None:
        return
    used = time.time() - counted_from(clock.called)
    clock.span_s = recipe.time - used - reserve_s
    if clock.span_s <= 0:
        raise ConfigError(
            f"time={recipe.time:g} s: {used:.1f} s went by before the first step and about "
            f"{reserve_s:.1f} s are needed after the last",
            "time to train in between",
            f"give at least {2 * (used + reserve_s):.0f} s",
        )
