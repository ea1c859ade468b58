"""Shallow learners that answer within milliseconds whether inputs tell anything of targets.

Ridge regression with all its leave-one-out predictions in closed form,
ŷ₋ᵢ = yᵢ − (yᵢ − ŷᵢ) / (1 − hᵢᵢ) (Allen 1974, PRESS), and the nearest neighbours. What counts is
never the score itself but the score beside those of the same targets in random order: one
factorisation serves them all.

Shapes: n rows, p features, k columns of targets, G versions of the targets.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

NEIGHBOURS = 10
FEW, ORDERS = 8, 40
"""Random orders of the targets that a score is held against: few where they leave no doubt."""
BEYOND_DOUBT = 15.0
"""Standard deviations of the few from which on more orders cannot change what is said."""
LIVE = 1e-6
"""Share of the largest squared singular value below which one is noise."""
SHRINK = (0.03, 0.3, 3.0, 30.0)
"""Ridge penalties, in units of the mean squared singular value."""


@dataclass(frozen=True)
class Ridge:
    """A factorised matrix of features: U of (n, r), squared singular values, means."""

    F_np: Tensor
    mean_p: Tensor
    U_nr: Tensor
    s2_r: Tensor

    @property
    def penalties(self) -> list[float]:
        """Penalties that are tried."""
        mean = float(self.s2_r.mean()) if len(self.s2_r) else 1.0
        return [share * mean for share in SHRINK]


@dataclass(frozen=True)
class Answer:
    """How well targets are told by features, each row by the others.

    score   explained share of the targets' variance, 0 for the mean, 1 for all of it
    chance  the same for the targets in random orders
    told_nk  leave-one-out predictions
    penalty  the best one, of a regression
    """

    score: float
    chance: Tensor
    told_nk: Tensor
    penalty: float | None = None

    @property
    def z(self) -> float:
        """Standard deviations above chance."""
        spread = max(float(self.chance.std()), 1e-3)
        return (self.score - float(self.chance.mean())) / spread

    @property
    def found(self) -> bool:
        """Whether the features tell something beyond doubt."""
        return self.z > 4 and self.score > float(self.chance.max())

    @property
    def nothing(self) -> bool:
        """Whether what they tell is not more than the same targets in random order."""
        return self.z < 3


def ridge(F_np: Tensor) -> Ridge:
    """Return the factorisation, of the smaller of FᵀF and FFᵀ.

    In single precision: what is lost is far below the smallest penalty.
    """
    F_np = F_np.float()
    mean_p = F_np.mean(0)
    F_np = F_np - mean_p
    n, p = F_np.shape
    if p <= n:
        s2, V = torch.linalg.eigh(F_np.T @ F_np)
        live = s2 > LIVE * s2.max().clamp_min(1e-30)
        U = F_np @ V[:, live] / s2[live].sqrt()
    else:
        s2, U = torch.linalg.eigh(F_np @ F_np.T)
        live = s2 > LIVE * s2.max().clamp_min(1e-30)
        U = U[:, live]
    return Ridge(F_np, mean_p, U, s2[live])


@dataclass(frozen=True)
class Fit:
    """Targets projected on the features once, for every penalty."""

    ridge: Ridge
    Y_nk: Tensor
    mean_k: Tensor
    inner_rk: Tensor

    def left_out(self, penalty: float) -> Tensor:
        """Return the prediction of every row by a ridge regression on all the others."""
        r = self.ridge
        w = r.s2_r / (r.s2_r + penalty)
        fit = self.mean_k + r.U_nr @ (w[:, None] * self.inner_rk)
        h = 1 / len(self.Y_nk) + r.U_nr.square() @ w
        return self.Y_nk - (self.Y_nk - fit) / (1 - h).clamp_min(1e-3)[:, None]


def fitted(r: Ridge, Y_nk: Tensor) -> Fit:
    """Return what a regression of some targets needs for any penalty."""
    mean = Y_nk.mean(0)
    return Fit(r, Y_nk, mean, r.U_nr.T @ (Y_nk - mean))


def explained(told_nk: Tensor, Y_nk: Tensor, groups: int) -> Tensor:
    """Return the explained share of each of `groups` versions of targets that stand side by side.

    The mean of a row's others is what is known without features.
    """
    Y_nk = Y_nk.double()
    return _share(told_nk, Y_nk, _by_mean(Y_nk, groups))


def _share(told_nk: Tensor, Y_nk: Tensor, base_g: Tensor) -> Tensor:
    """Return the explained share, of what the mean of a row's others leaves (`_by_mean`)."""
    off = (Y_nk - told_nk).square().sum(0).reshape(len(base_g), -1).sum(1)
    return 1 - off / base_g


