"""What a net confuses: how it tells the class that it tells worst, beside all of them.

Where rows of two equally frequent classes look alike to a net, the shares of both that it tells add
up to one: of one of them it tells no more than half, however well it tells the others, and takes
nearly all others for that other class. A class that is merely not learned yet is taken for several.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gipi.doctor.experiment import outputs, whole
from gipi.doctor.judge import answers

if TYPE_CHECKING:
    from gipi.doctor.experiment import Experiment

ROWS = 1000
LEAST = 10
"""Rows of a class, at least, of which a share is told from chance."""
HALF, NOTHING = 0.5, 1e-30
ONE = 0.85
"""Share of its wrong answers that name one and the same class, where it is taken for that one."""


@dataclass(frozen=True)
class Told:
    """Shares of right answers; of numbers, the explained share of the variance, both times.

    worst  in the class told worst; rows: as many has it
    one    share of the wrong answers there that name one and the same class
    """

    all: float
    worst: float
    rows: int
    one: float = 1.0

    @property
    def confused(self) -> bool:
        """Whether no more than half of a class is told, but for chance, and taken for one other.

        Of half of n rows two standard errors are 1 / √n.
        """
        return self.worst <= HALF + 1 / math.sqrt(self.rows) and self.one >= ONE


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
    if kind == "numbers":
        return _numbers(said, y)
    told_n = answers(said, y) if y.numel() == len(y) else None  # one answer a row
    if told_n is None:
        return None
    told_n, label = told_n.flatten().long(), y.flatten()
    shares = [
        (float((told_n[own] == c).double().mean()), int(own.sum()), int(c))
        for c in torch.unique(label[label >= 0]) if int((own := label == c).sum()) >= LEAST
    ]  # fmt: skip
    if len(shares) < 2:
        return None
    worst, count, c = min(shares)
    wrong = told_n[(label == c) & (told_n != c)]
    one = float((wrong == wrong.mode().values).double().mean()) if len(wrong) else 1.0
    known = label >= 0
    return Told(float((told_n == label)[known].double().mean()), worst, count, one)


def _numbers(said: Tensor, y: Tensor) -> Told | None:
    if said.numel() != y.numel():
        return None
    asked = y.reshape(len(y), -1).double()
    left = (asked - said.reshape(len(y), -1).double()).square().sum()
    explained = float(1 - left / (asked - asked.mean(0)).square().sum().clamp_min(NOTHING))
    return Told(explained, explained, len(y))
