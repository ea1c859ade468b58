"""Metrics of tasks made of text, from sums that the loss has at hand anyway.

Outputs are (B, 4): of each row the sum of -log p of the tokens asked for, how many of them were
named rightly, how many there were, and whether "follows or not" was answered rightly (NaN where
it was not asked). Targets are not looked at.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from gipi.metrics.metric import Metric, State, ratio, zeros

if TYPE_CHECKING:
    from torch import Tensor

LOSS, RIGHT, COUNT, FOLLOWS = range(4)


def hidden_accuracy() -> Metric:
    """Return the share of hidden tokens that are named rightly."""
    return _of("hidden_accuracy", RIGHT, greater=True)


def hidden_perplexity() -> Metric:
    """Return exp of the mean loss of a hidden token: among how many it is as good as undecided."""
    plain = _of("hidden_perplexity", LOSS, greater=False)

    def compute(state: State) -> float:
        mean = plain.compute(state)
        return math.exp(mean) if mean < 700 else (math.nan if math.isnan(mean) else math.inf)

    return Metric(plain.name, greater_is_better=False, init=plain.init, update=plain.update,
                  compute=compute)  # fmt: skip


def follows_accuracy() -> Metric:
    """Return the share of pairs of which it is said rightly whether they follow each other."""

    def update(state: State, outputs: Tensor, target: Tensor, weight: Tensor | None) -> None:  # noqa: ARG001
        right = outputs[:, FOLLOWS]
        w = right.isfinite().to(state["total"].dtype)
        w = w if weight is None else w * weight
        state["total"].add_((right.nan_to_num() * w).sum())
        state["count"].add_(w.sum())

    return Metric("follows_accuracy", greater_is_better=True,
                  init=zeros({"total": (), "count": ()}), update=update,
                  compute=lambda state: ratio(state, "total", "count"))  # fmt: skip


def _of(name: str, column: int, *, greater: bool) -> Metric:
    """Return Σ of a column over the number of tokens asked for."""

    def update(state: State, outputs: Tensor, target: Tensor, weight: Tensor | None) -> None:  # noqa: ARG001
        w = torch.ones(len(outputs), device=outputs.device) if weight is None else weight
        w = w.to(state["total"].dtype)
        state["total"].add_((outputs[:, column] * w).sum())
        state["count"].add_((outputs[:, COUNT] * w).sum())

    return Metric(name, greater_is_better=greater, init=zeros({"total": (), "count": ()}),
                  update=update, compute=lambda state: ratio(state, "total", "count"))  # fmt: skip
