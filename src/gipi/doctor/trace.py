"""What a run leaves behind: a number a step, a look at the layers now and then, a row an epoch."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gipi.doctor.copies import Saved

CHECKS = (0.1, 0.25, 0.5, 1.0)
"""Shares of the planned steps after which the rules look at the trace."""


@dataclass(frozen=True)
class LayerLook:
    """One layer at one step, root mean squares over all elements.

    grad, weight  RMS of gradient and weight of the parameter; update: RMS of what the step changed
    dims          its dimensions: 2 and more are matrices and kernels, 1 are biases and norms
    """

    grad: float
    weight: float
    update: float
    dims: int = 2

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
    units      units of the layer
    """

    kind: str
    dead: float
    saturated: float
    std: float
    rows: int
    units: int = 0


@dataclass(frozen=True)
class Look:
    """All layers at one step: parameters by name, activations by place in order of execution.

    Activations are looked at where the rules look at the trace; elsewhere `units` is empty.
    """

    step: int
    params: dict[str, LayerLook]
    units: dict[str, UnitLook]


@dataclass(frozen=True)
class Loop:
    """What a loop of somebody's own did, counted.

    steps      calls of `optimizer.step`; backwards: of `loss.backward`
    resting    modules that drop or keep statistics, all of them in evaluation mode before each of
               the last `evaluating` steps
    moved      whether any weight is another than before the first step
    looks      steps whose gradients were looked at; felt: whether any of them was not zero
    cleared    calls of backward, of the first ones without a step, that found the gradients of the
               one before thrown away
    """

    steps: int
    backwards: int
    evaluating: int = 0
    resting: tuple[str, ...] = ()
    moved: bool = True
    looks: int = 0
    felt: bool = False
    cleared: int = 0


@dataclass
class Kept:
    """A state that was whole, and the batches that were trained on since.

    step  steps taken when the state was kept
    """

    step: int
    saved: Saved
    batches: list[tuple[Any, Any]] = field(default_factory=list)


@dataclass
class Trace:
    """What was seen of a run so far.

    losses, norms, rates  loss, gradient norm and learning rate of every step
    looks      looks at the layers, ascending in step
    epochs     {"epoch", "step", "train", "train_eval", "val", "train_score", "val_score",
               "val_parts"}: mean loss over the steps since the row before; loss of up to `JUDGED`
               training and validation rows in evaluation mode; their score, more is better; the
               loss of ten parts of the validation rows, "val_right": the share of right
               classes. A row an epoch, thinned out where there are
               many, and one at every check: "epoch" is then a fraction
    planned    steps that the run is to take
    open       nobody knows how many those are: `planned` is as many as were taken
    per_epoch  steps of one pass
    start      score of validation (or training) rows before the first step
    broken     step at which loss or gradient was first not finite
    kept       the last whole state at most `KEPT` steps ago, for a replay of what came after
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
    kept: Kept | None = field(default=None, repr=False)
    open: bool = False

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

    def fall(self) -> float:
        """Return the fall of the mean loss between the last two quarters of the steps."""
        quarter = self.step // 4
        return self.mean_loss(self.step - 2 * quarter, self.step - quarter) - self.mean_loss(
            self.step - quarter, self.step
        )

    @property
    def recent(self) -> float:
        """The mean of the finite losses of the last fifth of the steps, five at least; or NaN."""
        return self.mean_loss(self.step - max(5, self.step // 5), self.step)

    @property
    def units(self) -> dict[str, UnitLook]:
        """The last look at activations; empty before the first."""
        return next((look.units for look in reversed(self.looks) if look.units), {})

    def ratio(self, looks: int = 6) -> float:
        """Return the median over the last looks and all matrices of update over weight; or NaN.

        Matrices that stand at zero, or got no gradient, do not count.
        """
        found = [r for r in map(self.pace, self.looks[-looks:]) if math.isfinite(r)]
        return median(found) if found else math.nan

    def pace(self, look: Look) -> float:
        """Return `ratio_of` the matrices that did not begin at zero, of all where all did; or NaN.

        What began at zero is as large as its way: its update over weight is that of one step over
        all steps, whatever the rate.
        """
        first = self.looks[0].params if self.looks else {}
        begun = {n: v for n, v in look.params.items() if n not in first or first[n].weight > 0}
        ratio = self.ratio_of(Look(look.step, begun, {}))
        return ratio if math.isfinite(ratio) else self.ratio_of(look)

    @staticmethod
    def ratio_of(look: Look) -> float:
        """Return the median over the matrices of one look of update over weight; or NaN."""
        found = [
            v.ratio for v in look.params.values() if v.weight > 0 and v.dims > 1 and v.grad > 0
        ]
        return median(found) if found else math.nan

    def smooth(self, width: int) -> list[float]:
        """Return running means of the losses over `width` steps, those not finite as infinite."""
        out: list[float] = []
        for end in range(width, self.step + 1):
            part = self.losses[end - width : end]
            total = sum(part)
            whole = math.isfinite(total) or all(map(math.isfinite, part))
            out.append(total / width if whole else math.inf)
        return out

    @property
    def scale(self) -> float:
        """The loss before the first step: of training rows where they were judged."""
        first = [v for v in self.losses[:1] if math.isfinite(v)]
        judged = self.start.get("train_eval", math.nan)
        return judged if math.isfinite(judged) else (first[0] if first else math.nan)

    @property
    def diverged(self) -> bool:
        """Whether losses, or gradients, had grown beyond measure before they were not finite.

        Numbers that break out of a sound run, as the logarithm of a zero, leave no such trail.
        """
        if self.broken is None:
            return False
        losses = [abs(v) for v in self.losses[max(0, self.broken - 8) : self.broken + 1]]
        trail = [v for v in losses if math.isfinite(v)]
        if trail and max(trail) > 2 * abs(self.scale) + 1e-6:
            return True
        norms = [n for n in self.norms[: self.broken] if math.isfinite(n) and n > 0]
        return len(norms) > 1 and max(norms[-4:]) > 1e3 * median(norms[: max(1, len(norms) // 2)])
