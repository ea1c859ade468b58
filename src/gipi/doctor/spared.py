"""A copy trained on a part of the training rows and judged on the rest, which it never saw."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gipi.doctor.copies import duplicate
from gipi.doctor.edits import kept, stored
from gipi.doctor.finding import CannotRepair
from gipi.doctor.play import play
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

    None where rows cannot be chosen by their number, or are too many to do the run again.

    part    which third; kinds: the class of every row, of each of which a third is left out
    longer  as many steps as the run, not as many epochs
    """
    first = facts.start
    if not may_spare(facts) or first is None:
        return None
    exp = first.exp
    pair = stored(exp.train)
    if pair is None:
        return None
    X, y = pair
    out = chosen(len(X), part, kinds)
    twin = duplicate(exp)
    try:
        twin.train = kept(exp.train, ~out)
    except CannotRepair:
        return None
    rest: Any = take(X, out.nonzero().flatten())
    twin.val, twin.keep_best = (rest, y[out]), False
    if longer:
        twin.epochs = exp.epochs * len(X) / max(1, int((~out).sum()))
    trace = play(twin, quiet=True)
    facts.passes += trace.step
    return trace, twin


def may_spare(facts: Facts) -> bool:
    """Whether a run is short, of few rows, and one that can be done again on fewer."""
    first = facts.start
    if first is None or first.exp.step is not None or first.exp.train is None:
        return False
    return first.exp.total_steps <= MOST and first.rows <= MOST


def chosen(rows: int, part: int, kinds: Tensor | None = None) -> Tensor:
    """Return which rows are left out: a third at random, of every class where there are some."""
    order = torch.randperm(rows, generator=torch.Generator().manual_seed(0))
    if kinds is not None:
        order = order[kinds.cpu()[order].argsort(stable=True)]
    out = torch.zeros(rows, dtype=torch.bool)
    out[order[part::PARTS]] = True
    return out
