"""What single tokens say of targets, whatever their order: in training, and in validation.

Where tokens of validation were numbered by another list, each says what another one says: what is
learned from training rows is worth nothing there, though its own rows tell as much.

Shapes: n rows, v words, k columns of targets.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from gipi.doctor.drift import domain
from gipi.doctor.shallow import ask_ridge, explained, predict, ridge
from gipi.doctor.sheet import cpu, linear_answer, sheet
from gipi.doctor.told import told_of_val

if TYPE_CHECKING:
    from gipi.doctor.facts import Facts

WORDS = 300
TOLD, LOST, OTHER = 0.1, 0.5, 0.25
"""Share of targets that words must tell; of that, what must be lost in validation, and how much
more its own rows must tell."""
APART = 0.7
"""Area under the curve from which on validation is told from training by its words. Lists in the
order of how frequent words are do not change that."""


@dataclass(frozen=True)
class Said:
    """Shares of targets that words tell: of training, of validation, and of it by its own rows."""

    train: float
    val: float
    own: float


def says_other(facts: Facts, pads: set[int]) -> Said | None:
    """Return what tokens say where those of validation say something else; None where they do not.

    Each row by the others, with a ridge regression on log(1 + count).
    """
    train, val = sheet(facts), sheet(facts, "val")
    if train is None or val is None or facts.train is None or facts.val is None:
        return None
    known = linear_answer(facts)
    if known.found and explained(told_of_val(facts), val.Y, 1) > (1 - LOST / 2) * known.score:
        return None  # a look that was taken already says as much of validation
    X, V = cpu(facts.train[0])[train.rows], cpu(facts.val[0])[val.rows]
    ids, counts = torch.unique(X, return_counts=True)
    good = ~torch.isin(ids, torch.tensor(sorted(pads), dtype=ids.dtype))
    words = ids[good][counts[good].argsort(descending=True)[:WORDS]].sort().values
    if len(words) < 2:
        return None
    ours, theirs = (_bags(Z, words) for Z in (X, V))
    factors = ridge(ours)
    here, _ = ask_ridge(factors, train.Y)
    if here.score < TOLD or not here.found:
        return None
    told = predict(factors, train.Y, theirs, penalty=here.penalty).double()
    Y, base = val.Y.double(), train.Y.double().mean(0)
    there = float(1 - (Y - told).square().sum() / (Y - base).square().sum().clamp_min(1e-12))
    if here.score - there < LOST * here.score:
        return None
    alone, _ = ask_ridge(ridge(_bags(V, torch.unique(V)[: 2 * WORDS])), val.Y)
    if not alone.found or alone.score - there < OTHER * here.score:
        return None
    apart = domain(facts)
    if apart is None or apart[0] < APART or not apart[1]:
        # The same words under other targets, as classes in another order, still go with them.
        goes_with, _ = ask_ridge(ridge(told.float()), val.Y)
        if goes_with.score > OTHER * alone.score:
            return None
    return Said(here.score, there, alone.score)


def _bags(X: Tensor, words: Tensor) -> Tensor:
    """Return log(1 + count) of every word in every row: (n, v)."""
    at = torch.searchsorted(words, X.contiguous()).clamp_max(len(words) - 1)
    hit = (words[at] == X).float()
    return torch.zeros(len(X), len(words)).scatter_add_(1, at, hit).log1p()
