"""Spearman's rank correlation in a state of fixed size."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from gipi.core.errors import ModelError
from gipi.metrics.auc import ordered_bins
from gipi.metrics.metric import Metric, State, zeros
from gipi.metrics.values import columns

if TYPE_CHECKING:
    from torch import Tensor

MANTISSA = 4  # bits: sixteen bins an octave
LOWEST = 2.0**-10  # magnitudes from here to 2^22 are told apart
BINS = 2 << (5 + MANTISSA)


def spearman(classes: int = 0) -> Metric:  # noqa: ARG001  one signature for all builders
    """Return the correlation of the ranks of prediction and truth, ties sharing their mean rank.

        ρ = cov(rank y, rank ŷ) / (s(rank y) · s(rank ŷ))

    One value a row. Ranks need all rows; here the pairs are counted in a table of 1,024 x 1,024
    bins (8 MB), sixteen an octave over magnitudes of 0.001 to four million, so that processes can
    add up theirs: values in one bin, at most 6 % apart, count as ties. In the tests the result is
    within 0.01 of `rank_correlation`, which is exact and for final evaluations. NaN where one of
    the two is constant.

    Spearman 1904, "The proof and measurement of association between two things".
    Raises `ModelError` for several values a row.
    """

    def update(state: State, outputs: Tensor, target: Tensor, weight: Tensor | None) -> None:
        pairs = state["pairs"]
        guess, truth = columns(outputs, target, state)
        if truth.shape[1] != 1:
            raise ModelError(
                f"{truth.shape[1]} values a row for spearman",
                "one value a row",
                "use pearson, or score the columns one by one",
            )
        x = ordered_bins(guess[:, 0], MANTISSA, low=LOWEST)
        y = ordered_bins(truth[:, 0], MANTISSA, low=LOWEST)
        w = pairs.new_ones(len(x)) if weight is None else weight.to(pairs.dtype)
        pairs.view(-1).index_add_(0, x * BINS + y, w)

    def compute(state: State) -> float:
        pairs = state["pairs"].cpu().double()
        across, down = pairs.sum(1), pairs.sum(0)
        rank_x, rank_y = _ranks(across), _ranks(down)
        together = rank_x @ pairs @ rank_y
        return _quotient(together, (across * rank_x**2).sum(), (down * rank_y**2).sum())

    return Metric("spearman", greater_is_better=True, init=zeros({"pairs": (BINS, BINS)}),
                  update=update, compute=compute)  # fmt: skip


def rank_correlation(outputs: Tensor, target: Tensor, weight: Tensor | None = None) -> float:
    """Return the exact correlation of the ranks of (N,) values; a row of weight 2 is the row twice.

    >>> rank_correlation(torch.tensor([1.0, 2.0, 9.0]), torch.tensor([3.0, 4.0, 5.0]))
    1.0
    """
    w = torch.ones(len(target)) if weight is None else weight
    w = w.cpu().double()
    ranks = []
    for values in (outputs, target):
        distinct, place = values.detach().flatten().cpu().unique(return_inverse=True)
        counts = torch.zeros(len(distinct), dtype=w.dtype).index_add_(0, place, w)
        ranks.append(_ranks(counts)[place])
    x, y = ranks
    return _quotient((w * x * y).sum(), (w * x**2).sum(), (w * y**2).sum())


def _ranks(counts: Tensor) -> Tensor:
    """Return the mean rank of each bin less the mean of all: those below it and half of its own."""
    return counts.cumsum(0) - counts / 2 - counts.sum() / 2


def _quotient(together: Tensor, spread_x: Tensor, spread_y: Tensor) -> float:
    scale = (spread_x * spread_y).sqrt()
    return float(together / scale) if scale > 0 else float("nan")
