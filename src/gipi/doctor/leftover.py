"""What a simple learner finds in what a net leaves: steps of functional gradient descent.

The slope of the loss by the outputs, dL/do of every answer, is what the net leaves undone there; it
is noise where the net has told all that the inputs tell. Ridge regression on the features of rows,
or of what stands around a place, is fitted to it, added to the outputs, and so on (Friedman 2001,
Greedy function approximation). The loss is the run's own, whatever it is, and the rows that are
judged had no part in it.

Shapes: n answers, p features, r directions, k numbers of an answer.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gipi.doctor.copies import peeking
from gipi.doctor.experiment import outputs
from gipi.doctor.places import around
from gipi.doctor.shallow import explained, fitted, ridge
from gipi.doctor.sheet import cpu, sheet, take
from gipi.doctor.trials import some

if TYPE_CHECKING:
    from collections.abc import Callable

    from gipi.doctor.experiment import Experiment
    from gipi.doctor.facts import Facts

ROWS, PARTS, LEAST = 1000, 10, 20
"""Rows of a split, parts of them whose differences tell the noise, and rows at least."""
PLACES, FITTED = 6000, 3000
"""Answers at places that are looked at, and answers that are fitted to, at most."""
ANSWER = 64
"""Numbers of an answer, at most."""
SHIFTS, ROUNDS, LITTLE = 5, 30, 4e-3
"""Steps at most, of what is common and of the rest, and the share of its loss one must bring."""
LENGTHS = (0.3, 1.0, 3.0, 10.0, 30.0)
"""Of a step, in slopes: the best is taken of the last one and those beside it."""
NEAR, TINY = 1e-3, 1e-6
"""How far sums may be from what binds them, and the least share."""
SLOW_S = 0.03
"""A loss that takes longer is not asked so often."""


@dataclass(frozen=True)
class Leftover:
    """Losses of a net, and of the net with what was found beside it.

    train, val  of the net as it is; blind: of validation rows where all outputs are zero
    then        of validation rows with what the training rows taught; se: of the difference
    """

    train: float
    val: float
    blind: float
    then: float
    se: float

    @property
    def gain(self) -> float:
        """By how much that is lower than what the net reaches on either split."""
        return min(self.train, self.val) - self.then


def leftover(facts: Facts) -> Leftover | None:
    """Return what is found beside a trained net; None where rows or answers are no plain numbers.

    What is added to a training answer is told by the others (Allen 1974, PRESS): steps end where
    they would learn by heart.
    """
    first, exp = facts.start or facts, facts.exp
    if exp.judge is not None or first.train is None or first.val is None:
        return None
    facts.passes += 2
    try:
        return _found(exp, first)
    except (RuntimeError, ValueError, TypeError, IndexError, AttributeError):
        return None


def _found(exp: Experiment, first: Facts) -> Leftover | None:
    told, ys, F = list[Tensor](), list[Tensor](), list[Tensor]()
    k, look, factors = 0, None, None
    for split, data in (("train", first.train), ("val", first.val)):
        part = some(data, ROWS)
        if part is None:
            return None
        k, places = _answer(*part, first.outputs.shape)
        if not 0 < k <= ANSWER:
            return None
        if places > 1:
            part = some(part, max(LEAST, PLACES // places)) or part
            look = look or around(part[0])
            seen = None if look is None else look(part[0])
        else:  # factorised once for all that ask
            page = sheet(first, split)
            seen = None if page is None or data is None else page.F
            if page is not None and data is not None:
                part = take(cpu(data[0]), page.rows), data[1][page.rows.to(data[1].device)]
                factors = factors or page.ridge
        if seen is None or len(seen) < LEAST:
            return None
        told.append(outputs(exp, part[0]))
        ys.append(part[1])
        F.append(seen.to(told[0].device).float())
    form = _Form.of(told[0], k, first)
    if form is None or any(len(o) != len(y) for o, y in zip(told, ys, strict=True)):
        return None
    raw = [form.freed(o) for o in told]

    def loss(o: Tensor, y: Tensor) -> float:
        with torch.no_grad():
            found = float(exp.loss(form.bound(o), y))
        return found if math.isfinite(found) else math.inf

    def by_parts(o: Tensor) -> list[float]:
        return [loss(o[i::PARTS], ys[1][i::PARTS]) for i in range(PARTS)]

    n = len(F[0])
    chosen = torch.arange(min(n, FITTED), device=F[0].device) * n // min(n, FITTED)
    r = factors if factors is not None and len(chosen) == n else ridge(F[0][chosen])
    V_pr = (r.U_nr.T @ r.F_np / r.s2_r[:, None]).T
    U = [(M - r.mean_p) @ V_pr for M in F]
    with peeking(exp, seed=True):
        began = time.perf_counter()
        now = own = loss(raw[0], ys[0])
        if time.perf_counter() - began > SLOW_S:
            return None
        val = loss(raw[1], ys[1])
        blind = loss(torch.zeros_like(raw[1]), ys[1])

        def sloped(o: Tensor) -> Tensor | None:
            return _slope(lambda said: exp.loss(form.bound(said), ys[0]), o)

        begun = raw
        tried: tuple[float, ...] = LENGTHS
        for done in range(ROUNDS):
            slope = sloped(raw[0])
            if slope is None:
                break
            wanted = -n * form.rows(slope)[chosen].float()
            fit = fitted(r, wanted)
            penalty = max(r.penalties, key=lambda c: float(explained(fit.left_out(c), wanted, 1)))
            weighed = (r.s2_r / (r.s2_r + penalty))[:, None] * fit.inner_rk
            step = [fit.mean_k + U_nr @ weighed for U_nr in U]
            step[0][chosen] = fit.left_out(penalty)
            made = [form.shaped(s, o) for s, o in zip(step, raw, strict=True)]
            losses = {a: loss(raw[0] + a * made[0], ys[0]) for a in tried}
            best = min(tried, key=losses.__getitem__)
            if not now - losses[best] > LITTLE * abs(now):
                break
            raw = [o + best * m for o, m in zip(raw, made, strict=True)]
            now, at = losses[best], LENGTHS.index(best)
            tried = LENGTHS[max(0, at - 1) : at + 2]
            if not done and not loss(raw[1], ys[1]) < val:
                return None  # what training rows teach says nothing of others
        alike = begun
        for _ in range(SHIFTS):  # what all answers lack alike is a matter of shares, not of width
            slope = sloped(alike[0])
            if slope is None:
                break
            common = -n * form.rows(slope).float().mean(0)
            made = [form.shaped(common.expand(len(M), -1), o)
                    for M, o in zip(F, alike, strict=True)]  # fmt: skip
            losses = {a: loss(alike[0] + a * made[0], ys[0]) for a in LENGTHS}
            best = min(LENGTHS, key=losses.__getitem__)
            if not losses[best] < loss(alike[0], ys[0]):
                break
            alike = [o + best * m for o, m in zip(alike, made, strict=True)]
        if loss(alike[1], ys[1]) < val:
            begun = alike
        gains = [a - b for a, b in zip(by_parts(begun[1]), by_parts(raw[1]), strict=True)]
    if not all(map(math.isfinite, (own, val, blind, *gains))):
        return None
    return Leftover(own, val, blind, val - fmean(gains), stdev(gains) / math.sqrt(PARTS))


@dataclass(frozen=True)
class _Form:
    """How numbers of an answer lie in outputs, and what they are bound to.

    numbers  k; dim: where they stand; bound_by: "", "log shares", "shares" of 1, "chances" each
    """

    numbers: int
    dim: int
    bound_by: str

    @classmethod
    def of(cls, said: Any, numbers: int, first: Facts) -> _Form | None:
        """Return the form of outputs; None for directions, whose length means nothing."""
        if not isinstance(said, Tensor) or not said.is_floating_point():
            return None
        dim = 1 if said.ndim > 1 and said.shape[1] == numbers else -1
        if numbers > 1 and _near(said.square().sum(dim), 1.0):
            return None
        if numbers > 1 and _near(said.exp().sum(dim), 1.0):
            return cls(numbers, dim, "log shares")
        within = bool(((said >= 0) & (said <= 1)).all())
        if not within or first.loss.name in ("mse", "mae", "huber"):
            return cls(numbers, dim, "")
        return cls(
            numbers, dim, "shares" if numbers > 1 and _near(said.sum(dim), 1.0) else "chances"
        )

    def freed(self, said: Tensor) -> Tensor:
        """Return numbers that may be anything, of outputs that may not."""
        if self.bound_by == "shares":
            return said.clamp_min(TINY).log()
        return said.logit(TINY) if self.bound_by == "chances" else said

    def bound(self, raw: Tensor) -> Tensor:
        """Return the outputs that such numbers stand for."""
        if self.bound_by == "log shares":
            return raw.log_softmax(self.dim)
        if self.bound_by == "shares":
            return raw.softmax(self.dim)
        return raw.sigmoid() if self.bound_by == "chances" else raw

    def rows(self, values: Tensor) -> Tensor:
        """Return (n, k) of values in the shape of outputs."""
        if values.ndim > 2 and self.dim == 1:
            values = values.movedim(1, -1)
        return values.reshape(-1, self.numbers)

    def shaped(self, rows: Tensor, like: Tensor) -> Tensor:
        """Return (n, k) numbers in the shape of outputs."""
        if like.ndim > 2 and self.dim == 1:
            return rows.view(like.movedim(1, -1).shape).movedim(-1, 1).to(like)
        return rows.view(like.shape).to(like)


def _near(values: Tensor, one: float) -> bool:
    return bool((values - one).abs().max() < NEAR)


def _answer(X: Any, y: Any, shape: Any) -> tuple[int, int]:
    """Return the numbers of an answer and the answers of a row, by the shape of outputs; 0, 0.

    Answers stand at every place where inputs have places that outputs have as well.
    """
    if not isinstance(y, Tensor) or len(shape) < 1:
        return 0, 0
    if len(shape) <= 2:
        return (shape[1] if len(shape) == 2 else 1), 1
    if not isinstance(X, Tensor):
        return 0, 0
    if X.ndim == 4 and shape[2:] == X.shape[2:] and len(shape) == 4:
        return shape[1], X.shape[2] * X.shape[3]
    if X.ndim in (2, 3) and len(shape) == 3 and X.shape[1] in shape[1:]:
        return (shape[2] if shape[1] == X.shape[1] else shape[1]), X.shape[1]
    flat = math.prod(shape[1:])
    return (flat, 1) if flat <= ANSWER else (0, 0)


def _slope(loss: Callable[[Tensor], Tensor], raw: Tensor) -> Tensor | None:
    with torch.enable_grad():
        asked = raw.detach().clone().requires_grad_()
        found = loss(asked)
        if not found.requires_grad:
            return None
        slope = torch.autograd.grad(found, asked)[0]
    return slope if bool(slope.isfinite().all()) else None
