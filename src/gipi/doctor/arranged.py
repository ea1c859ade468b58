"""In which order rows are stored: that of time, or that of a number of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from gipi.doctor.drift import LEAST
from gipi.doctor.edits import first_rows
from gipi.doctor.sheet import cpu, noted, origin, the_lens
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
FIRST = 400
"""Rows by which it is told whether neighbours are alike."""
STANDS = 0.05
"""Share of neighbours that must differ in a column that says whether they are independent."""
EVENLY = 0.9
"""Share of a column that the number of the row tells where it drifts as time goes on."""
STILL = 1e-4
"""An angle by which nothing has moved: what was standardised has lost some digits."""


def in_time_order(facts: Facts) -> bool:
    """Whether neighbouring training rows are alike: they seem to be stored in order of time."""
    facts = origin(facts)
    if facts.exp.declared.get("time_ordered"):
        return True
    if divided_by_value(facts) == "unevenly":
        return False
    lens, X = the_lens(facts), first_rows(facts.exp.train, FIRST)
    if lens is None or not isinstance(X, Tensor) or len(X) < 50:
        return False
    flat = lens.straight(cpu(X)).double()
    flat = flat - flat.mean(0)
    lag = (flat[1:] * flat[:-1]).sum(0) / flat.square().sum(0).clamp_min(1e-12)
    return float(lag.topk(min(3, len(lag))).values.mean()) > 0.3


def divided_by_value(facts: Facts) -> str:
    """Return how rows stand in the order of a number of their own and were divided there, if so.

    A column, a figure of the whole row, or a target, that rises (or falls) through training and
    lies beyond in validation. A clock does so too, but evenly; and what is measured one after the
    other is alike in more than its time. Of rows that only were sorted, the differences of
    neighbours in any other column have a lag correlation of -1/2, as those of independent numbers.
    "unevenly": it is no clock; "evenly": it may be the time of events that come at random; "": not
    so. No clock is an angle that goes round once at most, but by ticks.
    """
    return _kept(facts)[0]


def by_a_clock(facts: Facts) -> bool:
    """Whether rows in order are those of a time: there is a clock among them, or more says so.

    What is measured one after the other is alike beyond what changes slowly: the differences of
    neighbours are not those of independent numbers.
    """
    if origin(facts).exp.declared.get("time_ordered"):
        return True
    how, clock = _kept(facts)
    if how or clock:
        return clock
    lens, X = the_lens(facts), first_rows(origin(facts).exp.train, FIRST)
    if lens is None or not isinstance(X, Tensor):
        return True
    flat = lens.straight(cpu(X)).double()
    return _goes_evenly(flat) or not _are_free(flat.diff(dim=0))


def _kept(facts: Facts) -> tuple[str, bool]:
    """Return what `divided_by_value` returns, and whether rows are sorted by a clock instead."""
    return noted(facts, "kept in order", _order)


def _order(facts: Facts) -> tuple[str, bool]:
    X, V = facts.X, facts.val[0] if facts.val is not None else None
    if X is None or not isinstance(V, Tensor) or X.shape[1:] != V.shape[1:]:
        return "", False
    if not X.is_floating_point() or X.ndim < 2 or min(len(X), len(V)) < LEAST:
        return "", False
    a, b = (Z.detach().flatten(1).cpu().double() for Z in (X, V))
    width = a.shape[1]
    a, b = (torch.cat([Z, figures], 1) for Z, figures in ((a, _figures(a)), (b, _figures(b))))
    y, v = facts.y, facts.val[1] if facts.val is not None else None
    if y is not None and isinstance(v, Tensor) and y.is_floating_point() and len(y) == len(a):
        a, b = (torch.cat([Z, t.detach().flatten(1).cpu().double()], 1)
                for Z, t in ((a, y.reshape(len(y), -1)), (b, v.reshape(len(v), -1))))  # fmt: skip
    moved = a.diff(dim=0)
    rises = (moved >= 0).all(0) & (b.amin(0) >= a.amax(0))
    falls = (moved <= 0).all(0) & (b.amax(0) <= a.amin(0))
    by = (rises | falls) & ((moved != 0).double().mean(0) > DISTINCT)
    if not bool(by.any()):
        return _by_angle(a[:, :width], b[:, :width]) if X.ndim == 2 else ("", False)
    at = (a[:, by] - a[0, by]) / (a[-1, by] - a[0, by])
    even = torch.linspace(0, 1, len(a), dtype=at.dtype)[:, None]
    if not _are_free(moved[:, ~by]):
        return "", True
    clocks = (at - even).abs().amax(0) < CLOCK
    if not bool(clocks.any()):
        return "unevenly", False
    steps = at[:, clocks].diff(dim=0)
    ticks = not bool((steps.std(0) > IRREGULAR * steps.mean(0)).all())
    return ("", True) if ticks else ("evenly", False)


def _figures(flat: Tensor) -> Tensor:
    """Return figures of whole rows that files are sorted by: mean, size, spread, ends."""
    made = (flat.mean(1), flat.abs().mean(1), flat.std(1, correction=0), flat.norm(dim=1),
            flat.amin(1), flat.amax(1))  # fmt: skip
    return torch.stack(made, 1)


def _goes_evenly(flat: Tensor) -> bool:
    """Whether a column grows with the number of its row, but for little: it was drifting."""
    at = torch.linspace(-1, 1, len(flat), dtype=flat.dtype)
    flat = flat - flat.mean(0)
    told = (at @ flat).square() / (at.square().sum() * flat.square().sum(0)).clamp_min(1e-12)
    return bool((told > EVENLY).any())


def _are_free(moved: Tensor) -> bool:
    """Whether differences of neighbours are those of independent numbers; some must be left.

    Columns that stand still for long, as the names of groups in order, say nothing, and none
    that only rises or falls: it may be what the rows are sorted by.
    """
    one_way = (moved >= 0).all(0) | (moved <= 0).all(0)
    rest = moved[:, ~one_way & ((moved != 0).double().mean(0) > STANDS)]
    if rest.shape[1] == 0:
        return False
    lag = (rest[1:] * rest[:-1]).sum(0) / rest.square().sum(0)
    return float(lag.topk(min(3, len(lag))).values.mean()) < FREE


def _by_angle(a: Tensor, b: Tensor) -> tuple[str, bool]:
    """Return whether rows are sorted by an angle, and those of validation lie beyond on the circle.

    A clock that is told as an angle comes round: where rows go along a part of the circle once, and
    everything else about them is in no order, they were sorted by it.
    """
    members, found = angles(a, b)
    for at, beyond in found:
        end = float(at[-1])
        if bool((at.diff() >= -STILL).all()) and float(beyond.min()) >= end - STILL:
            others = torch.ones(a.shape[1], dtype=torch.bool)
            others[members] = False
            free = not _ticks(at) and _are_free(a[:, others].diff(dim=0))
            return ("unevenly", False) if free else ("", True)
    return "", False


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
