"""Trials: the same short training with and without a change, judged on the same rows."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from gipi.doctor.experiment import outputs
from gipi.doctor.probes import after_steps
from gipi.doctor.sheet import take

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from gipi.doctor.experiment import Experiment
    from gipi.doctor.facts import Facts

ROWS = 1024


@dataclass(frozen=True)
class Outcome:
    """What a short training came to: the loss, as the user asked, before and after it.

    first  of training rows before the first step; train, val: afterwards, NaN for none
    start  of the changed model's first batch, before its first step
    """

    first: float
    start: float
    train: float
    val: float
    exp: Experiment

    def gain(self, split: str = "train") -> float:
        """Return by how much the loss fell; minus infinity where it is not finite any more."""
        end = self.train if split == "train" else self.val
        return self.first - end if math.isfinite(end) else -math.inf


def lead(plain: Outcome, changed: Outcome) -> float:
    """Return by how much lower the changed training's loss is, as a share of a fair start's.

    A fault can make the first loss huge: the smaller of the two first ones counts. Infinite where
    only the changed one is finite, minus infinity where it is not.
    """
    if not math.isfinite(changed.train) or not math.isfinite(changed.start):
        return -math.inf
    if not math.isfinite(plain.train):
        return math.inf
    base = max(min(abs(plain.first), abs(changed.start)), abs(changed.train), 1e-30)
    return (plain.train - changed.train) / base


def trial(
    facts: Facts,
    steps: int,
    *,
    change: Callable[[Experiment], object] | None = None,
    on: Iterable[tuple[Any, Any]] | None = None,
    rows: tuple[Any, Any] | None = None,
) -> Outcome:
    """Train a changed copy for some steps and judge it on training and validation rows.

    rows  what stands for the training rows; None: those of the experiment

    Before the first step the training without a change is run once, whatever it is held against.
    """
    exp = facts.exp
    plain = change is None and on is None and rows is None and facts.start is None
    key = f"plain trial of {steps} steps"
    if plain and key in facts.notes:
        known: Outcome = facts.notes[key]
        return known
    facts.passes += steps + 2
    seen = some(rows or facts.train)
    loss = exp.judge or exp.loss
    first = _loss(exp, loss, seen)
    losses, twin = after_steps(exp, steps, change=change, on=on)
    start = losses[0] if losses else math.nan
    found = Outcome(first, start, _loss(twin, loss, seen), _loss(twin, loss, some(facts.val)), twin)
    if plain:
        facts.notes[key] = found
    return found


def some(data: tuple[Any, Any] | None, rows: int = ROWS) -> tuple[Any, Any] | None:
    """Return at most `rows` rows at even distances; a batch that cannot be cut stays whole."""
    if data is None or not isinstance(data[1], torch.Tensor) or len(data[1]) <= rows:
        return data
    chosen = torch.arange(rows) * len(data[1]) // rows
    X, y = take(data[0], chosen), take(data[1], chosen)
    return data if X is None else (X, y)


def _loss(exp: Experiment, loss: Any, rows: tuple[Any, Any] | None) -> float:
    if rows is None:
        return math.nan
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        return float(loss(outputs(exp, rows[0]), rows[1]))
