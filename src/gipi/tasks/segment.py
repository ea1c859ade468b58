"""Segmentation: the class of every pixel."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from gipi import losses, metrics
from gipi.core.errors import ConfigError, did_you_mean
from gipi.tasks.placement import masks_to_original
from gipi.tasks.task import Loss, LossFunction, Phase, Task, call_model, check_class_weights

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor, nn

    from gipi.core.batch import Batch
    from gipi.core.schema import Schema

LOSSES = ("ce+dice", "ce", "dice", "generalised-dice", "focal")
SEPARABLE = ("ce", "focal")
SMOOTHED = ("ce", "ce+dice")
WEIGHTED = ("ce", "ce+dice", "focal")
METRICS = ("mean_iou", "dice", "pixel_accuracy")


def segment(
    *,
    loss: str = "ce+dice",
    class_weights: Sequence[float] | None = None,
    label_smoothing: float = 0.0,
    gamma: float = 2.0,
    dice_weight: float = 1.0,
    metric: str = "mean_iou",
) -> Task:
    """Return the task of naming the class of every pixel.

    Targets are masks (B, H, W) of class indices, 255 where nobody labelled; models answer logits
    (B, K, H, W) at the size of the picture.

    loss             "ce+dice": mean cross-entropy over pixels + `dice_weight` · (1 - Dice); "ce";
                     "dice"; "generalised-dice" (Sudre et al. 2017); "focal" with `gamma`
    class_weights    K factors on the pixels of each class (ce, ce+dice, focal); None for all ones
    label_smoothing  ε of the cross-entropy
    metric           the score that decides which weights are best: mean_iou, dice, pixel_accuracy

    Dice compares sums over the batch and is no sum over rows: with it micro-batches and several
    ranks are refused unless `accept_mixing` is set. Raises `ConfigError` for unknown names and
    values out of range.
    """
    for key, value, known in (("loss", loss, LOSSES), ("metric", metric, METRICS)):
        if value not in known:
            raise ConfigError(
                f"task.{key}={value!r} is no {key} of segmentation",
                f"one of {', '.join(known)}",
                did_you_mean(value, known),
            )
    if not (0 <= label_smoothing < 1 and 0 <= gamma < math.inf and 0 <= dice_weight < math.inf):
        raise ConfigError(
            f"task.label_smoothing={label_smoothing}, gamma={gamma}, dice_weight={dice_weight}",
            "label_smoothing in [0, 1), gamma and dice_weight from 0 up",
            "0, 2 and 1 are usual",
        )
    smoothable, weighable = loss in SMOOTHED, loss in WEIGHTED
    if (label_smoothing and not smoothable) or (class_weights is not None and not weighable):
        raise ConfigError(
            f"label smoothing or class weights with loss {loss!r}",
            "a loss with cross-entropy for them",
            "drop the option or set task.loss=ce+dice",
        )
    weights = None if class_weights is None else torch.tensor(class_weights, dtype=torch.float32)
    spec: dict[str, Any] = {
        "loss": loss,
        "class_weights": None if class_weights is None else list(class_weights),
        "label_smoothing": label_smoothing,
        "gamma": gamma,
        "dice_weight": dice_weight,
        "metric": metric,
    }

    def outputs(schema: Schema) -> int:
        classes = len(schema.classes)
        if class_weights is not None:
            check_class_weights(class_weights, schema.classes)
        return classes

    def measured(schema: Schema | None) -> list[metrics.Metric]:
        width = len(schema.classes) if schema is not None else 0
        names = dict.fromkeys([metric, "mean_iou", "pixel_accuracy"])
        return [metrics.build(name, classes=width) for name in names] if width else []

    return Task(
        name="segment",
        spec=("segment", spec),
        outputs=outputs,
        phases=(Phase("segment", _loss(loss, weights, label_smoothing, gamma, dice_weight)),),
        forward=call_model,
        units=_units,
        metrics=measured,
        decode=_decode,
        decode_original=_decode_original,
        primary=metric,
        row_separable=loss in SEPARABLE,
    )


def _loss(
    name: str, weights: Tensor | None, smoothing: float, gamma: float, dice_weight: float
) -> LossFunction:
    placed = weights

    def value(out: Tensor, target: Tensor, weight: Tensor | None) -> tuple[Tensor, Tensor]:
        if name == "ce":
            return losses.pixel_cross_entropy(
                out, target, weight, class_weights=placed, label_smoothing=smoothing
            )
        if name == "focal":
            return losses.pixel_focal(out, target, weight, gamma=gamma, class_weights=placed)
        if name == "ce+dice":
            return losses.ce_dice(
                out, target, weight, class_weights=placed, label_smoothing=smoothing,
                dice_weight=dice_weight,
            )  # fmt: skip
        return losses.dice(out, target, weight, generalised=name == "generalised-dice")

    def phase(model: nn.Module, batch: Batch) -> Loss:
        nonlocal placed
        assert batch.target is not None
        out = model(*batch.inputs.values())
        if placed is not None and placed.device != out.device:
            placed = placed.to(out.device)  # once: a copy in each step would wait for the device
        total, count = value(out, batch.target, batch.weight)
        return Loss(total, count, out)

    return phase


def _units(outputs: Tensor, target: Tensor, schema: Schema | None) -> tuple[Tensor, Tensor]:  # noqa: ARG001
    """Logits become classes once, for all metrics and for every resample of the interval."""
    return (outputs.argmax(1).to(torch.uint8) if outputs.ndim == 4 else outputs), target


def _decode(outputs: Tensor, schema: Schema) -> dict[str, np.ndarray]:  # noqa: ARG001
    """Return ``mask`` (n, H, W) uint8 class indices on the prepared picture."""
    classes = outputs.argmax(1) if outputs.ndim == 4 else outputs
    return {"mask": classes.to(torch.uint8).cpu().numpy()}


def _decode_original(
    outputs: Tensor, schema: Schema, placement: np.ndarray, sizes: np.ndarray  # noqa: ARG001
) -> dict[str, np.ndarray]:  # fmt: skip
    """Return ``mask``: n uint8 masks, each of the size of its original picture."""
    found = masks_to_original(outputs, placement, sizes)
    masks = np.empty(len(found), dtype=object)
    masks[:] = found
    return {"mask": masks}
