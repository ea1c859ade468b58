"""Losses for every pixel: cross-entropy, focal, soft Dice, and cross-entropy with Dice.

Outputs are logits (B, K, H, W), targets (B, H, W) class indices of any integer type; pixels of the
class 255 ("ignore") take no part. Every loss answers (total, count) with count = Σ wᵢ nᵢ, nᵢ the
pixels of row i that take part: total / count is a mean over pixels.

Dice is a quotient of sums over the batch, so that it is no sum over rows; with it, total is the
loss of the whole batch times the count.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F

from gipi.core.errors import ModelError

if TYPE_CHECKING:
    from torch import Tensor

IGNORE = 255
"""The class of pixels that nobody labelled."""
HALVES = (torch.bfloat16, torch.float16)


def pixel_cross_entropy(
    outputs: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    *,
    class_weights: Tensor | None = None,
    label_smoothing: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """Return the softmax cross-entropy over pixels, l = -log softmax(z)ₜ.

    outputs          (B, K, H, W) logits
    target           (B, H, W) classes, 255 where ignored
    weight           (B,) row weights, or None for ones
    class_weights    (K,) cₖ: a pixel counts as much as its class does
    label_smoothing  ε: the target becomes (1 - ε) one-hot + ε/K

    Long, Shelhamer and Darrell 2015, arXiv:1411.4038 (over pixels); Bridle 1990.

    >>> zeros, target = torch.zeros(1, 4, 1, 2), torch.tensor([[[0, 255]]])
    >>> total, count = pixel_cross_entropy(zeros, target)
    >>> round(float(total), 4), float(count)  # log 4, one pixel
    (1.3863, 1.0)
    """
    logits, truth = _matched(outputs, target)
    return _cross_entropy_of(logits.log_softmax(1), truth, weight, class_weights, label_smoothing)


def _cross_entropy_of(
    log_p: Tensor, truth: Tensor, weight: Tensor | None, class_weights: Tensor | None,
    label_smoothing: float,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    if class_weights is not None:
        class_weights = class_weights.to(log_p)
    single = weight is None
    values = _nll(log_p, truth, class_weights, reduction="sum" if single else "none")
    if label_smoothing:
        spread = _smoothed(log_p, truth, class_weights)
        values = (1 - label_smoothing) * values
        values = values + label_smoothing * (spread.sum() if single else spread)
    return _summed(values, _pixels(truth, class_weights, log_p.dtype, per_row=not single), weight)


def pixel_focal(
    outputs: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    *,
    gamma: float = 2.0,
    class_weights: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Return the focal loss over pixels, l = -cₜ (1 - pₜ)^γ log pₜ, p = softmax(z).

    Pixels that are right already count less; γ = 0 is cross-entropy. Arguments as in
    `pixel_cross_entropy`; class_weights are the paper's α. The count is that of plain pixels.

    Lin, Goyal, Girshick, He and Dollár 2017, arXiv:1708.02002, whose loss is of one sigmoid a
    class; this is its softmax form.
    """
    logits, truth = _matched(outputs, target)
    minus_log_p = _nll(logits.log_softmax(1), truth, None, reduction="none")
    # For γ < 1 the power's gradient at p = 1 is 0 · ∞: the clamp keeps it finite.
    values = (-torch.expm1(-minus_log_p)).clamp_min(1e-12) ** gamma * minus_log_p
    if class_weights is not None:
        alpha = class_weights.to(logits)[truth.clamp_max(len(class_weights) - 1)]
        values = values * alpha
    counts = _pixels(truth, None, logits.dtype, per_row=weight is not None)
    return _summed(values.sum() if weight is None else values, counts, weight)


def dice(
    outputs: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    *,
    squared: bool = False,
    generalised: bool = False,
) -> tuple[Tensor, Tensor]:
    """Return one minus the soft Dice coefficient of the batch, times the pixels that take part.

        Dₖ = 2 Σ p g / (Σ p + Σ g),   loss = 1 - mean of Dₖ over the classes in the batch's targets

    with p = softmax(z)ₖ, g one where the pixel is of class k, sums over all pixels of all rows that
    are not ignored (times the row's weight). A class that no pixel of the batch has would only say
    "predict less of it", which cross-entropy says too; it takes no part.

    squared      Σ p² + Σ g² below, as Milletari, Navab and Ahmadi 2016, arXiv:1606.04797
    generalised  1 - 2 Σₖ vₖ Σ p g / Σₖ vₖ (Σ p + Σ g), vₖ = 1 / (Σ g)², so that small classes weigh
                 as much as large ones: Sudre et al. 2017, arXiv:1707.03237

    Not a sum over rows: micro-batches change it.
    """
    logits, truth = _matched(outputs, target)
    counts = _pixels(truth, None, logits.dtype, per_row=True)
    count = counts.sum() if weight is None else (counts * weight).sum()
    value = _dice_of(logits.softmax(1), truth, weight, squared=squared, generalised=generalised)
    return value * count, count


