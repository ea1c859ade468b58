"""What a net confuses: how it tells the class that it tells worst, beside all of them.

Where rows of two equally frequent classes look alike to a net, the shares of both that it tells add
up to one: of one of them it tells no more than half, however well it tells the others.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gipi.doctor.experiment import outputs, whole
from gipi.doctor.judge import right

if TYPE_CHECKING:
    from gipi.doctor.experiment import Experiment

ROWS = 1000
LEAST = 10
"""Rows of a class, at least, of which a share is told from chance."""
HALF, NOTHING = 0.5, 1e-30


@dataclass(frozen=True)
class Told:
    """Shares of right answers; of numbers, the explained share of the variance, both times.

    worst  in the class told worst; rows: as many has it
    """

    all: float
    worst: float
    rows: int

    @property
    def confused(self) -> bool:
        """Whether no more than half of that class is told, but for chance: two standard errors."""
        return self.worst <= HALF + 2 * math.sqrt(HALF * (1 - HALF) / self.rows)


def told(exp: Experiment, data: Any, *, kind: str) -> Told | None:
    """Return how a net tells up to `ROWS` rows of a split as they are, in evaluation mode.

    None for answers that are neither classes nor numbers, or where fewer than two classes have
    `LEAST` rows.
    """
    rows = whole(data, ROWS, exp.device) if kind in ("classes", "binary", "numbers") else None
    if rows is None or not isinstance(rows[1], Tensor):
        return None
    said, y = outputs(exp, rows[0]), rows[1]
    if not isinstance(said, Tensor) or len(said) != len(y) or not bool(said.isfinite().all()):
        return None
    asked = y.reshape(len(y), -1)
    if kind == "numbers":
        if said.numel() != y.numel():
            return None
        asked = asked.double()
        left = (asked - said.reshape(len(y), -1).double()).square().sum()
        spread = (asked - asked.mean(0)).square().sum().clamp_min(NOTHING)
        explained = float(1 - left / spread)
        return Told(explained, explained, len(y))
    if asked.shape[1] != 1:
        return None
    label = asked[:, 0]
    of_class = [label == c for c in torch.unique(label[label >= 0])]
    shares = [(right(said[c], y[c]), int(c.sum())) for c in of_class if int(c.sum()) >= LEAST]
    return Told(right(said, y), *min(shares)) if len(shares) > 1 else None
