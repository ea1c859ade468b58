"""Detection: boxes around objects, and the class of each."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from gipi import losses, metrics
from gipi.core.boxes import clip_boxes
from gipi.core.device import constants
from gipi.core.errors import ConfigError, ModelError, did_you_mean
from gipi.nn.boxes import nms_batch
from gipi.nn.grids import RATIOS, SCALES, STRIDES, Level, anchors, levels_of, locations
from gipi.tasks.assign import Assigned, assign_anchors, assign_places
from gipi.tasks.task import Loss, Phase, Task, call_model

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor, nn

    from gipi.core.batch import Batch
    from gipi.core.schema import Schema

METHODS = ("fcos", "retinanet")
METRICS = ("ap50", "ap")
PER_PLACE = {"fcos": 1, "retinanet": len(SCALES) * len(RATIOS)}


def detect(
    *,
    method: str = "fcos",
    box_weight: float = 1.0,
    alpha: float = 0.25,
    gamma: float = 2.0,
    radius: float = 1.5,
    reach: float = 8.0,
    strides: Sequence[int] = STRIDES,
    score: float = 0.05,
    overlap: float = 0.6,
    most: int = 100,
    candidates: int = 300,
    metric: str = "ap50",
) -> Task:
    """Return the task of finding objects.

    Targets are boxes (B, M, 6); models answer (B, A, 4 + 1 + K): box in pixels of the picture,
    centerness logit, class logits, for each place of `gipi.nn.grids` (fcos) or each anchor there
    (retinanet).

        loss = (Σ focal + box_weight · Σ⁺ (1 - GIoU) + Σ⁺ centerness) / (positives + 1)

    Σ⁺ goes over the places that answer for an object; positives are their number in the whole
    optimizer step, so that micro-batches and ranks do not change it. The 1 keeps a step without any
    object finite; it is shared out over the rows of the step, hence the loss is a sum over rows.

    method          "fcos" (Tian et al. 2019), or "retinanet" (Lin et al. 2017; no centerness)
    box_weight      of the GIoU loss; alpha, gamma: of the focal loss
    radius, reach   of the assignment, in strides; see `gipi.tasks.assign`
    strides         of the model's levels
    score           least score √(p · centerness) (retinanet: p) of an answer
    overlap         IoU above which the lower of two answers of one class is dropped
    most            answers in a picture; candidates: for each level, before the suppression
    metric          the score that decides which weights are best: ap50 or ap

    Differs from the paper: GIoU unweighted and divided by the number of positives, not weighted by
    the centerness. Raises `ConfigError` for unknown names and values out of range.
    """
    for key, value, known in (("method", method, METHODS), ("metric", metric, METRICS)):
        if value not in known:
            raise ConfigError(
                f"task.{key}={value!r} is no {key} of detection",
                f"one of {', '.join(known)}",
                did_you_mean(value, known),
            )
    _in_range(alpha=alpha, score=score, overlap=overlap)
    if not 0 <= gamma < math.inf:
        raise ConfigError(f"task.gamma={gamma}", "a number from 0 up", "2 is usual")
    _above_zero(box_weight=box_weight, radius=radius, reach=reach)
    _whole(most=(most,), candidates=(candidates,), strides=strides)
    spec: dict[str, Any] = {
        "method": method, "box_weight": box_weight, "alpha": alpha, "gamma": gamma,
        "radius": radius, "reach": reach, "strides": list(strides), "score": score,
        "overlap": overlap, "most": most, "candidates": candidates, "metric": metric,
    }  # fmt: skip
    per_place = PER_PLACE[method]

    def levels(outputs: Tensor, height: int, width: int) -> tuple[Level, ...]:
        if outputs.shape[1] % per_place:
            raise ModelError(
                f"{outputs.shape[1]} answers a picture",
                f"{per_place} for each place, as method={method} has",
                f"use the model '{method}'",
            )
        return levels_of(outputs.shape[1] // per_place, height, width, strides=strides)

    def assigned(outputs: Tensor, target: Tensor, height: int, width: int) -> Assigned:
        found = levels(outputs, height, width)
        if method == "retinanet":
            return assign_anchors(target, anchors(found, outputs.device))
        places = locations(found, outputs.device)
        return assign_places(target, places, found, radius=radius, reach=reach)

    def phase(model: nn.Module, batch: Batch) -> Loss:
        assert batch.target is not None
        image = next(iter(batch.inputs.values()))
        out = model(*batch.inputs.values())
        goal = assigned(out, batch.target, *image.shape[-2:])
        there = goal.classes >= 0
        w = batch.weight
        logs = {}
        logs["focal"], count = losses.focal(out[..., 5:], goal.classes, w, alpha=alpha, gamma=gamma)
        logs["giou"], _ = losses.giou_loss(out[..., :4], goal.boxes, w, valid=there)
        total = logs["focal"] + box_weight * logs["giou"]
        if method == "fcos":
            places = locations(levels(out, *image.shape[-2:]), out.device)
            middle = losses.centerness_of(places[:, :2], goal.boxes)
            logs["centerness"], _ = losses.centerness(out[..., 4], middle, w, valid=there)
            total = total + logs["centerness"]
        share = len(out) if w is None else w.sum()
        return Loss(total, count + share / max(batch.rows, 1), out, logs)

    def found(outputs: Tensor, schema: Schema | None) -> Tensor:
        size = _size(schema)
        sizes = [outputs.shape[1]]
        if size is not None:
            sizes = [per_place * level.places for level in levels(outputs, *size)]
        return detections(
            outputs, sizes, centered=method == "fcos", score=score, overlap=overlap, most=most,
            candidates=candidates, size=size,
        )  # fmt: skip

    def units(outputs: Tensor, target: Tensor, schema: Schema | None) -> tuple[Tensor, Tensor]:
        return found(outputs, schema), target

    def decode(outputs: Tensor, schema: Schema) -> dict[str, np.ndarray]:
        return answers_of(found(outputs, schema), schema)

    def decode_original(
        outputs: Tensor, schema: Schema, placement: np.ndarray, sizes: np.ndarray
    ) -> dict[str, np.ndarray]:
        answers = answers_of(found(outputs, schema), schema)
        for i, (matrix, size) in enumerate(zip(placement, sizes, strict=True)):
            answers["boxes"][i] = boxes_to_original(answers["boxes"][i], matrix, size)
        return answers

    def measured(schema: Schema | None) -> list[metrics.Metric]:
        width = len(schema.classes) if schema is not None else 0
        return [metrics.build(name, classes=width) for name in METRICS] if width else []

    return Task(
        name="detect",
        spec=("detect", spec),
        outputs=lambda schema: len(schema.classes),
        phases=(Phase("detect", phase),),
        forward=call_model,
        units=units,
        metrics=measured,
        decode=decode,
        decode_original=decode_original,
        primary=metric,
        measured_rows=64,
    )


# ---------------------------------------------------------------------------- answers


@torch.no_grad()
def detections(
    outputs: Tensor,
    sizes: Sequence[int],
    *,
    centered: bool,
    score: float,
    overlap: float,
    most: int,
    candidates: int,
    size: tuple[int, int] | None = None,
) -> Tensor:
    """Return (B, most, 6) from a detector's answer (B, A, 4 + 1 + K): the best boxes first.

    Each row is x0, y0, x1, y1, score, class; unused rows are 0 with class -1.

    sizes       answers of each level, together A; `candidates` of each are looked at
    centered    the score is √(p · centerness), not p
    score, overlap, most  see `detect`
    size        H, W of the picture, at whose edges boxes are cut off; None: not cut
    """
    classes = outputs.shape[-1] - 5
    p = torch.sigmoid(outputs[..., 5:].float())
    if centered:
        p = (p * torch.sigmoid(outputs[..., 4:5].float())).sqrt()
    boxes = outputs[..., :4].float()
    if size is not None:
        boxes = clip_boxes(boxes, height=size[0], width=size[1])
    parts = []
    for part, where in zip(p.split(list(sizes), 1), boxes.split(list(sizes), 1), strict=True):
        value, index = part.flatten(1).topk(min(candidates, part[0].numel()), dim=1)
        chosen = where.gather(1, (index // classes)[..., None].expand(-1, -1, 4))
        parts.append(torch.cat([chosen, value[..., None], (index % classes)[..., None]], dim=-1))
    rows = torch.cat(parts, dim=1)
    if rows.shape[1] < most:
        rows = torch.nn.functional.pad(rows, (0, 0, 0, most - rows.shape[1]))
    scores = rows[..., 4].masked_fill(rows[..., 4] < max(score, 1e-9), -torch.inf)
    kept = nms_batch(rows[..., :4], scores, threshold=overlap, groups=rows[..., 5].long())
    value, index = scores.masked_fill(~kept, -torch.inf).topk(most, dim=1)
    rows = rows.gather(1, index[..., None].expand(-1, -1, 6))
    nothing = constants([0.0, 0.0, 0.0, 0.0, 0.0, -1.0], rows.device)
    return torch.where((value > -torch.inf)[..., None], rows, nothing)


def boxes_to_original(boxes: np.ndarray, matrix: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """Return boxes (k, 4) of a prepared picture in pixels of the original, cut off at its edges.

    matrix  (3, 3) original -> prepared pixels, which scales and shifts; size: H, W of the original
    """
    scale, shift = np.diagonal(matrix)[:2], matrix[:2, 2]
    moved = (boxes.reshape(-1, 2, 2).astype(np.float64) - shift) / scale
    limit = np.array([size[1], size[0]], dtype=np.float64)
    clipped: np.ndarray = np.clip(moved, 0, limit).reshape(-1, 4).astype(np.float32)
    return clipped


def answers_of(found: Tensor, schema: Schema) -> dict[str, np.ndarray]:
    """Return ``boxes``, ``scores``, ``index`` and ``labels`` (names): arrays of one array a row."""
    rows = found.cpu().numpy()
    names = np.array(schema.classes, dtype=object)
    answers = {k: np.empty(len(rows), dtype=object) for k in ("boxes", "scores", "index", "labels")}
    for i, row in enumerate(rows):
        used = row[row[:, 5] >= 0]
        index = used[:, 5].astype(np.int64)
        answers["boxes"][i], answers["scores"][i] = used[:, :4], used[:, 4]
        answers["index"][i], answers["labels"][i] = index, names[index]
    return answers


def _size(schema: Schema | None) -> tuple[int, int] | None:
    """H, W of the prepared picture, where the schema says it."""
    for field in schema.inputs if schema is not None else ():
        if field.kind == "image" and len(field.shape) == 3:
            return field.shape[1], field.shape[2]
    return None


def _in_range(**values: float) -> None:
    for key, value in values.items():
        if not 0 <= value <= 1:
            raise ConfigError(f"task.{key}={value}", "a number in [0, 1]", f"correct task.{key}")


def _above_zero(**values: float) -> None:
    for key, value in values.items():
        if not 0 < value < math.inf:
            raise ConfigError(f"task.{key}={value}", "a number above 0", f"correct task.{key}")


def _whole(**values: Sequence[int]) -> None:
    for key, found in values.items():
        if not found or not all(type(v) is int and v > 0 for v in found):
            shown = ",".join(map(str, found))
            raise ConfigError(
                f"task.{key}={shown}", "whole numbers above 0", f"correct task.{key}, or leave it "
                "out",
            )  # fmt: skip
