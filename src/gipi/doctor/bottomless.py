"""Whether a loss, whatever its targets are, has a top and no bottom.

Likelihoods of waiting times, of ranks, of counts or of weighted rows have outputs that cannot be
held against their targets: logarithms, shapes, several columns. The shape of the loss still tells
its sign: what is to be minimised does not fall on all ways.
"""

from __future__ import annotations

import itertools
import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from gipi.doctor.against import loss_of
from gipi.doctor.asked import FAILS, parts_of, put_together
from gipi.doctor.copies import peeking
from gipi.doctor.experiment import call

if TYPE_CHECKING:
    from gipi.doctor.facts import Facts

KINDS = ("numbers", "reconstruct", "other")
WAYS, STEPS = 3, (-3, -2, -1, 0, 1, 2, 3)
"""Random directions of all outputs, and where the loss is asked along each."""
FAR = (3, 10)
"""Times the largest target or output, at which it must still be below where it began: an error
that flattens is concave before its target too, and rises behind it."""
OUTWARD, FASTER = (4, 8, 16), 2.5
"""Times the same from which to which a loss falls faster and faster, and how much more it falls on
the second way, twice as long as the first: what is straight out there falls twice as much."""
ROWS, OUT = 8, 6
"""Rows that are asked one by one, and how far out their curve must still be there: actions that
turned out badly are rightly made less likely, by a logarithm that is straight out there."""
SHAKEN, TIMES, WIDER = 0.1, 10.0, 5.0
"""Deviation of what is added to weights, times that they are then as large, and times that outputs
must spread as widely: weights that have a norm, and outputs that are standardised, hold them."""
CURVED = 1e-5
"""Second difference of the loss by its size that is more than rounding."""
MOST = 2**16
"""Numbers of outputs up to which they are asked."""


def bottomless(facts: Facts) -> bool:
    """Whether the loss falls to both ends of random ways of outputs: concave, or ever faster.

    f(s - 1) + f(s + 1) < 2 f(s) of f(s) = loss(o + s d, y), d normal; or f(8) - f(16) > 2.5 (f(4) -
    f(8)). Outputs that are several are asked one by one as well.
    """
    now, y = parts_of(facts.outputs), facts.batch[1]
    if facts.kind not in KINDS or now is None or sum(p.numel() for p in now) > MOST:
        return False
    if not all(bool(p.isfinite().all()) for p in now) or any(len(p) < WAYS for p in now):
        return False
    largest = [float(p.abs().max()) for p in now if p.numel()]
    if isinstance(y, Tensor) and y.numel() and not y.is_complex():
        if not bool(y.isfinite().all()):
            return False
        largest.append(float(y.abs().max()))
    wide = max(1.0, *largest)
    chosen = [tuple(range(len(now)))]
    chosen += [(n,) for n in range(len(now)) if len(now) > 1]
    try:
        every = (Ways(facts, now, which) for which in chosen)
        return any(_without(ways, wide) and _are_free(ways) for ways in every)
    except FAILS:
        return False


class Ways:
    """The loss along random directions of some of the parts of outputs.

    which  numbers of the parts that are moved
    """

    def __init__(self, facts: Facts, now: list[Tensor], which: tuple[int, ...]) -> None:
        self.facts, self.now, self.which = facts, now, which
        self.generator = torch.Generator().manual_seed(0)

    def drawn(self) -> dict[int, Tensor]:
        """Return a direction of the parts."""
        return {n: torch.randn(self.now[n].shape, generator=self.generator).to(self.now[n])
                for n in self.which}  # fmt: skip

    def at(self, way: dict[int, Tensor], by: float) -> float:
        """Return the loss where all rows are moved."""
        moved = [p + by * way[n] if n in way else p for n, p in enumerate(self.now)]
        return loss_of(self.facts, put_together(self.facts.outputs, moved))

    def row(self, row: int, way: dict[int, Tensor], at: float) -> float:
        """Return the loss where one row is put somewhere along its direction."""
        moved = list(self.now)
        for n, part in way.items():
            moved[n] = self.now[n].clone()
            one = part[row]
            moved[n][row] = at * (torch.ones_like(one) if one.numel() == 1 else one)
        return loss_of(self.facts, put_together(self.facts.outputs, moved))


