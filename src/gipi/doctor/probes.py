"""Counter-experiments: short trainings from the same state, with and without one change."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import cycle, islice
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gipi.doctor.begun import goes_on, mark, note, shorter
from gipi.doctor.copies import duplicate, peeking, put_generators
from gipi.doctor.experiment import batches, call, outputs, plain_step, take_step
from gipi.doctor.hushed import hushed
from gipi.doctor.judge import right
from gipi.doctor.seeded import seeded

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from gipi.doctor.experiment import Experiment

TAIL = 0.3
"""Share of a short training whose losses are compared."""
FLOOR = 0.2
"""Progress that can be missed counts as at least this share of the loss at the beginning."""


def after_steps(
    exp: Experiment,
    steps: int,
    *,
    change: Callable[[Experiment], object] | None = None,
    own_step: bool = True,
    on: Iterable[tuple[Any, Any]] | None = None,
) -> tuple[list[float], Experiment]:
    """Train a copy of `exp` for some steps, changed first, and return its losses and the copy.

    own_step  False: the plain step, whatever the user's own one does
    on        batches to train on, repeated; None: those of the run, from its first epoch on, with
              its schedule
    The same batches come in every call, and the same random numbers are drawn, so that two calls
    differ by their change alone. What was trained so before, for as many steps or fewer, is gone on
    with; so a training that comes later may go on with this one.
    """
    whole = own_step and on is None and exp.begun is not None and goes_on(exp)
    known = shorter(exp, change, steps) if whole else None
    twin = duplicate(exp if known is None else known.exp)
    if change is not None and known is None:
        change(twin)
    begin = None
    if whole and goes_on(twin):
        begin = mark(twin) if known is None else known.mark
    losses, rates = ([], []) if known is None else (list(known.losses), list(known.rates))
    with seeded(twin), hushed():
        if known is not None:
            put_generators(known.drawn)
        given = list(islice(on if on is not None else first_batches(twin, steps), steps))
        twin.model.train()
        each = 1 if twin.scheduler_every == "step" else twin.steps_per_epoch
        planned = -(-twin.total_steps // each)
        for xb, yb in islice(cycle(given), len(losses), steps):
            rates.append(float(twin.optimizer.param_groups[0].get("lr", math.nan)))
            loss = (take_step if own_step else plain_step)(twin, xb, yb)
            losses.append(float(loss.detach()) if isinstance(loss, Tensor) else float(loss))
            if not math.isfinite(losses[-1]):
                losses += [math.inf] * (steps - len(losses))
                break
            if on is None and twin.scheduler is not None and len(losses) % each == 0:
                _scheduled(twin, losses[-1], planned)
        if begin is not None:
            note(exp, twin, losses=losses, rates=rates, change=change, begin=begin)
    return losses, twin


def _scheduled(exp: Experiment, loss: float, planned: int) -> None:
    """Step the schedule, unless the planned run has used it up: it ends, or comes to an error."""
    if isinstance(exp.scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau):
        exp.scheduler.step(loss)
    elif getattr(exp.scheduler, "last_epoch", 0) < planned:
        exp.scheduler.step()


def first_batches(exp: Experiment, steps: int) -> Iterable[tuple[Any, Any]]:
    """Yield the batches of the first epochs, enough for some steps."""
    epoch = 0
    while True:
        seen = 0
        for pair in batches(exp, epoch):
            seen += 1
            yield pair
        epoch += 1
        if not seen or epoch > steps:
            return


# ---------------------------------------------------------------------- with and without


def horizon(exp: Experiment, share: float = 0.25, *, low: int = 30, high: int = 120) -> int:
    """Return steps for a counter-experiment: a share of the run, within bounds."""
    return max(low, min(high, round(share * exp.total_steps)))


@dataclass(frozen=True)
class Trial:
    """Short trainings of one state, on the same batches, that differ by one change each.

    begin  loss at the state they start from, on the batches of their ends
    tails  name -> losses of the last steps; firsts: their first losses
    """

    begin: float
    tails: dict[Any, list[float]]
    firsts: dict[Any, float]
    twins: dict[Any, Experiment]

    def end(self, name: Any) -> float:
        """Return the mean loss of the last steps; infinite where it left what is finite."""
        return end_of(self.tails[name], 1.0)

    @property
    def ends(self) -> dict[str, float]:
        """The ends, by name."""
        return {str(name): self.end(name) for name in self.tails}

    def missed(self, own: Any, other: Any, *, begin: float = math.nan) -> float:
        """Return the share of the progress made by `other` that `own` lacks; infinite if it broke.

        begin  loss that counts as no progress; default: that of the state they started from, or
               of the changed one where the change alone made it lower
        """
        mine, better = self.end(own), self.end(other)
        if not math.isfinite(better):
            return -math.inf if math.isfinite(mine) else 0.0
        known = [v for v in (self.begin, self.firsts[other]) if math.isfinite(v)]
        start = begin if math.isfinite(begin) else min(known, default=math.nan)
        if not math.isfinite(start):
            start = better
        return (mine - better) / max(start - better, FLOOR * abs(start), 1e-12)

    def sure(self, own: Any, other: Any) -> bool:
        """Whether `other` ends lower by more than two standard errors of paired differences.

        Or at every one of five steps and more: losses that still come down from a height are wild.
        """
        pairs = zip(self.tails[own], self.tails[other], strict=True)
        gains = [a - b for a, b in pairs]
        if not all(math.isfinite(g) for g in gains):
            return not math.isfinite(self.end(own)) and math.isfinite(self.end(other))
        if len(gains) >= 5 and min(gains) > 0:
            return True
        mean = sum(gains) / len(gains)
        spread = math.sqrt(sum((g - mean) ** 2 for g in gains) / max(1, len(gains) - 1))
        return mean > 2 * spread / math.sqrt(len(gains))

    def and_also(self, other: Trial) -> Trial:
        """Return both trials as one: of the same state and steps."""
        return Trial(
            self.begin,
            {**self.tails, **other.tails},
            {**self.firsts, **other.firsts},
            {**self.twins, **other.twins},
        )

    def best(self, *names: Any) -> Any:
        """Return the name among `names` (all by default) whose end is lowest."""
        return min(names or self.tails, key=self.end)


def compared(
    exp: Experiment,
    changes: dict[Any, Callable[[Experiment], object] | None],
    *,
    steps: int,
    own_step: bool = True,
    own: Sequence[float] | None = None,
) -> Trial:
    """Train copies of `exp` for some steps, each changed in its own way, and compare their ends.

    The batches and random numbers are the same for all. A change that raises `CannotRepair` is
    left to the caller.

    own  losses of the run without a change, where they are known: it is not trained then, and has
         no twin
    """
    known = own is not None and len(own) >= steps and all(map(math.isfinite, own[:steps]))
    tails: dict[Any, list[float]] = {}
    firsts: dict[Any, float] = {}
    twins: dict[Any, Experiment] = {}
    size = max(1, round(TAIL * steps))
    for name, change in changes.items():
        if own is not None and known and change is None:
            losses = list(own[:steps])
        else:
            losses, twins[name] = after_steps(exp, steps, change=change, own_step=own_step)
        tails[name], firsts[name] = losses[-size:], losses[0]
    return Trial(level(exp, steps, size), tails, firsts, twins)


def level(exp: Experiment, steps: int, last: int, *, most: int = 8) -> float:
    """Return the present mean loss of the last of the first `steps` batches, in training mode."""
    with seeded(exp):
        given = list(islice(first_batches(exp, steps), steps))
    given = given[-last:][:most]
    with peeking(exp, seed=True), torch.no_grad():
        exp.model.train()
        found = [float(exp.loss(call(exp.model, _augmented(exp, xb)), yb)) for xb, yb in given]
    return sum(found) / len(found) if found else math.nan


def _augmented(exp: Experiment, xb: Any) -> Any:
    return exp.transform(xb) if exp.transform is not None else xb


def end_of(losses: Sequence[float], share: float = TAIL) -> float:
    """Return the mean of the last share of losses; infinite where one of them is not finite."""
    part = list(losses[-max(1, round(len(losses) * share)) :])
    return sum(part) / len(part) if all(math.isfinite(v) for v in part) else math.inf


# ---------------------------------------------------------------------- single questions


def loss_on(exp: Experiment, xb: Any, yb: Any, *, training: bool = False) -> float:
    """Return the loss of some rows, in evaluation (or training) mode, without a gradient.

    Nothing of the experiment changes, running means of a batch norm neither.
    """
    with peeking(exp, seed=True), torch.no_grad():
        if training:
            exp.model.train()
            return float(exp.loss(call(exp.model, xb), yb))
        return float(exp.loss(outputs(exp, xb), yb))


def accuracy_on(exp: Experiment, xb: Any, yb: Any) -> float:
    """Return the share of right classes, or NaN where outputs and targets are no classes."""
    with seeded(exp):
        return right(outputs(exp, xb), yb)
