"""Numbers among the targets that belong to other rows, have another sign or other units.

What is said of a row comes from a regression that does not heed what is far from it, fitted on
other rows; see `two_lines` for what tells wrong numbers from wide scatter.

Shapes: n rows, p features.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gipi.doctor.experiment import outputs
from gipi.doctor.sheet import linear_answer, origin, sheet
from gipi.doctor.two_lines import TwoLines, two_lines

if TYPE_CHECKING:
    from gipi.doctor.facts import Facts
    from gipi.doctor.trace import Trace

BY_HEART = 0.15
"""Loss of training rows, of that of validation rows, below which a net may know them by heart."""
AWAY, SOME_AWAY = 2.5, 0.03
"""Deviations, and share of rows that must be as far from what is said: of a normal one 1.2 %."""
LEAST, FOLDS, ROUNDS = 250, 3, 4
ENOUGH = 25.0
"""Twice the gain in log-likelihood from which on another line is asked about. Natural data in which
a learner errs stay below."""
SOME = 4.0
"""The same of validation rows, which are fewer; what they would have, were they like the training
rows, must be `ENOUGH` where they have none."""
FOLLOWS = 0.45
"""Slope up to which answers do not follow: natural data in which a learner errs lie above."""
TURNED = -0.2
BENT, BY_CHANCE = 1 / 3, 3.0
"""Correlation of what far rows are off with what their neighbours are, and its standard score, from
which on the learner errs there: neighbours of a wrong number are right."""
KINDS = 50
"""Different whole numbers up to which targets are counts: they scatter the more, the more they are,
and are often nothing."""
LOSSES = ("mse", "mae", "huber")
"""Losses that ask for one answer: who asks for several knows of two lines."""


@dataclass(frozen=True)
class WrongNumbers:
    """What some of the targets are.

    line     the other line
    both     whether validation targets are so too
    rows     numbers of the training rows that are farthest from what is said of them
    """

    line: TwoLines
    both: bool
    rows: tuple[int, ...]


def wrong_numbers(facts: Facts, trace: Trace) -> WrongNumbers | None:
    """Return the other line that some targets follow, as training rows say; or None."""
    train, val, start = sheet(facts), sheet(facts, "val"), origin(facts)
    if train is None or train.label is not None or facts.kind != "numbers":
        return None
    if train.Y.shape[1] != 1 or len(train.F) < LEAST or facts.loss.name not in LOSSES:
        return None
    y = train.Y[:, 0].double()
    if not _far_from_net(facts, trace, y, rows=train.rows):
        return None
    known = linear_answer(facts)
    first = two_lines(known.told_nk[:, 0], y)  # of a look that was taken already
    if first is None or first.gain < ENOUGH / 2:
        return None
    penalty = known.penalty or 1.0
    F = train.F.double()
    said = torch.zeros_like(y)
    fold = torch.arange(len(y)) % FOLDS
    for k in range(FOLDS):
        said[fold == k] = _unheeding(F[fold != k], y[fold != k], F[fold == k], penalty)
    if not _some_far(y - said):
        return None
    here = two_lines(said, y)
    if here is None or here.gain < ENOUGH or FOLLOWS < here.slope < 1:
        return None
    if (here.one or here.slope > 1) and _are_counts(start.y):
        return None
    far = (y - said).abs().argsort(descending=True)[: round(here.share * len(y))]
    if here.slope < 1 and not here.one and _bent(y - said, far, train.near):
        return None
    by_line = by_net = None
    expected = 0.0
    if val is not None:
        yv = val.Y[:, 0].double()
        by_line = two_lines(_unheeding(F, y, val.F.double(), penalty), yv)
        net = _of_net(facts, start.val, val.rows)
        by_net = two_lines(net, yv) if net is not None else None
        expected = here.gain * len(yv) / len(y)
    # A learner that bends too little errs alike in both splits: then the net must say it as well,
    # unless the line is steeper, which no bend is.
    asked = by_line if here.slope > 1 else by_net
    both = asked is not None and asked.alike(here) and asked.gain >= SOME
    if not both and (by_line is not None or by_net is not None or expected < ENOUGH):
        return None
    return WrongNumbers(here, both, tuple(train.rows[far][:50].tolist()))


def _far_from_net(facts: Facts, trace: Trace, y: Tensor, *, rows: Tensor) -> bool:
    """Whether some training rows are far from what the net says, or it may know them by heart."""
    said, ends = _of_net(facts, origin(facts).train, rows), trace.epochs[-1]
    if said is None or not ends.get("train_eval", 0.0) > BY_HEART * ends.get("val", math.inf):
        return True
    from_mean = said.double() - said.double().mean()
    slope = float(from_mean @ y) / max(float(from_mean @ from_mean), 1e-12)
    return _some_far(y - slope * from_mean)


def _some_far(off: Tensor) -> bool:
    off = (off - off.median()).abs()
    return float((off > AWAY * 1.4826 * off.median()).double().mean()) >= SOME_AWAY


def _bent(off: Tensor, far: Tensor, near_nk: Tensor) -> bool:
    """Whether far rows are off as their neighbours are: then what is learned bends too little.

    The median of the neighbours does not heed the few among them that are wrong themselves.
    """
    both = torch.stack([off[far], off[near_nk[far]].median(1).values])
    r = float(torch.corrcoef(both)[0, 1])
    return r > max(BENT, BY_CHANCE / math.sqrt(len(far)))


def _are_counts(y: Tensor | None) -> bool:
    kinds = torch.unique(y.detach().cpu()) if y is not None else torch.zeros(0)
    return len(kinds) <= KINDS and bool((kinds == kinds.round()).all())


def _unheeding(F_np: Tensor, y_n: Tensor, new_mp: Tensor, penalty: float) -> Tensor:
    """Return what a ridge regression says of new rows that gives far rows little weight: (m,).

    w = 1 / (1 + (r / 2s)²), s the median of |r| over 0.6745 (iteratively reweighted).
    """
    w = torch.ones_like(y_n)
    said = y_n
    eye = torch.eye(F_np.shape[1], dtype=F_np.dtype)
    for _ in range(ROUNDS):
        total = w.sum()
        f0, y0 = (w[:, None] * F_np).sum(0) / total, (w * y_n).sum() / total
        X = F_np - f0
        A = X.T @ (w[:, None] * X) + penalty * eye
        beta = torch.linalg.solve(A, X.T @ (w * (y_n - y0)))
        off = y_n - y0 - X @ beta
        said = y0 + (new_mp - f0) @ beta
        scale = 1.4826 * off.abs().median().clamp_min(1e-6)
        w = 1 / (1 + (off / (2 * scale)).square())
    return said


def _of_net(facts: Facts, data: tuple[Any, Any] | None, rows: Tensor) -> Tensor | None:
    if data is None:
        return None
    with torch.random.fork_rng(devices=[]):
        said = outputs(facts.exp, data[0])
    if not isinstance(said, Tensor) or not said.is_floating_point():
        return None
    flat = said.reshape(len(said), -1).cpu()
    good = flat.shape[1] == 1 and bool(flat.isfinite().all())
    return flat[:, 0][rows] if good else None
