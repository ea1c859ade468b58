"""Losses for classes: cross-entropy, binary cross-entropy and the perceptron criterion.

Every loss answers (total, count): total = Σᵢ wᵢ lᵢ and count = Σᵢ wᵢ. The mean is taken by the
caller over the count of the whole optimizer step, so that micro-batches and ranks cannot change it.
Without row weights the count is a Python float and costs no operation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F

from gipi.losses.shapes import matched, per_row, row_means

if TYPE_CHECKING:
    from torch import Tensor


def cross_entropy(
    outputs: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    *,
    label_smoothing: float = 0.0,
    class_weights: Tensor | None = None,
) -> tuple[Tensor, float | Tensor]:
    """Return the softmax cross-entropy, lᵢ = -Σₖ tᵢₖ log softmax(zᵢ)ₖ.

    outputs          (B, K) logits
    target           (B,) int64 classes, or (B, K) probabilities
    weight           (B,) row weights, or None for ones
    label_smoothing  ε: t becomes (1 - ε) t + ε/K (Szegedy et al. 2016, arXiv:1512.00567)
    class_weights    (K,) cₖ; lᵢ = -Σₖ cₖ tᵢₖ log pᵢₖ. A row counts as much as its class does, for
                     a soft target Σₖ cₖ tᵢₖ (torch divides the mean by B there)

    Bridle 1990, "Probabilistic interpretation of feedforward classification network outputs".

    >>> total, count = cross_entropy(torch.zeros(2, 4), torch.tensor([0, 3]))
    >>> round(total.item() / count, 4)  # log 4
    1.3863
    """
    if weight is None and class_weights is None:
        return F.cross_entropy(
            outputs, target, reduction="sum", label_smoothing=label_smoothing
        ), float(len(outputs))
    if class_weights is not None:
        # never in half precision: the count is a sum over all rows
        dtype = torch.promote_types(outputs.dtype, torch.float32)
        class_weights = class_weights.to(outputs.device, dtype)
        outputs = outputs.to(dtype)
    rows = F.cross_entropy(
        outputs, target, class_weights, reduction="none", label_smoothing=label_smoothing
    )
    if class_weights is None:
        assert weight is not None
        return (rows * weight).sum(), weight.sum()
    soft = target.is_floating_point()
    counts = (target * class_weights).sum(1) if soft else class_weights[target]
    if weight is None:
        return rows.sum(), counts.sum()
    return (rows * weight).sum(), (counts * weight).sum()


def binary_cross_entropy(
    outputs: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    *,
    label_smoothing: float = 0.0,
    positive_weight: float | None = None,
) -> tuple[Tensor, float | Tensor]:
    """Return the logistic loss, l = -[p t log σ(z) + (1 - t) log(1 - σ(z))], from logits.

    outputs          (B,), (B, 1) or (B, T) logits
    target           as many values in [0, 1], any dtype; lᵢ is the mean over a row's T values
    label_smoothing  ε: t becomes (1 - ε) t + ε/2
    positive_weight  p, the factor of the positive term, 1 unless given

    Written as max(z, 0) - z t + log(1 + e^-|z|), it neither overflows nor loses small values.
    Cox 1958, "The regression analysis of binary sequences".
    """
    outputs = matched(outputs, target)
    if target.dtype is not outputs.dtype:
        target = target.to(outputs.dtype)
    if label_smoothing:
        target = target * (1 - label_smoothing) + label_smoothing / 2
    factor = None if positive_weight is None else outputs.new_full((), positive_weight)
    if weight is None:
        total = F.binary_cross_entropy_with_logits(
            outputs, target, reduction="sum", pos_weight=factor
        )
        return per_row(total, outputs), float(len(outputs))
    rows = F.binary_cross_entropy_with_logits(outputs, target, reduction="none", pos_weight=factor)
    return (row_means(rows) * weight).sum(), weight.sum()


def perceptron(
    outputs: Tensor, target: Tensor, weight: Tensor | None = None
) -> tuple[Tensor, float | Tensor]:
    """Return the perceptron criterion; gradient descent on it is the perceptron learning rule.

    Two classes, one score s = w·x + b, y = ±1:      l = -y s where y s <= 0, else 0
        dl/dw = -y x for a mistake and 0 otherwise, so w ← w + η y x: Rosenblatt's rule
    K classes, scores sₖ = wₖ·x + bₖ:                 l = max_{k≠t} sₖ - s_t where that is >= 0
        w_t ← w_t + η x and w_k ← w_k - η x for the best wrong class (equals
        share it): Kesler's construction

    A tie is a mistake, hence learning starts from zero weights too.

    outputs  (B,) or (B, 1) scores of class 1, or (B, K)
    target   (B,) int64 classes

    Rosenblatt 1958, "The perceptron"; Nilsson 1965, "Learning machines"; Duda and Hart 1973.
    """
    if outputs.ndim == 1 or outputs.shape[1] == 1:
        score = outputs.reshape(-1)
        margin = torch.where(target > 0, score, -score)
    else:
        # A mask rather than gather, whose backward on CUDA adds in no fixed order.
        true = F.one_hot(target, outputs.shape[1]).bool()
        own = outputs.masked_fill(~true, 0.0).sum(1)
        margin = own - outputs.masked_fill(true, -torch.inf).amax(1)
    # A product with the mistakes, not relu: the gradient at margin 0 must be that of a mistake.
    rows = -margin * (margin <= 0)
    if weight is None:
        return rows.sum(), float(len(rows))
    return (rows * weight).sum(), weight.sum()