def _without(ways: Ways, wide: float) -> bool:
    drawn = [ways.drawn() for _ in range(WAYS)]
    if all(_sinks(ways, way, wide) for way in drawn):
        return not _rises(ways, drawn[0], wide)
    if not all(_bowed(ways, way, wide) for way in drawn):
        return False
    y = ways.facts.batch[1]
    alone = isinstance(y, Tensor) and y.numel() == len(y)  # no reward stands beside an action
    return not _rises(ways, drawn[0], wide) if alone else _each_row(ways, drawn[0])


def _sinks(ways: Ways, way: dict[int, Tensor], wide: float) -> bool:
    """Whether the loss falls ever faster to both ends; far below what can be computed, it did."""
    begun = ways.at(way, 0)
    for sign in (-1, 1):
        path = [begun, *(ways.at(way, sign * s * wide) for s in OUTWARD)]
        if any(math.isnan(v) for v in path) or not path[0] > path[1] >= path[2] >= path[3]:
            return False
        if math.isfinite(path[3]) and not path[2] - path[3] > FASTER * (path[1] - path[2]):
            return False
    return True


def _rises(ways: Ways, way: dict[int, Tensor], wide: float) -> bool:
    """Whether a row alone makes the loss larger at both ends: it has its own right place."""
    for row in range(min(ROWS, *(len(p) for p in way.values()))):
        there = ways.row(row, way, 0)
        if all(ways.row(row, way, s * OUTWARD[0] * wide) > there for s in (-1, 1)):
            return True
    return False


def _bowed(ways: Ways, way: dict[int, Tensor], wide: float) -> bool:
    path = [ways.at(way, s) for s in STEPS]
    begun = path[len(path) // 2]
    if max(path[0], path[-1]) >= begun or not _concave(path):
        return False
    return all(ways.at(way, sign * s * wide) < begun for s in FAR for sign in (-1, 1))


def _each_row(ways: Ways, way: dict[int, Tensor]) -> bool:
    """Whether no row alone is convex, and curves do not straighten to both sides."""
    near, out = 0.0, 0.0
    for row in range(min(ROWS, *(len(p) for p in way.values()))):
        curves = []
        for middle in (0, -OUT, OUT):
            path = [ways.row(row, way, at) for at in (middle - 1, middle, middle + 1)]
            curve = path[0] - 2 * path[1] + path[2]
            if curve > CURVED * max(abs(v) for v in path):
                return False
            curves.append(curve)
        near, out = near + curves[0], out + min(curves[1:])
    return out < 0.5 * near < 0


def _are_free(ways: Ways) -> bool:
    """Whether outputs grow with weights that learn: what is bounded may rightly be maximised."""
    exp, slopes = ways.facts.exp, ways.facts.gradients
    moved = [(p, g != 0) for n, p in exp.model.named_parameters()
             if p.is_floating_point() and (g := slopes[n]) is not None]  # fmt: skip
    generator = torch.Generator().manual_seed(0)
    with peeking(exp, weights=[p for p, _ in moved], seed=True), torch.no_grad():
        for p, learns in moved:
            shaken = p + SHAKEN * torch.randn(p.shape, generator=generator).to(p)
            p.copy_(torch.where(learns, TIMES * shaken, p))
        exp.model.train()
        said = parts_of(call(exp.model, ways.facts.batch[0]))
    return said is None or not any(
        float(said[n].std()) <= WIDER * float(ways.now[n].std()) for n in ways.which
    )


def _concave(path: list[float]) -> bool:
    size = max(abs(v) for v in path)
    return all(a - 2 * b + c < -CURVED * size
               for (a, b), (_, c) in itertools.pairwise(itertools.pairwise(path)))  # fmt: skip
