"""Metrics of segmentation, from ONE confusion matrix over all pixels of all rows.

Outputs are logits (B, K, H, W) or class indices (B, H, W); targets are (B, H, W) class indices with
255 where nobody labelled. Counts are added up over the whole pass and divided at its end, so that
the value depends neither on the batch size nor on the number of ranks; a mean over pictures of
their own scores would.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from gipi.core.errors import ModelError
from gipi.metrics.metric import Metric, State, zeros

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

IGNORE = 255


def confusion(
    outputs: Tensor, target: Tensor, weight: Tensor | None = None, *, classes: int
) -> Tensor:
    """Return (K, K) float64 counts of pixels, true class by predicted class; 255 is left out.

    outputs  (B, K, H, W) logits or (B, H, W) classes;  target (B, H, W);  weight (B,) or None
    """
    guess = (outputs.argmax(1) if outputs.ndim == 4 else outputs).long()
    truth = target.long()
    if guess.shape != truth.shape:
        raise ModelError(
            f"a predicted mask {tuple(guess.shape)} for a true one {tuple(truth.shape)}",
            "masks of the same height and width",
            "use a model for segmentation, such as unet",
        )
    cells = classes * classes
    place = truth * classes + guess
    place = place.masked_fill(truth == IGNORE, cells)  # one more cell: no look at the device
    rows = 1 if weight is None else len(truth)
    if weight is not None:
        first = torch.arange(rows, device=place.device) * (cells + 1)
        place = place + first.view(-1, 1, 1)
    size = rows * (cells + 1)
    if place.is_cuda:  # bincount there would look at the largest value
        ones = torch.ones((), dtype=torch.float64, device=place.device).expand(place.numel())
        counts = torch.zeros(size, dtype=torch.float64, device=place.device)
        counts.index_add_(0, place.reshape(-1), ones)
    else:
        counts = torch.bincount(place.reshape(-1), minlength=size)
    counts = counts.view(rows, cells + 1)[:, :cells].to(torch.float64)
    if weight is not None:
        counts = counts * weight.to(torch.float64).unsqueeze(1)
    return counts.sum(0).view(classes, classes)


def _of_confusion(name: str, classes: int, score: Callable[[Tensor], float]) -> Metric:
    size = max(classes, 1)

    def update(state: State, outputs: Tensor, target: Tensor, weight: Tensor | None) -> None:
        if outputs.ndim == 4 and outputs.shape[1] != len(state["confusion"]):
            raise ModelError(
                f"{outputs.shape[1]} maps of logits for {len(state['confusion'])} classes",
                "one map a class",
                "set the width of the model's head",
            )
        matrix = confusion(outputs, target, weight, classes=len(state["confusion"]))
        state["confusion"].add_(matrix.to(state["confusion"].dtype))

    return Metric(
        name,
        greater_is_better=True,
        init=zeros({"confusion": (size, size)}),
        update=update,
        compute=lambda state: score(state["confusion"]),
    )


def class_iou(matrix: Tensor) -> Tensor:
    """Return (K,) intersection over union of each class from a confusion matrix; NaN if absent.

    IoUₖ = nₖₖ / (Σⱼ nₖⱼ + Σⱼ nⱼₖ - nₖₖ). A class is absent where neither truth nor prediction has a
    pixel of it.
    """
    both = matrix.diagonal()
    union = matrix.sum(0) + matrix.sum(1) - both
    return torch.where(union > 0, both / union.clamp_min(1e-300), torch.nan)


def class_dice(matrix: Tensor) -> Tensor:
    """Return (K,) 2nₖₖ / (Σⱼ nₖⱼ + Σⱼ nⱼₖ) from a confusion matrix; NaN where a class is absent."""
    sizes = matrix.sum(0) + matrix.sum(1)
    return torch.where(sizes > 0, 2 * matrix.diagonal() / sizes.clamp_min(1e-300), torch.nan)


def mean_iou(classes: int = 2) -> Metric:
    """Return the mean intersection over union over the classes that truth or prediction has.

    From one confusion matrix over all pixels; a class that neither truth nor prediction has is left
    out of the mean. Everingham et al. 2010, The Pascal visual object classes challenge.
    """
    return _of_confusion("mean_iou", classes, lambda m: float(class_iou(m).nanmean()))


def mean_dice(classes: int = 2) -> Metric:
    """Return the mean Dice coefficient over the classes that truth or prediction has.

    2|A∩B| / (|A| + |B|) = 2 IoU / (1 + IoU) of each class, from one confusion matrix. Dice 1945;
    Sørensen 1948.
    """
    return _of_confusion("dice", classes, lambda m: float(class_dice(m).nanmean()))


def pixel_accuracy(classes: int = 2) -> Metric:
    """Return the share of labelled pixels whose class is right; large classes decide it.

    Long, Shelhamer and Darrell 2015, arXiv:1411.4038.
    """

    def score(matrix: Tensor) -> float:
        total = float(matrix.sum())
        return float(matrix.diagonal().sum()) / total if total else float("nan")

    return _of_confusion("pixel_accuracy", classes, score)
