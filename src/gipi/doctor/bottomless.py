"""Whether a loss of one number a row, whatever its targets are, has a top and no bottom.

Likelihoods of waiting times, of ranks or of weighted rows have targets of several columns, so that
no output can be held against its target. The shape of the loss still tells its sign: what is to be
minimised does not fall on all ways.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from gipi.doctor.copies import peeking
from gipi.doctor.experiment import call

if TYPE_CHECKING:
    from gipi.doctor.facts import Facts

WAYS, STEPS = 3, (-3, -2, -1, 0, 1, 2, 3)
"""Random directions of all outputs, and where the loss is asked along each."""
FAR = (3, 10)
"""Times the largest target or output, at which it must still be below where it began: an error
that flattens is concave before its target too, and rises behind it."""
ROWS, OUT = 8, 6
"""Rows that are asked one by one, and how far out their curve must still be there: actions that
turned out badly are rightly made less likely, by a logarithm that is straight out there."""
SHAKEN, TIMES, WIDER = 0.1, 10.0, 5.0
"""Deviation of what is added to weights, times that they are then as large, and times that outputs
must spread as widely: weights that have a norm, and outputs that are standardised, hold them."""
CURVED = 1e-5
"""Second difference of the loss by its size that is more than rounding."""


def bottomless(facts: Facts) -> bool:
    """Whether the loss is concave along random ways of the outputs and falls to both ends of each.

    f(s - 1) + f(s + 1) < 2 f(s) of f(s) = loss(o + s d, y), d normal
    """
    now, y = facts.outputs, facts.batch[1]
    if facts.kind != "numbers" or not isinstance(now, Tensor) or not now.is_floating_point():
        return False
    if now.numel() != len(now) or len(y) != len(now) or y.numel() == len(y) or len(y) < WAYS:
        return False
    if not bool(y.isfinite().all() & now.isfinite().all()):
        return False
    wide = max(1.0, float(y.abs().max()), float(now.abs().max()))
    generator = torch.Generator().manual_seed(0)
    try:
        for _ in range(WAYS):
            way = torch.randn(now.shape, generator=generator).to(now)
            path = [_loss(facts, now + s * way) for s in STEPS]
            begun = path[len(path) // 2]
            if max(path[0], path[-1]) >= begun or not _concave(path):
                return False
            for s in FAR:
                if any(not _loss(facts, now + sign * s * wide * way) < begun for sign in (-1, 1)):
                    return False
        return _each_row(facts, now) and _are_free(facts, now)
    except (RuntimeError, ValueError, IndexError, TypeError):
        return False


def _each_row(facts: Facts, now: Tensor) -> bool:
    """Whether no row alone is convex, and curves do not straighten to both sides."""
    near, out = 0.0, 0.0
    for row in range(min(ROWS, len(now))):
        curves = []
        for middle in (0, -OUT, OUT):
            path = []
            for at in (middle - 1, middle, middle + 1):
                said = now.clone()
                said[row] = at
                path.append(_loss(facts, said))
            curve = path[0] - 2 * path[1] + path[2]
            if curve > CURVED * max(abs(v) for v in path):
                return False
            curves.append(curve)
        near, out = near + curves[0], out + min(curves[1:])
    return out < 0.5 * near < 0


def _are_free(facts: Facts, now: Tensor) -> bool:
    """Whether outputs grow with weights that learn: what is bounded may rightly be maximised."""
    exp, slopes = facts.exp, facts.gradients
    moved = [(p, g != 0) for n, p in exp.model.named_parameters()
             if p.is_floating_point() and (g := slopes[n]) is not None]  # fmt: skip
    generator = torch.Generator().manual_seed(0)
    with peeking(exp, weights=[p for p, _ in moved], seed=True), torch.no_grad():
        for p, learns in moved:
            shaken = p + SHAKEN * torch.randn(p.shape, generator=generator).to(p)
            p.copy_(torch.where(learns, TIMES * shaken, p))
        exp.model.train()
        said = call(exp.model, facts.batch[0])
    return not float(said.std()) <= WIDER * float(now.std())


def _concave(path: list[float]) -> bool:
    size = max(abs(v) for v in path)
    return all(a - 2 * b + c < -CURVED * size
               for (a, b), (_, c) in itertools.pairwise(itertools.pairwise(path)))  # fmt: skip


def _loss(facts: Facts, said: Tensor) -> float:
    with peeking(facts.exp, seed=True), torch.no_grad():
        return float(facts.exp.loss(said, facts.batch[1]))
