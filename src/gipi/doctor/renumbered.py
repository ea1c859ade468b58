"""Classes that are numbered otherwise in one split than in the other.

A learner of the training rows then says one class wherever validation rows carry another: as a
folder that is listed in another order does.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

LEAST = 10
"""Rows that a class must be told of, and carry."""
BEYOND = 6.0
"""Standard errors by which the other number must be told more often."""
HOLDS = 0.5
"""Share of the rows of a class that must carry the other number."""


@dataclass(frozen=True)
class Renumbered:
    """What classes of the training rows are called in validation, columns of a sheet both.

    to     column -> column, those that are told and carried alike left out
    share  of the validation rows that agree once they are renumbered; before: as they are
    """

    to: dict[int, int]
    share: float
    before: float
    z: float


def renumbered(told_nk: Tensor, Y_nk: Tensor) -> Renumbered | None:
    """Return how classes must be renumbered for a learner to agree with labels; None if at all.

    Each of the classes that changed must be told where another is carried, and those alone.
    """
    good = Y_nk.sum(1) > 0
    told, label = told_nk.argmax(1)[good], Y_nk.argmax(1)[good]
    k, n = Y_nk.shape[1], int(good.sum())
    if n == 0:
        return None
    pairs = torch.bincount(told * k + label, minlength=k * k).view(k, k)
    to: dict[int, int] = {}
    for t in range(k):
        u = int(pairs[t].argmax())
        if u != t and int(pairs[t, u]) >= LEAST:
            # Of the rows that carry u most are told t as well: one name went for the other.
            if int(pairs[:, u].argmax()) != t or float(pairs[t, u]) < HOLDS * float(pairs[t].sum()):
                return None
            to[t] = u
    if len(to) < 2 or set(to) != set(to.values()):
        return None
    now = sum(int(pairs[t, u]) for t, u in to.items())
    was = sum(int(pairs[t, t]) for t in to)
    z = (now - was) / math.sqrt(max(1, now + was))
    same = sum(int(pairs[t, t]) for t in range(k) if t not in to)
    return Renumbered(to, (now + same) / n, (was + same) / n, z) if z > BEYOND else None