def _by_mean(Y_nk: Tensor, groups: int) -> Tensor:
    """Return the squares that the mean of each row's others leaves of every version."""
    n = len(Y_nk)
    base = ((Y_nk - Y_nk.mean(0)) * (n / (n - 1))).square().sum(0).reshape(groups, -1).sum(1)
    return base.clamp_min(1e-12)


def in_any_order(Y_nk: Tensor, orders: int, *, seed: int = 0) -> list[Tensor]:
    """Return targets in random orders; the first ones are the same, however many are asked for."""
    generator = torch.Generator().manual_seed(seed)
    n = len(Y_nk)
    return [Y_nk[torch.randperm(n, generator=generator)] for _ in range(orders)]


def ask_ridge(r: Ridge, Y_nk: Tensor, *, more: tuple[Tensor, ...] = ()) -> tuple[Answer, Tensor]:
    """Return the answer of ridge regression, and the scores of further versions of the targets.

    Every version chooses its best penalty, so that chance may choose as well.
    """
    Y = Y_nk.float()
    others = [m.float() for m in more]

    def asked(orders: int) -> tuple[Answer, Tensor]:
        wide = torch.cat([Y, *others, *in_any_order(Y, orders)], 1)
        groups = 1 + len(others) + orders
        best = torch.full((groups,), -torch.inf, dtype=torch.float64)
        told, fit, chosen = Y, fitted(r, wide), r.penalties[0]
        exact = wide.double()
        base = _by_mean(exact, groups)
        for penalty in r.penalties:
            out = fit.left_out(penalty)
            scores = _share(out, exact, base)
            if scores[0] > best[0]:
                told, chosen = out[:, : Y.shape[1]], penalty
            best = torch.maximum(best, scores)
        answer = Answer(float(best[0]), best[1 + len(others) :], told, chosen)
        return answer, best[1 : 1 + len(others)]

    first = asked(FEW)
    return first if first[0].z > BEYOND_DOUBT else asked(ORDERS)


def told(r: Ridge, Y_nk: Tensor) -> Tensor:
    """Return the leave-one-out predictions with the best penalty: (n, k)."""
    Y = Y_nk.float()
    fit = fitted(r, Y)
    return max((fit.left_out(c) for c in r.penalties), key=lambda t: float(explained(t, Y, 1)))


def predict(r: Ridge, Y_nk: Tensor, F_mp: Tensor, *, penalty: float | None = None) -> Tensor:
    """Return what the regression with the best penalty says of other rows: (m, k).

    penalty  the best one, where it is known from an `Answer`
    """
    Y = Y_nk.float()
    fit = fitted(r, Y)
    if penalty is None:
        penalty = max(r.penalties, key=lambda c: float(explained(fit.left_out(c), Y, 1)))
    inner = fit.inner_rk / (r.s2_r + penalty)[:, None]
    return fit.mean_k + (F_mp.float() - r.mean_p) @ (r.F_np.T @ (r.U_nr @ inner))


def neighbours(F_np: Tensor, k: int = NEIGHBOURS, *, of: Tensor | None = None) -> Tensor:
    """Return the numbers of the k rows that are nearest to each: (n, k).

    of  the rows whose neighbours are looked for, (m, p); None: every row's own others
    """
    F = F_np.float()
    if of is not None:
        return torch.cdist(of.float(), F).topk(min(k, len(F)), largest=False).indices
    far = torch.cdist(F, F)
    far.fill_diagonal_(torch.inf)
    return far.topk(min(k, len(F) - 1), largest=False).indices


def told_by_near(near_nk: Tensor, Y_nk: Tensor) -> Tensor:
    """Return what the nearest neighbours say of every row: (n, k)."""
    mean = Y_nk.mean(0)
    k = near_nk.shape[1]
    return mean + (Y_nk[near_nk].mean(1) - mean) * (k / (k + 1))


def ask_neighbours(near_nk: Tensor, Y_nk: Tensor) -> Answer:
    """Return the answer of the nearest neighbours, shrunk to the mean by their number."""
    Y = Y_nk.float()

    def asked(orders: int) -> Answer:
        wide = torch.cat([Y, *in_any_order(Y, orders)], 1)
        out = told_by_near(near_nk, wide)
        scores = explained(out, wide, 1 + orders)
        return Answer(float(scores[0]), scores[1:], out[:, : Y.shape[1]])

    first = asked(FEW)
    return first if first.z > BEYOND_DOUBT else asked(ORDERS)


def auc(score: Tensor, positive: Tensor) -> float:
    """Return the probability that a positive row scores above a negative one; ties count half."""
    values, inverse = torch.unique(score, return_inverse=True)
    counts = torch.bincount(inverse, minlength=len(values)).double()
    rank = (counts.cumsum(0) - (counts - 1) / 2)[inverse]
    n1 = int(positive.sum())
    n0 = len(score) - n1
    if not n0 or not n1:
        return 0.5
    return float((rank[positive].sum() - n1 * (n1 + 1) / 2) / (n0 * n1))
