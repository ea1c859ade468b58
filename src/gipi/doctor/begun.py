"""Short trainings that are the beginning of a longer one: it goes on where they ended."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from gipi.doctor.copies import generators, weights_of
from gipi.doctor.experiment import tensors
from gipi.doctor.judge import Judge
from gipi.doctor.seeded import seeded

if TYPE_CHECKING:
    from collections.abc import Callable

    from gipi.doctor.experiment import Experiment
    from gipi.doctor.facts import Facts

WATCHED = "losses of the run that is watched"
MOST = 4
"""Beginnings that are kept at a time: each holds a copy of the weights and of the optimizer."""
BYTES = 2**27
"""Weights above which none is kept."""


@dataclass(repr=False, eq=False)
class Begun:
    """A copy that was trained for some steps, and all that its next step hangs on.

    exp     the copy; losses, rates: of the steps that it took
    change  what was done to it before the first of them; None: nothing
    mark    what it was then
    drawn   where the generators stand
    start   how it was judged then, once somebody goes on with it
    """

    exp: Experiment
    losses: list[float]
    rates: list[float]
    change: Callable[[Experiment], object] | None
    mark: tuple[Any, ...]
    drawn: tuple[Any, ...]
    start: dict[str, float] = field(default_factory=dict)


def goes_on(exp: Experiment) -> bool:
    """Whether the steps of `exp` are the same whether they are taken at once or in two parts.

    They are where the batches hang on seed and epoch alone, and where nothing but the weights, the
    schedule and the generators is carried on: a step or an evaluation of the user's own may count.
    """
    by_value = isinstance(exp.scheduler, torch.optim.lr_scheduler.ReduceLROnPlateau)
    own = exp.step is not None or exp.evaluate is not None or exp.keep_best or by_value
    return not own and exp.device.type == "cpu" and tensors(exp.train) is not None


def mark(exp: Experiment) -> tuple[Any, ...]:
    """Return numbers that tell an experiment from what it is after any step or change."""
    held = [t.detach().double() for t in weights_of(exp) if t.is_floating_point()]
    told = [float(v) for t in held for v in (t.sum(), t.norm())]
    options = [
        {k: v for k, v in group.items() if k != "params"} for group in exp.optimizer.param_groups
    ]
    rows = [id(part) for part in tensors(exp.train) or ()]
    return (told, repr(options), rows, exp.epochs, exp.batch_size, exp.shuffle, exp.seed)


def note(
    first: Experiment,
    twin: Experiment,
    *,
    losses: list[float],
    rates: list[float],
    change: Callable[[Experiment], object] | None,
    begin: tuple[Any, ...],
) -> None:
    """Keep a training of `first` that has just ended; call it before the generators are put back.

    begin  its `mark` before its first step
    """
    kept, size = first.begun, sum(t.numel() * t.element_size() for t in weights_of(twin))
    if kept is None or size > BYTES or not all(map(math.isfinite, losses)):
        return
    kept[:] = [b for b in kept if b.change is not change or len(b.losses) > len(losses)]
    kept.append(Begun(twin, list(losses), list(rates), change, begin, generators()))
    plain = [b for b in kept if b.change is None]
    kept[:] = plain + [b for b in kept if b.change is not None][-(MOST - len(plain)) :]


def shorter(
    first: Experiment, change: Callable[[Experiment], object] | None, steps: int
) -> Begun | None:
    """Return a training of `first` with this change that took no more steps than that."""
    return next(
        (b for b in first.begun or () if b.change is change and len(b.losses) <= steps), None
    )


def beginning(
    first: Experiment, twin: Experiment, change: Callable[[Experiment], object] | None
) -> Begun | None:
    """Return a beginning of what `twin`, which no step was taken of, is to be trained for.

    It is taken out of what is kept: whoever gets it trains it on. A short training may have taken
    more steps than a short run has; that is no beginning of it.
    """
    if not first.begun or not goes_on(twin):
        return None
    here = mark(twin)
    kept: list[Begun] = first.begun
    for known in kept:
        fits = known.change is change and len(known.losses) <= twin.total_steps
        if fits and known.mark == here:
            kept.remove(known)
            with seeded(twin):
                known.start = Judge(twin)()
            return known
    return None


def so_far(facts: Facts) -> list[float] | None:
    """Return the losses of the run that is watched: short trainings from its start go as it went.

    None where none is, or where it may have gone otherwise.
    """
    known: list[float] | None = facts.notes.get(WATCHED)
    return known if facts.start is not None and goes_on(facts.start.exp) else None
