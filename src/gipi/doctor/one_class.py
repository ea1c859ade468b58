"""Marks of one class among several, or of one of two: a word, a stamp, a column that is filled.

Shapes: n rows, d columns, k classes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gipi.doctor.telling import FLAG, WRONG, most_wrong

FEW, NEARLY = 128, 0.75
"""Rows that are asked first, and the part of what a mark explains that it must explain of them."""
MOST = 4_000_000
"""Numbers that are compared, times classes."""
WORDS, SELDOM = 400, 0.02
"""Words whose presence is asked, the most frequent; share of the texts that hold one, at least."""


@dataclass(frozen=True)
class Mark:
    """A column that has one value in the rows of one class and in hardly any other.

    there  whether it has that value: (n,)
    """

    column: int
    label: int
    share: float
    there: Tensor


def marks_of_one(x_nd: Tensor, Y_nk: Tensor) -> list[Mark]:
    """Return the columns by whose most usual value within a class its rows are told from others.

    Or all others from its rows. R² between the value's presence and the class, with hardly a row
    marked wrongly.
    """
    found: list[Mark] = []
    n, k = Y_nk.shape
    if x_nd.numel() * k > MOST or n < 2:
        return found
    if n > FEW:  # a part of the rows knows already where there is nothing near it
        part = torch.arange(FEW) * n // FEW
        if not _marks(x_nd[part], Y_nk[part], NEARLY * FLAG, 1.0):
            return found
    return _marks(x_nd, Y_nk, FLAG, WRONG)


def _marks(x_nd: Tensor, Y_nk: Tensor, least: float, wrong: float) -> list[Mark]:
    found, k = list[Mark](), Y_nk.shape[1]
    for c in range(k):
        own = Y_nk[:, c] > 0.5
        if not bool(own.any()) or bool(own.all()):
            continue
        for rows in (own, ~own):
            usual = x_nd[rows].median(0).values
            there = x_nd == usual
            share = _agree(there.double(), own.double())
            for j in (share >= least).nonzero().flatten().tolist():
                if most_wrong(there[:, j].double(), own.long()) <= wrong and not any(
                    m.column == j and m.label == c for m in found
                ):
                    found.append(Mark(j, c, float(share[j]), there[:, j]))
    return found


def presence(X_nt: Tensor) -> tuple[Tensor, Tensor]:
    """Return whether texts hold each of the most frequent words, (n, words), and their ids."""
    ids, where = torch.unique(X_nt, return_inverse=True)
    there = torch.zeros(len(X_nt), len(ids), dtype=torch.float64)
    there.scatter_(1, where.reshape(len(X_nt), -1), 1.0)
    often = there.mean(0)
    some = ((often >= SELDOM) & (often < 1)).nonzero().flatten()
    some = some[often[some].argsort(descending=True)[:WORDS]]
    return there[:, some], ids[some]


def _agree(there_nd: Tensor, own_n: Tensor) -> Tensor:
    a, b = there_nd - there_nd.mean(0), own_n - own_n.mean()
    norm = a.square().sum(0) * b.square().sum()
    return (b @ a).square() / norm.clamp_min(1e-30)
