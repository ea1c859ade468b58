"""Errors of what a learner and the net say together, among rows that both are sure of.

Each is sure of some rows for reasons of its own, and errs there. Where classes merely meet, rows
that both are sure of are right; where labels are wrong they are contradicted as often as others.

Shapes: m rows of the validation sheet, k classes of the sheets.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from gipi.doctor.one_sided import probabilities
from gipi.doctor.sheet import origin, sheet
from gipi.doctor.sides import margin
from gipi.doctor.told import told_of_val

if TYPE_CHECKING:
    from torch import Tensor

    from gipi.doctor.facts import Facts

LEAST = 0.02
"""Probability below which neither is taken at its word."""
FLAT, FLATTEST = 0.6, 0.5
"""Errors among the quarter, and the eighth, of the rows that both are surest of, as shares of all
errors, from which on they do not vanish: of classes that meet they do."""
KNOWS = 0.7
"""Errors, of what guessing costs, up to which both know enough to be asked: where they know little
more than guessing, nothing that they are sure of is."""


@dataclass(frozen=True)
class Agreed:
    """Share of validation rows that are told wrongly: of all, of a quarter, of an eighth."""

    every: float
    firm: float
    firmest: float

    def flat(self, chance: float) -> bool:
        """Whether errors are nearly as frequent where both are sure."""
        known = 0 < self.every <= KNOWS * chance
        return known and self.firm >= FLAT * self.every and self.firmest >= FLATTEST * self.every


def agreed(facts: Facts) -> Agreed | None:
    """Return the errors of both together: the product of their probabilities.

    None where the net tells no three classes.
    """
    start, train, val = origin(facts), sheet(facts), sheet(facts, "val")
    said = probabilities(facts, start.val)
    if said is None or train is None or val is None or train.label is None:
        return None
    number = train.Y.argmax(1)
    classes = [train.label[number == c][:1] for c in range(train.Y.shape[1])]
    if any(not len(c) for c in classes):
        return None
    net = said[0][val.rows][:, torch.cat(classes)].double()
    linear = told_of_val(facts).double().clamp(0, 1)
    both = (_share(linear).log() + _share(net).log()).softmax(1)
    wrong = (both.argmax(1) != val.Y.argmax(1)).double()
    order = margin(both).argsort(descending=True)
    quarter, eighth = (wrong[order[: max(1, len(order) // k)]] for k in (4, 8))
    return Agreed(float(wrong.mean()), float(quarter.mean()), float(eighth.mean()))


def _share(p_mk: Tensor) -> Tensor:
    return (p_mk / p_mk.sum(1, keepdim=True).clamp_min(1e-12)).clamp_min(LEAST)
