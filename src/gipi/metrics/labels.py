"""Metrics of multi-label classification: any number of labels a row.

Outputs are logits (B, K), targets (B, K) of zeros and ones; a label is given where its logit is
above 0, that is its probability above one half.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from gipi.metrics.auc import EXPONENTS, MANTISSA_MANY, ordered_bins
from gipi.metrics.metric import Metric, State, add, add_rows, count, ratio, zeros

if TYPE_CHECKING:
    from torch import Tensor


def _update_counts(state: State, outputs: Tensor, target: Tensor, weight: Tensor | None) -> None:
    dtype = state["right"].dtype
    guess, truth = (outputs > 0).to(dtype), (target > 0.5).to(dtype)
    w = 1.0 if weight is None else weight.to(dtype).unsqueeze(1)
    state["right"].add_((w * guess * truth).sum(0))
    state["true"].add_((w * truth).sum(0))
    state["guessed"].add_((w * guess).sum(0))


def label_f1_micro(classes: int = 1) -> Metric:
    """Return F1 over all (row, label) pairs together: 2·right / (true + guessed).

    van Rijsbergen 1979; Tsoumakas and Katakis 2007, Multi-label classification: an overview.
    """

    def compute(state: State) -> float:
        both = float((state["true"] + state["guessed"]).sum())
        return 2 * float(state["right"].sum()) / both if both else float("nan")

    size = (max(classes, 1),)
    return Metric("label_f1_micro", greater_is_better=True,
                  init=zeros({"right": size, "true": size, "guessed": size}),
                  update=_update_counts, compute=compute)  # fmt: skip


def label_f1_macro(classes: int = 1) -> Metric:
    """Return the mean over labels of their F1; labels neither true nor given anywhere stay out.

    van Rijsbergen 1979; Tsoumakas and Katakis 2007.
    """

    def compute(state: State) -> float:
        both = state["true"] + state["guessed"]
        seen = both > 0
        return float((2 * state["right"][seen] / both[seen]).mean())

    size = (max(classes, 1),)
    return Metric("label_f1_macro", greater_is_better=True,
                  init=zeros({"right": size, "true": size, "guessed": size}),
                  update=_update_counts, compute=compute)  # fmt: skip


def exact_match(classes: int = 0) -> Metric:  # noqa: ARG001  one signature for all builders
    """Return the share of rows whose set of labels is exactly right."""

    def update(state: State, outputs: Tensor, target: Tensor, weight: Tensor | None) -> None:
        add(state, "right", ((outputs > 0) == (target > 0.5)).all(1), weight)
        add_rows(state, "count", len(target), weight)

    return Metric("exact_match", greater_is_better=True, init=zeros({"right": (), "count": ()}),
                  update=update,
                  compute=lambda state: ratio(state, "right", "count"))  # fmt: skip


def label_map(classes: int = 1) -> Metric:
    """Return the mean over labels of the average precision, Σ (recall step) · precision.

    Rows are ranked by the label's logit, in 8,192 bins whose width is 0.8 % of the logit, so that
    the state has a fixed size and ranks can add theirs; rows in one bin count as tied. Labels that
    no row has stay out.

    Salton and McGill 1983; Everingham et al. 2010.
    """
    columns, bins = max(classes, 1), 2 << (EXPONENTS + MANTISSA_MANY)

    def update(state: State, outputs: Tensor, target: Tensor, weight: Tensor | None) -> None:
        place = 2 * torch.arange(columns, device=outputs.device) + (target > 0.5).long()
        index = ordered_bins(outputs, MANTISSA_MANY) + place * bins
        rows = None if weight is None else weight.unsqueeze(1).expand(-1, columns).reshape(-1)
        count(state, "bins", index.reshape(-1), rows)

    def compute(state: State) -> float:
        negative, positive = state["bins"].cpu().flip(2).unbind(1)  # the highest logits first
        found = positive.cumsum(1)
        given = found + negative.cumsum(1)
        precision = found / given.clamp_min(1e-300)
        total = positive.sum(1)
        seen = total > 0
        return float(((precision * positive).sum(1)[seen] / total[seen]).mean())

    return Metric("label_map", greater_is_better=True, init=zeros({"bins": (columns, 2, bins)}),
                  update=update, compute=compute)  # fmt: skip
