"""In which order rows are stored: that of time, or that of a number of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from gipi.doctor.drift import LEAST
from gipi.doctor.edits import first_rows
from gipi.doctor.sheet import cpu, origin, the_lens
from gipi.doctor.turns import angles

if TYPE_CHECKING:
    from gipi.doctor.facts import Facts

DISTINCT, CLOCK, FREE = 0.9, 0.1, -0.35
"""Share of neighbours that differ in a column by which rows are sorted; how far a clock may be off
an even one, as a share of the whole time; lag correlation of differences of independent numbers
(-1/2), with room for chance."""
IRREGULAR = 0.5
"""Deviation of the steps of a column, in their mean, from which on it hardly is a clock that ticks:
1 for values that were drawn evenly and sorted, and for events that come at random."""
EQUAL = 0.02
"""Deviation of the numbers of rows at places of a clock, in their mean: files hold equally many."""
STILL = 1e-4
"""An angle by which nothing has moved: what was standardised has lost some digits."""


def in_time_order(facts: Facts) -> bool:
    """Whether neighbouring training rows are alike: they seem to be stored in order of time."""
    facts = origin(facts)
    if facts.exp.declared.get("time_ordered"):
        return True
    if divided_by_value(facts) == "unevenly":
        return False
    lens, X = the_lens(facts), first_rows(facts.exp.train, 400)
    if lens is None or not isinstance(X, Tensor) or len(X) < 50:
        return False
    flat = lens.straight(cpu(X)).double()
    flat = flat - flat.mean(0)
    lag = (flat[1:] * flat[:-1]).sum(0) / flat.square().sum(0).clamp_min(1e-12)
    return float(lag.topk(min(3, len(lag))).values.mean()) > 0.3


def divided_by_value(facts: Facts) -> str:
    """Return how rows stand in the order of a number of their own and were divided there, if so.

    A column, or the mean of a row, that rises (or falls) through training and lies beyond in
    validation. A clock does so too, but evenly; and what is measured one after the other is alike
    in more than its time. Of rows that only were sorted, the differences of neighbours in any other
    column have a lag correlation of -1/2, as those of independent numbers. "unevenly": it is no
    clock; "evenly": it may be the time of events that come at random; "": not so. No clock is an
    angle that goes round once at most, but by ticks.
    """
    facts = origin(facts)
    X, V = facts.X, facts.val[0] if facts.val is not None else None
    if X is None or not isinstance(V, Tensor) or X.shape[1:] != V.shape[1:]:
        return ""
    if not X.is_floating_point() or X.ndim < 2 or min(len(X), len(V)) < LEAST:
        return ""
    a, b = (Z.detach().flatten(1).cpu().double() for Z in (X, V))
    a, b = (torch.cat([Z, Z.mean(1, keepdim=True)], 1) for Z in (a, b))
    moved = a.diff(dim=0)
    rises = (moved >= 0).all(0) & (b.amin(0) >= a.amax(0))
    falls = (moved <= 0).all(0) & (b.amax(0) <= a.amin(0))
    by = (rises | falls) & ((moved != 0).double().mean(0) > DISTINCT)
    if not bool(by.any()):
        return "unevenly" if X.ndim == 2 and _by_angle(a[:, :-1], b[:, :-1]) else ""
    at = (a[:, by] - a[0, by]) / (a[-1, by] - a[0, by])
    even = torch.linspace(0, 1, len(a), dtype=at.dtype)[:, None]
    if not _are_free(moved[:, ~by]):
        return ""
    clocks = (at - even).abs().amax(0) < CLOCK
    if not bool(clocks.any()):
        return "unevenly"
    steps = at[:, clocks].diff(dim=0)
    return "evenly" if bool((steps.std(0) > IRREGULAR * steps.mean(0)).all()) else ""


def _are_free(moved: Tensor) -> bool:
    """Whether differences of neighbours are those of independent numbers; some must be left."""
    rest = moved[:, (moved != 0).any(0)]
    if rest.shape[1] == 0:
        return False
    lag = (rest[1:] * rest[:-1]).sum(0) / rest.square().sum(0)
    return float(lag.topk(min(3, len(lag))).values.mean()) < FREE


def _by_angle(a: Tensor, b: Tensor) -> bool:
    """Whether rows are sorted by an angle, and those of validation lie beyond on the circle.

    A clock that is told as an angle comes round: where rows go along a part of the circle once, and
    everything else about them is in no order, they were sorted by it.
    """
    members, found = angles(a, b)
    for at, beyond in found:
        end = float(at[-1])
        if bool((at.diff() >= -STILL).all()) and float(beyond.min()) >= end - STILL:
            others = torch.ones(a.shape[1], dtype=torch.bool)
            others[members] = False
            return not _ticks(at) and _are_free(a[:, others].diff(dim=0))
    return False


def _ticks(at: Tensor) -> bool:
    """Whether an angle goes on by equal steps, with equally many rows at each but for the ends."""
    new = at.diff() > STILL
    steps = at.diff()[new]
    begins = torch.cat([new.new_ones(1), new]).nonzero().flatten()
    count = begins.diff()[1:].double()
    if len(count) < 2:
        return False
    even = float(count.std()) <= EQUAL * float(count.mean())
    return even and float(steps.std()) <= IRREGULAR * float(steps.mean())
