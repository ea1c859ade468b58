"""Metrics of classification.

Outputs are logits, (B, K), or (B,) / (B, 1) for two classes; targets are (B,) int64 classes, or
(B, K) probabilities, of which the largest counts (in `log_loss` all of them).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F

from gipi.metrics.metric import Metric, State, add, add_rows, count, ratio, zeros

if TYPE_CHECKING:
    from torch import Tensor


def two_columns(outputs: Tensor) -> Tensor:
    """Return (B, K) logits; one logit z of two classes becomes (0, z)."""
    if outputs.ndim == 1 or outputs.shape[1] == 1:
        z = outputs.reshape(-1, 1)
        return torch.cat([torch.zeros_like(z), z], dim=1)
    return outputs


def predicted(outputs: Tensor) -> Tensor:
    """Return the class of each row, (B,) int64; the first of equals, for one logit class 1 > 0."""
    if outputs.ndim == 1 or outputs.shape[1] == 1:
        return (outputs.reshape(-1) > 0).long()
    return outputs.argmax(1)


def hard(target: Tensor) -> Tensor:
    """Return the class of each target row, (B,) int64."""
    return target.argmax(1) if target.ndim > 1 else target.long()


def accuracy(classes: int = 0) -> Metric:  # noqa: ARG001  one signature for all builders
    """Return the share of rows whose most probable class is the true one."""

    def update(state: State, outputs: Tensor, target: Tensor, weight: Tensor | None) -> None:
        add(state, "correct", predicted(outputs) == hard(target), weight)
        add_rows(state, "count", len(target), weight)

    return Metric("accuracy", greater_is_better=True, init=zeros({"correct": (), "count": ()}),
                  update=update,
                  compute=lambda state: ratio(state, "correct", "count"))  # fmt: skip


def _per_class(classes: int) -> tuple[int, ...]:
    return (max(classes, 2),)


def _update_per_class(state: State, outputs: Tensor, target: Tensor, weight: Tensor | None) -> None:
    guess, truth = predicted(outputs), hard(target)
    right = (guess == truth).to(state["right"].dtype)
    count(state, "right", truth, right if weight is None else right * weight)
    count(state, "true", truth, weight)
    count(state, "guessed", guess, weight)


def balanced_accuracy(classes: int = 2) -> Metric:
    """Return the mean over the classes that occur of the share of their rows that is found.

    Brodersen et al. 2010, "The balanced accuracy and its posterior distribution".
    """

    def compute(state: State) -> float:
        seen = state["true"] > 0
        return float((state["right"][seen] / state["true"][seen]).mean())

    size = _per_class(classes)
    return Metric(
        "balanced_accuracy",
        greater_is_better=True,
        init=zeros({"right": size, "true": size, "guessed": size}),
        update=_update_per_class,
        compute=compute,
    )


def f1(classes: int = 2) -> Metric:
    """Return the macro F1: the mean over classes of 2·right / (true + guessed).

    Classes that neither occur nor are predicted do not count. van Rijsbergen 1979.
    """

    def compute(state: State) -> float:
        both = state["true"] + state["guessed"]
        seen = both > 0
        return float((2 * state["right"][seen] / both[seen]).mean())

    size = _per_class(classes)
    return Metric("f1", greater_is_better=True,
                  init=zeros({"right": size, "true": size, "guessed": size}),
                  update=_update_per_class,
                  compute=compute)  # fmt: skip


def log_loss(classes: int = 0) -> Metric:  # noqa: ARG001
    """Return the mean of -log p of the true class: the score of the probabilities themselves."""

    def update(state: State, outputs: Tensor, target: Tensor, weight: Tensor | None) -> None:
        logits = two_columns(outputs).to(state["loss"].dtype)
        soft = target.to(logits.dtype) if target.ndim > 1 else target.long()
        add(state, "loss", F.cross_entropy(logits, soft, reduction="none"), weight)
        add_rows(state, "count", len(target), weight)

    return Metric("log_loss", greater_is_better=False, init=zeros({"loss": (), "count": ()}),
                  update=update,
                  compute=lambda state: ratio(state, "loss", "count"))  # fmt: skip


def ece(classes: int = 0, *, bins: int = 15) -> Metric:  # noqa: ARG001
    """Return the expected calibration error, Σ_b n_b/n · |accuracy_b - confidence_b|.

    Rows fall into `bins` equal intervals of the probability of the predicted class.
    Guo et al. 2017, "On calibration of modern neural networks", arXiv:1706.04599.
    """

    def update(state: State, outputs: Tensor, target: Tensor, weight: Tensor | None) -> None:
        dtype = state["count"].dtype
        confidence, guess = two_columns(outputs).to(dtype).softmax(1).max(1)
        # Intervals are open below and closed above, as in the paper.
        index = (confidence * bins).ceil().long().sub_(1).clamp_(0, bins - 1)
        right = (guess == hard(target)).to(dtype)
        count(state, "count", index, weight)
        count(state, "right", index, right if weight is None else right * weight)
        count(state, "confidence", index, confidence if weight is None else confidence * weight)

    def compute(state: State) -> float:
        gap = (state["right"] - state["confidence"]).abs().sum()
        total = state["count"].sum()
        return float(gap / total)

    size = (bins,)
    return Metric(
        "ece",
        greater_is_better=False,
        init=zeros({"count": size, "right": size, "confidence": size}),
        update=update,
        compute=compute,
    )
