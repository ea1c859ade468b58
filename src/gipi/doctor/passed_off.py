"""Rows of one class of which some were given the label of another, as shallow learners see them.

What a learner says of rows of two classes tells their labels the better, the surer it is: where two
classes meet, its surest answers for either are right. Where some of class a were given class b, the
surest answers for a are as often wrong as any other for a, and those for b are right. Learners know
no row by heart, so training rows, which are many, speak as well. What they see may be little: of
two learners the one that explains the labels better is asked, and a net must tell the labels of
such rows of validation no better.

Shapes: n rows, k classes of the sheets.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from gipi.doctor.one_sided import SHARES, TOLD, WRONG, OneSided
from gipi.doctor.shallow import auc, neighbours, told_by_near
from gipi.doctor.sheet import linear_answer, sheet
from gipi.doctor.told import told_of_val

if TYPE_CHECKING:
    from gipi.doctor.facts import Facts

SURE = 9.0
"""Twice the gain in log-likelihood that is above it by chance in one of a thousand; that much must
be left of all pairs together when each has paid for the number of looks (2 log of it)."""
FEW = 8
"""Rows of validation of either label, and of the class that is told apart, that are compared."""
BY_CHANCE = 2.0
"""Standard errors of the area under the curve up to which a net does not tell the labels. Fewer
than where the net itself finds the rows: it may see what tells them apart, and learners do not."""
AS_MANY = 0.5
"""Share of the rows in question that carry the other label in validation, of that in training."""
ASKED = 0.1
"""Rows of class b that a learner takes for class a, of all of a, and share of the half of a that it
is surest of, from which on it is asked whether they were given b."""
PARTS = 60
"""Of the rows, in the order of what is said of them."""
SLOPES = torch.logspace(-0.7, 1.3, 15, dtype=torch.float64)[:, None, None]
BORDERS = torch.linspace(0.04, 0.96, 12, dtype=torch.float64)
"""Slopes at the border, and parts of the rows that may lie on one side of it."""


@dataclass(frozen=True)
class OneWay:
    """What explains labels of two classes best.

    share   of the first class that carries the second
    gain    twice the log-likelihood that it gains over none
    fit     log-likelihood
    border  what is said below which a row is of the first
    """

    share: float
    gain: float
    fit: float
    border: float


def one_way(said_n: Tensor, second_n: Tensor) -> OneWay:
    """Return the share of the first class that was given the second, by what is said for that.

    P(second | s) = r + (1 - r) σ(a (s - b)): r is 0 where two classes meet.
    """
    s, order = said_n.double().sort()
    mean, std = s.mean(), s.std().clamp_min(1e-12)
    s = (s - mean) / std
    borders = s.quantile(BORDERS)
    # Rows that are said nearly the same of are one, with as many of either label as they have.
    part = torch.arange(len(s)) * min(PARTS, len(s)) // len(s)
    rows = torch.bincount(part).double()
    second = torch.bincount(part, weights=second_n[order].double())
    s = torch.bincount(part, weights=s) / rows
    fits = torch.sigmoid(SLOPES * (s - borders[:, None]))
    best: list[tuple[float, int]] = []
    shares = torch.arange(0.0, 0.66, 0.05, dtype=torch.float64).tolist()
    for r in shares:
        p = (r + (1 - r) * fits).clamp(1e-3, 1 - 1e-3)
        total = p.log() @ second + (1 - p).log() @ (rows - second)
        best.append((float(total.max()), int(total.argmax()) % len(borders)))
    i = max(range(len(best)), key=lambda i: best[i][0])
    border = float(borders[best[i][1]] * std + mean)
    return OneWay(shares[i], 2 * (best[i][0] - best[0][0]), best[i][0], border)


def passed_off(facts: Facts, said: tuple[Tensor, Tensor]) -> tuple[list[OneSided], Tensor] | None:
    """Return the pairs of classes of which the first is given as the second, and training rows.

    None where there are none, or where more than labels of such pairs is told wrongly.

    said  `probabilities` of the validation rows
    """
    train, val = sheet(facts), sheet(facts, "val")
    if train is None or val is None or train.label is None:
        return None
    given, number = train.Y.argmax(1), train.Y.shape[1]
    kinds = [train.label[given == c][:1] for c in range(number)]
    if number < 3 or any(not len(c) for c in kinds):
        return None
    told = [linear_answer(facts).told_nk, told_by_near(train.near, train.Y)]
    pairs = sorted({pair for t in told for pair in _suspected(t, given)})
    classes = torch.cat(kinds)
    net, given_val = said[0][val.rows][:, classes].double(), val.Y.argmax(1)
    if not _else_well(net.argmax(1), given_val, pairs):
        return None
    found: list[tuple[float, OneSided, Tensor]] = []
    likely: list[tuple[int, int]] = []
    price = 2 * math.log(number * (number - 1))
    for a, b in pairs:
        two = (given == a) | (given == b)
        fits = [one_way((t[:, b] - t[:, a])[two], given[two] == b) for t in told]
        which = max(range(len(told)), key=lambda i: fits[i].fit)
        fit, s = fits[which], told[which][:, b] - told[which][:, a]
        if fit.gain >= SURE and fit.share >= ASKED:
            likely.append((a, b))
        if fit.gain <= price or not SHARES[0] <= fit.share <= SHARES[1]:
            continue
        new = told_of_val(facts)
        if which:
            new = told_by_near(neighbours(train.straight, of=val.straight), train.Y)
        like = new[:, b] - new[:, a] < fit.border
        one, other, apart = (int((m & (given_val == c)).sum())
                             for m, c in ((like, a), (like, b), (~like, b)))  # fmt: skip
        if min(one, other, apart) < FEW or other < AS_MANY * fit.share * (one + other):
            continue
        seen = like & ((given_val == a) | (given_val == b))
        area = auc((net[:, a] / (net[:, a] + net[:, b]))[seen], (given_val == a)[seen])
        chance = math.sqrt((one + other + 1) / (12 * one * other))
        if area > min(TOLD, 0.5 + BY_CHANCE * chance):
            continue
        pair = OneSided(int(classes[a]), int(classes[b]), fit.share, area, apart)
        rows = ((given == b) & (s < fit.border)).nonzero().flatten()
        found.append((fit.gain, pair, train.rows[rows[s[rows].argsort()]]))
    sure = sum(gain - price for gain, _, _ in found) >= SURE
    if not sure or not _else_well(net.argmax(1), given_val, likely):
        return None
    best = sorted(found, key=lambda f: -f[0])
    return [f[1] for f in best], torch.cat([f[2] for f in best])


def _suspected(told_nk: Tensor, given_n: Tensor) -> list[tuple[int, int]]:
    """Return the pairs a, b of which rows that are told as a, the surest too, often carry b."""
    number = told_nk.shape[1]
    hit = torch.bincount(told_nk.argmax(1) * number + given_n, minlength=number**2)
    hit, rows = hit.view(number, number), torch.bincount(given_n, minlength=number)
    hit.fill_diagonal_(0)
    found = []
    for a, b in (hit >= (ASKED * rows).clamp_min(FEW)[:, None]).nonzero().tolist():
        two = (given_n == a) | (given_n == b)
        surest = (told_nk[two, b] - told_nk[two, a]).argsort()[: max(1, int(rows[a]) // 2)]
        if float((given_n[two][surest] == b).double().mean()) >= ASKED:
            found.append((a, b))
    return found


def _else_well(told_n: Tensor, given_n: Tensor, pairs: list[tuple[int, int]]) -> bool:
    """Whether there are pairs, and a net tells classes well where those of a pair count as one."""
    number = int(max(told_n.max(), given_n.max())) + 1
    group = torch.arange(number)
    for a, b in pairs:
        group[group == int(group[a])] = int(group[b])
    if not pairs or len(group.unique()) == 1:
        return False
    return float((group[told_n] != group[given_n]).double().mean()) <= WRONG
