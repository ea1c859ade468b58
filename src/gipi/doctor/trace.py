"""What a run leaves behind: a number a step, a look at the layers now and then, a row an epoch."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

CHECKS = (0.1, 0.25, 0.5, 1.0)
"""Shares of the planned steps after which the rules look at the trace."""


@dataclass(frozen=True)
class LayerLook:
    """One layer at one step, root mean squares over all elements.

    grad, weight  RMS of gradient and weight of the parameter; update: RMS of what the step changed
    """

    grad: float
    weight: float
    update: float

    @property
    def ratio(self) -> float:
        """Update over weight."""
        return self.update / self.weight if self.weight > 0 else math.inf


@dataclass(frozen=True)
class UnitLook:
    """The outputs of one activation function at one step, over the rows of a batch or more.

    kind       "relu", "sigmoid", "tanh", "softmax", ... as the function is called
    dead       share of units with an output <= 0 (ReLU family) on every row
    saturated  share of units whose mean |f'(x)| is below a twentieth of its largest value
    std        standard deviation over rows and units
    rows       rows that were looked at
    """

    kind: str
    dead: float
    saturated: float
    std: float
    rows: int


@dataclass(frozen=True)
class Look:
    """All layers at one step: parameters by name, activations by place in order of execution."""

    step: int
    params: dict[str, LayerLook]
    units: dict[str, UnitLook]


@dataclass
class Trace:
    """What was seen of a run so far.

    losses, norms, rates  loss, gradient norm and learning rate of every step
    looks      looks at the layers, ascending in step
    epochs     {"epoch", "step", "train", "train_eval", "val", "train_score", "val_score"}: mean
               loss over the epoch's steps; loss of up to `JUDGED` training and validation rows in
               evaluation mode; their score, more is better
    planned    steps that the run is to take
    per_epoch  steps of one pass
    start      score of validation (or training) rows before the first step
    broken     step at which loss or gradient was first not finite
    """

    planned: int
    per_epoch: int
    losses: list[float] = field(default_factory=list)
    norms: list[float] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)
    looks: list[Look] = field(default_factory=list)
    epochs: list[dict[str, Any]] = field(default_factory=list)
    start: dict[str, float] = field(default_factory=dict)
    broken: int | None = None

    @property
    def step(self) -> int:
        """Steps taken."""
        return len(self.losses)

    @property
    def done(self) -> float:
        """Share of the planned steps that was taken."""
        return self.step / max(self.planned, 1)

    def mean_loss(self, first: int, last: int) -> float:
        """Return the mean of the finite losses of steps first..last (exclusive), or NaN."""
        part = [v for v in self.losses[max(first, 0) : last] if math.isfinite(v)]
        return sum(part) / len(part) if part else math.nan
