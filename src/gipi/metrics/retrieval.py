"""Metrics of retrieval: where the relevant candidates stand when all are sorted by score.

Outputs are (B, C) scores of C candidates for each of B queries. Targets are (B,) int64, the one
relevant candidate, or (B, C) relevance: 0 for none, 1 or a grade for more. Among equal scores the
irrelevant ones come first, so that a model which cannot tell gains nothing. Queries without a
relevant candidate do not count.

B queries, C candidates.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F

from gipi.core.errors import ConfigError, ModelError
from gipi.metrics.metric import Metric, State, add, ratio, zeros

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor


def recall_at_k(classes: int = 0, *, k: int = 10) -> Metric:  # noqa: ARG001
    """Return the mean share of a query's relevant candidates that are among the first k.

    Manning, Raghavan and Schütze 2008, "Introduction to information retrieval", chapter 8.
    """
    _check(k)

    def score(gains: Tensor) -> Tensor:
        hits = gains > 0
        return hits[:, :k].sum(1) / hits.sum(1)

    return _mean("recall_at_k", score)


def mrr(classes: int = 0) -> Metric:  # noqa: ARG001
    """Return the mean of 1 / place of the first relevant candidate. Voorhees 1999, TREC-8."""

    def score(gains: Tensor) -> Tensor:
        first = (gains > 0).to(torch.uint8).argmax(1)
        return 1 / (first + 1.0)

    return _mean("mrr", score)


def ndcg(classes: int = 0, *, k: int = 10) -> Metric:  # noqa: ARG001
    """Return the mean discounted gain of the first k, as a share of the best order's.

        DCG = Σ_{i=1..k} relevanceᵢ / log₂(i + 1),   nDCG = DCG / DCG of the best order

    Järvelin and Kekäläinen 2002, "Cumulated gain-based evaluation of IR techniques", with the
    relevance itself as the gain.
    """
    _check(k)

    def score(gains: Tensor) -> Tensor:
        width = min(k, gains.shape[1])
        best = gains.topk(width, dim=1).values
        discount = 1 / torch.arange(2, width + 2, device=gains.device, dtype=gains.dtype).log2()
        return (gains[:, :width] @ discount) / (best @ discount)

    return _mean("ndcg", score)


def _mean(name: str, score: Callable[[Tensor], Tensor]) -> Metric:
    """Return the mean of a score of queries, from their relevance in the order of the scores."""

    def update(state: State, outputs: Tensor, target: Tensor, weight: Tensor | None) -> None:
        gains = ordered(outputs, target).to(state["score"].dtype)
        known = (gains > 0).any(1)
        w = known.to(gains.dtype) if weight is None else weight * known
        value = torch.where(known, score(gains), 0.0)  # 0/0 where nothing is relevant
        add(state, "score", value, w)
        add(state, "count", torch.ones_like(value), w)

    return Metric(name, greater_is_better=True, init=zeros({"score": (), "count": ()}),
                  update=update, compute=lambda state: ratio(state, "score", "count"))  # fmt: skip


def ordered(outputs: Tensor, target: Tensor) -> Tensor:
    """Return (B, C) relevance in the order of falling scores, irrelevant first among equals.

    >>> ordered(torch.tensor([[0.1, 0.9, 0.9]]), torch.tensor([2])).tolist()
    [[0.0, 1.0, 0.0]]
    """
    if outputs.ndim != 2 or target.shape not in (outputs.shape, outputs.shape[:1]):
        raise ModelError(
            f"scores of shape {tuple(outputs.shape)} for targets of shape {tuple(target.shape)}",
            "scores (B, C), and for each query the relevant candidate or C grades",
            "score all candidates for each query",
        )
    if target.ndim == 1:  # the place of one candidate is a count; what is no number stands before
        ahead = (~(outputs < outputs.gather(1, target[:, None]))).sum(1) - 1
        return F.one_hot(ahead, outputs.shape[1]).float()
    relevance = target.float()
    rising = relevance.argsort(dim=1, stable=True)
    order = outputs.gather(1, rising).argsort(dim=1, descending=True, stable=True)
    return relevance.gather(1, rising).gather(1, order)


def _check(k: int) -> None:
    if k < 1:
        raise ConfigError(f"k={k}", "a number of candidates from 1", "10 is usual")
