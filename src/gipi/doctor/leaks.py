"""Leaks that no column is by itself: parts of a sum, means of few targets, marks of one class.

Each is asked what all other columns tell: where they tell as much, nothing was given away.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from gipi.doctor.encoded import encoded
from gipi.doctor.one_class import marks_of_one, presence
from gipi.doctor.shallow import ask_ridge, ridge
from gipi.doctor.sheet import cpu, origin, sheet
from gipi.doctor.together import together

if TYPE_CHECKING:
    from gipi.doctor.facts import Facts
    from gipi.doctor.shallow import Answer
    from gipi.doctor.sheet import Sheet

SURE = 0.99
REST = 0.9
SOMETHING = 0.05
"""What all others must explain where a rule may have made the data: then nothing else tells."""
TIMES = 10.0
"""Times as much as by the leak that must be left unexplained by all others."""
MOST_NUMBERS = 400


@dataclass(frozen=True)
class Leak:
    """Columns, or words, that give the target away, and what is said of it.

    how    what they do
    sure   whether nothing natural does so
    """

    columns: tuple[int, ...]
    how: str
    share: float
    rest: float
    sure: bool


def leak_of_several(facts: Facts, X: Tensor) -> Leak | None:
    """Return a leak of a table, of images or of series, (n, ...), or None."""
    train = sheet(facts)
    if train is None or not X[0].numel() >= 3:
        return None
    x = torch.nan_to_num(cpu(X)[train.rows].double()).flatten(1)
    if X.ndim == 2 and x.shape[1] <= MOST_NUMBERS:
        found = _encoded(facts, X) or (_parts(facts, x, train) if train.label is None else None)
        if found is not None:
            return found
    return _marked(x, train) if train.label is not None and train.Y.shape[1] > 2 else None


def leak_of_words(facts: Facts) -> tuple[Leak, list[int]] | None:
    """Return the words that give the class of a text away, and their ids."""
    train, data = sheet(facts), origin(facts).train
    if train is None or train.label is None or data is None or train.Y.shape[1] < 2:
        return None
    there, ids = presence(cpu(data[0])[train.rows])
    found = _marked(there, train, something=True) if there.shape[1] > 1 else None
    return None if found is None else (found, [int(ids[j]) for j in found.columns])


def _parts(facts: Facts, x_nd: Tensor, train: Sheet) -> Leak | None:
    y = origin(facts).y
    if train.Y.shape[1] != 1 or y is None:
        return None
    found = together(x_nd, cpu(y)[train.rows].reshape(-1).double(), sure=SURE)
    if found is None:
        return None
    rest = told_by_others(x_nd, list(found.columns), train.Y)
    if not SOMETHING < rest <= REST or (1 - rest) < TIMES * (1 - found.share):
        return None
    how = f"together explain {found.share:.2%} of the target, none of them more than "
    how += f"{found.alone:.0%} alone, all others {rest:.0%}"
    return Leak(found.columns, how, found.share, rest, sure=False)  # a law may be exact as well


def _encoded(facts: Facts, X: Tensor) -> Leak | None:
    """Return columns that hold means of targets, of the training rows or of both splits."""
    start = origin(facts)
    y, val = start.y, start.val
    if y is None or y.reshape(len(y), -1).shape[1] != 1:
        return None
    if facts.kind == "classes" and len(torch.unique(y)) > 2:
        return None
    x, t = cpu(X), cpu(y).reshape(-1).double()
    found = encoded(x, t)
    if not found and val is not None and isinstance(val[0], Tensor) and val[0].ndim == 2:
        u = cpu(val[1]).reshape(len(val[1]), -1).double()
        if u.shape[1] == 1 and val[0].shape[1:] == x.shape[1:]:
            found = encoded(torch.cat([x, cpu(val[0])]), torch.cat([t, u[:, 0]]))
    if not found:
        return None
    how = "the mean target of the rows that share its value, of few rows each: the own target is "
    how += "among them, and what differs by chance is known"
    return Leak(tuple(found), how, share=1.0, rest=0.0, sure=True)


def _marked(x_nd: Tensor, train: Sheet, *, something: bool = False) -> Leak | None:
    found = marks_of_one(x_nd, train.Y)
    columns = sorted({m.column for m in found})
    if not columns or len(columns) > max(4, x_nd.shape[1] // 2):
        return None
    rests = each_by_others(x_nd, columns, train.Y)
    kept = []
    for mark in found:
        rest = rests[mark.label]
        fair = rest <= REST and 1 - rest >= TIMES * (1 - mark.share)
        if fair and (not something or rest > SOMETHING):
            kept.append(mark)
    if not kept:
        return None
    told = sorted({m.label for m in kept})
    best, rest = max(m.share for m in kept), max(rests[c] for c in told)
    how = f"tell rows of {len(told)} of {train.Y.shape[1]} classes from all others by one value "
    how += f"({best:.0%} explained), all else {rest:.0%}"
    named = tuple(sorted({m.column for m in kept}))
    return Leak(named, how, best, rest, len(told) >= train.Y.shape[1] - 1)


def told_by_others(x_nd: Tensor, without: list[int], Y_nk: Tensor) -> float:
    """Return the share of targets that all other columns explain, bent too."""
    answer = _others(x_nd, without, Y_nk)
    return 0.0 if answer is None else max(0.0, answer.score)


def each_by_others(x_nd: Tensor, without: list[int], Y_nk: Tensor) -> list[float]:
    """Return the same of each column of targets."""
    answer = _others(x_nd, without, Y_nk)
    if answer is None:
        return [0.0] * Y_nk.shape[1]
    off = (Y_nk - answer.told_nk).square().mean(0) / Y_nk.var(0, correction=0).clamp_min(1e-12)
    return [max(0.0, 1 - float(v)) for v in off]


def _others(x_nd: Tensor, without: list[int], Y_nk: Tensor) -> Answer | None:
    others = torch.ones(x_nd.shape[1], dtype=torch.bool)
    others[without] = False
    left = x_nd[:, others]
    left = (left - left.mean(0)) / left.std(0).clamp_min(1e-12)
    return ask_ridge(ridge(bent(left)), Y_nk)[0] if left.shape[1] else None


def bent(x: Tensor, width: int = 120) -> Tensor:
    """Return columns and random rectifiers of them, so that a linear reader sees curves."""
    generator = torch.Generator().manual_seed(0)
    x = x.clamp(-5, 5)
    bend = torch.randn(x.shape[1], width, generator=generator).double() / max(x.shape[1], 1) ** 0.5
    offset = torch.randn(width, generator=generator).double()
    return torch.cat([x, (x @ bend + offset).relu()], 1)
