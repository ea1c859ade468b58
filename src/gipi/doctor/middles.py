"""What the best answer that looks at no input comes to: the middle of the training targets."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from gipi.doctor.copies import left_alone

if TYPE_CHECKING:
    from gipi.doctor.facts import Facts

ROWS = 2048
LEAST = 1e-30


def loss_of_middle(facts: Facts) -> float:
    """Return the loss of the best constant among mean and median of the training targets."""
    exp, y = facts.exp, facts.y
    assert y is not None
    good = y.reshape(len(y), -1).isfinite().all(1)
    rows = y[good][:ROWS]
    loss = exp.judge or exp.loss
    shape = (len(rows), *facts.outputs.shape[1:])
    found = []
    for middle in (y[good].mean(0), y[good].median(0).values):
        told = middle.expand_as(rows)
        if told.numel() == math.prod(shape):
            told = told.reshape(shape)
        with torch.no_grad():
            found.append(float(loss(told.contiguous(), rows)))
    return max(min(found), LEAST)


def least_known(facts: Facts) -> float:
    """Return the size of a loss that means nothing is known yet, whatever the targets' mean.

    A net of numbers begins by learning their mean: only below the loss of who knows that alone has
    it learned from its inputs.
    """
    first = facts.start or facts
    y, size = first.y, first.yardstick or math.inf
    if first.kind != "numbers" or y is None or not y.is_floating_point():
        return size
    key = "loss of the middle"
    if key not in first.notes:
        try:
            with left_alone(first.exp, seed=True):  # a loss may draw, or count what it is asked
                first.notes[key] = loss_of_middle(first)
        except (RuntimeError, ValueError, TypeError, IndexError, AttributeError):
            first.notes[key] = size
    middle: float = first.notes[key]
    return min(size, middle) if middle > LEAST else size
