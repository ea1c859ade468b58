"""A copy trained on a part of the training rows and judged on the rest, which it never saw."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.optim.lr_scheduler import ReduceLROnPlateau

from gipi.doctor.begun import goes_on
from gipi.doctor.copies import duplicate
from gipi.doctor.edits import kept, stored
from gipi.doctor.experiment import tensors
from gipi.doctor.finding import CannotRepair
from gipi.doctor.play import JUDGEMENTS, play
from gipi.doctor.sheet import take

if TYPE_CHECKING:
    from gipi.doctor.experiment import Experiment
    from gipi.doctor.facts import Facts
    from gipi.doctor.trace import Trace

PARTS = 3
"""A third of the rows is left out."""
MOST = 2000
"""Steps, and training rows, up to which a run is taken again: more than the run itself is seldom
too little to be told by."""


def spared(
    facts: Facts, *, part: int = 0, kinds: Tensor | None = None, longer: bool = False
) -> tuple[Trace, Experiment] | None:
    """Train a copy from the start without a third of its rows, which become its validation rows.

    As many epochs as the run, and so fewer steps. None where rows cannot be chosen by their number,
    are too many to do the run again, or too few for one step of it; where the schedule of the rate
    would not end with the copy as it does with the run; and where the copy fails.

    part    which third; kinds: the class of every row, of each of which a third is left out
    longer  as many steps as the run, and so more epochs; judged at its end alone
    """
    first = facts.start
    if first is None or not may_spare(facts, longer=longer):
        return None
    exp = first.exp
    pair = stored(exp.train)
    if pair is None:
        return None
    X, y = pair
    out = chosen(len(X), part, kinds=kinds)
    twin = duplicate(exp)
    rest: Any = take(X, out.nonzero().flatten())
    twin.val, twin.keep_best = (rest, y[out]), False
    try:
        twin.train = kept(exp.train, _whole_batches(~out, _batch(exp)))
        per_epoch = twin.steps_per_epoch
        if not per_epoch:
            return None
        if longer:
            twin.epochs = exp.total_steps / per_epoch
        trace = play(twin, quiet=True, brief=longer)
    except (CannotRepair, RuntimeError, ValueError):  # as `attempt` takes what fails by itself
        return None
    facts.passes += trace.step + 2 * (1 + len(trace.epochs))
    return trace, twin


def may_spare(facts: Facts, *, longer: bool = False) -> bool:
    """Whether a run is short, of few rows, and one that can be done again on fewer.

    A schedule by steps ends with as many steps, one by epochs with as many epochs; one that follows
    the validation loss would be steered by the very rows that are asked.
    """
    first = facts.start
    if first is None or first.exp.step is not None or first.exp.train is None:
        return False
    schedule, every = first.exp.scheduler, "step" if longer else "epoch"
    if isinstance(schedule, ReduceLROnPlateau):
        return False
    if schedule is not None and first.exp.scheduler_every != every:
        return False
    return first.exp.total_steps <= MOST and first.rows <= MOST


def price(facts: Facts, *, longer: bool = False) -> int:
    """Return the passes that one copy costs, its judgements among them."""
    first = facts.start or facts
    exp, rows = first.exp, first.rows
    steps, size = exp.total_steps, _batch(exp)
    if not longer and size:
        left = rows - -(-rows // PARTS)
        left -= left % size == 1 < size
        steps = min(steps, math.ceil(exp.epochs * -(-left // size)))
    epochs = math.ceil(exp.epochs * PARTS / (PARTS - 1) if longer else exp.epochs)
    judged = 1 if longer and goes_on(exp) else min(epochs, JUDGEMENTS * 3 // 2)
    return steps + 2 * (1 + judged)


def chosen(rows: int, part: int, *, kinds: Tensor | None = None) -> Tensor:
    """Return which rows are left out: a third at random, of every class where there are some."""
    order = torch.randperm(rows, generator=torch.Generator().manual_seed(0))
    if kinds is not None:
        order = order[kinds.cpu()[order].argsort(stable=True)]
    out = torch.zeros(rows, dtype=torch.bool)
    out[order[part::PARTS]] = True
    return out


def _batch(exp: Experiment) -> int:
    """Return the rows of a batch; 0 where a loader does not tell."""
    if tensors(exp.train) is not None:
        return exp.batch_size
    return getattr(exp.train, "batch_size", None) or 0


def _whole_batches(keep: Tensor, size: int) -> Tensor:
    """Return which rows are kept, one less where it would be a batch of its own.

    A run need not have had one, and a batch norm cannot be trained on it.
    """
    if size > 1 and int(keep.sum()) % size == 1:
        order = torch.randperm(len(keep), generator=torch.Generator().manual_seed(1))
        keep = keep.clone()
        keep[order[keep[order]][0]] = False
    return keep
