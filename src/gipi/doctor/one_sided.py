"""Rows that look like one class and carry another one as often, whatever they look like.

Somebody who gives one kind of rows the label of another leaves no wrong labels where a learner is
sure: of that kind it is never sure. What gives it away is that all else is told well.

Shapes: n rows, k classes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gipi.doctor.experiment import outputs
from gipi.doctor.shallow import auc
from gipi.doctor.sheet import classes_of

if TYPE_CHECKING:
    from gipi.doctor.facts import Facts

LIKE, FIRM, SELDOM = 0.1, 0.9, 0.2
"""Probability from which on a row looks like a class, and is told firmly; share of a class up to
which hardly any row is."""
LEAST = 15
WHOLE = 0.9
"""Share of a class that looks like it, and share of those that are of the two classes."""
SHARES = 0.2, 0.6
WRONG = 0.1
"""Share of the other classes' rows that may be told wrongly."""
BY_CHANCE, TOLD = 3.0, 0.75
"""Standard errors of the area under the curve, and the area, up to which two classes are not told
apart. Classes that meet are: errors dwell near the border, and their probabilities say so."""


@dataclass(frozen=True)
class OneSided:
    """Rows that look like class `like`, of which a `share` carries class `given`.

    told   area under the curve by which the net tells the two apart among them
    apart  rows of `given` that do not look so
    """

    like: int
    given: int
    share: float
    told: float
    apart: int


def one_sided(p_nk: Tensor, label_n: Tensor) -> OneSided | None:
    """Return the two classes of which the first passes for the second, by rows not trained on."""
    p_nk, wrong = p_nk.double(), p_nk.argmax(1) != label_n
    for like in range(p_nk.shape[1]):
        own, so = label_n == like, p_nk[:, like] > LIKE
        seldom = (p_nk[own, like] > FIRM).double().mean() <= SELDOM
        if int((own & so).sum()) < max(LEAST, WHOLE * int(own.sum())) or not bool(seldom):
            continue
        given = int(torch.bincount(label_n[so & ~own], minlength=p_nk.shape[1]).argmax())
        other = label_n == given
        share = float((so & other).sum() / (so & (own | other)).sum())
        few = min(int((so & other).sum()), int((~so & other).sum())) < LEAST
        if few or not SHARES[0] <= share <= SHARES[1]:
            continue
        rest = ~own & ~other
        two = so & (own | other)
        if float(two.sum() / so.sum()) < WHOLE or not bool(rest.any()):
            continue
        told = auc((p_nk[:, like] / (p_nk[:, like] + p_nk[:, given]))[two], own[two])
        a, b = int(own[two].sum()), int(other[two].sum())
        chance = math.sqrt((a + b + 1) / (12 * a * b))
        known = float(wrong[rest].double().mean()) <= WRONG
        if known and told <= min(TOLD, 0.5 + BY_CHANCE * chance):
            return OneSided(like, given, share, told, int((~so & other).sum()))
    return None


def probabilities(facts: Facts, data: tuple[Any, Any] | None) -> tuple[Tensor, Tensor] | None:
    """Return what the net says of rows of three or more classes, and their labels."""
    if data is None or facts.kind != "classes" or not isinstance(data[1], Tensor):
        return None
    label = classes_of(facts, data[1])
    if label is None:
        return None
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        said = outputs(facts.exp, data[0])
    if not isinstance(said, Tensor) or said.ndim != 2 or said.shape[1] < 3:
        return None
    good = (label >= 0) & (label < said.shape[1])
    p = said.float() if facts.loss.of_probabilities else said.float().softmax(1)
    return (p.cpu(), label.cpu()) if bool(good.all()) and bool(p.isfinite().all()) else None