def ce_dice(
    outputs: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    *,
    class_weights: Tensor | None = None,
    label_smoothing: float = 0.0,
    dice_weight: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """Return mean cross-entropy plus `dice_weight` times the Dice loss, times the count.

    Isensee et al. 2021, nnU-Net, arXiv:1809.10486. Not a sum over rows, see `dice`.
    """
    logits, truth = _matched(outputs, target)
    log_p = logits.log_softmax(1)  # one for both
    total, count = _cross_entropy_of(log_p, truth, weight, class_weights, label_smoothing)
    p = log_p.exp()
    value = _dice_of(p, truth, weight, squared=False, generalised=False)
    return total + dice_weight * value * count, count


def _dice_of(
    p: Tensor, truth: Tensor, weight: Tensor | None, *, squared: bool, generalised: bool
) -> Tensor:
    """Return 1 - D of probabilities (B, K, H, W), a scalar; 0 where every pixel is ignored."""
    valid = truth != IGNORE
    share = valid.unsqueeze(1).to(p.dtype)
    if weight is not None:
        share = share * weight.to(p.dtype).view(-1, 1, 1, 1)
    one_hot = torch.zeros_like(p).scatter_(1, truth.masked_fill(~valid, 0).unsqueeze(1), 1.0)
    g = one_hot * share  # p and g meet the row's weight once
    axes = (0, 2, 3)
    both = (p * g).sum(axes)
    present = g.sum(axes)
    sizes = ((p.square() if squared else p) * share).sum(axes) + present
    seen = (present > 0).to(p.dtype)
    if generalised:
        tiny = torch.finfo(p.dtype).tiny
        v = seen / present.clamp_min(tiny**0.25).square()
        v = v / v.sum().clamp_min(tiny)  # a scale that cancels, so that no square underflows
        below = (v * sizes).sum()
        value = 1 - 2 * (v * both).sum() / below.masked_fill(below == 0, 1.0)
        return value * seen.amax()
    each = 2 * both / sizes.masked_fill(sizes == 0, 1.0)
    return ((1 - each) * seen).sum() / seen.sum().clamp_min(1.0)


def _matched(outputs: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Return logits in at least float32 and int64 classes; raise where the sizes differ."""
    if (
        outputs.ndim != 4
        or target.shape != (len(outputs), *outputs.shape[2:])
        or target.is_floating_point()
    ):
        raise ModelError(
            f"outputs {tuple(outputs.shape)} for masks {tuple(target.shape)} of {target.dtype}",
            "(B, K, H, W) logits and (B, H, W) whole-number classes of the same height and width",
            "use a model for segmentation, such as unet; a classifier can be inside it: "
            "--model unet --set model.backbone=resnet18",
        )
    return (outputs.float() if outputs.dtype in HALVES else outputs), target.long()


def _nll(log_p: Tensor, truth: Tensor, class_weights: Tensor | None, *, reduction: str) -> Tensor:
    """Return -cₜ log pₜ: the sum, or (B, H, W) values that are 0 where ignored."""
    if log_p.is_cuda and torch.are_deterministic_algorithms_enabled():
        # the kernel for pictures adds in no fixed order there; that for rows does
        flat = log_p.permute(0, 2, 3, 1).reshape(-1, log_p.shape[1])
        found = F.nll_loss(
            flat, truth.reshape(-1), class_weights, ignore_index=IGNORE, reduction=reduction
        )
        return found if reduction == "sum" else found.view(truth.shape)
    return F.nll_loss(log_p, truth, class_weights, ignore_index=IGNORE, reduction=reduction)


def _smoothed(log_p: Tensor, truth: Tensor, class_weights: Tensor | None) -> Tensor:
    """Return the mean over classes of -cₖ log pₖ, (B, H, W), 0 where ignored."""
    each = log_p if class_weights is None else log_p * class_weights.view(-1, 1, 1)
    return -each.mean(1) * (truth != IGNORE)


def _summed(values: Tensor, counts: Tensor, weight: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return (total, count) of a sum and a count, or of (B, H, W) values and (B,) counts."""
    if weight is None:
        return values, counts
    return (values.flatten(1).sum(1) * weight).sum(), (counts * weight).sum()


def _pixels(
    truth: Tensor, class_weights: Tensor | None, dtype: torch.dtype, *, per_row: bool
) -> Tensor:
    """Return the pixels that take part, or the sum of their class weights; () or (B,)."""
    valid = truth != IGNORE
    if class_weights is not None:
        shares = class_weights[truth.masked_fill(~valid, 0)] * valid
    else:
        shares = valid
    total = shares.flatten(1).sum(1) if per_row else shares.sum()
    return total.to(dtype)
