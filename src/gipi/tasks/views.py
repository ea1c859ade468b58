"""Test-time augmentation: a task whose answers are merged over several views of every picture.

classify   mean of the class probabilities (several labels: of each label's)
regress    mean of the values
segment    mean of the probabilities of each pixel, over the views that show it
detect     boxes of all views brought back, then merged by non-maximum suppression
pose       points brought back (mirrored names exchanged), mean weighted by confidence
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from gipi.core.batch import Batch
from gipi.core.device import constants
from gipi.core.errors import ConfigError
from gipi.data.augment import mirror_order
from gipi.data.augment.follow import transform_points, turned_over
from gipi.data.augment.geometry import inverse
from gipi.data.augment.move import apply_sampled
from gipi.nn.boxes import nms_batch
from gipi.tasks.detect import answers_of, boxes_to_original

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    from torch import Tensor, nn

    from gipi.core.schema import Schema
    from gipi.data.augment import View
    from gipi.tasks.task import Loss, Task

    Merge = Callable[[Sequence[Tensor], Sequence[View], tuple[int, int], Schema, Task], Tensor]

_TINY = 1e-12


def with_views(task: Task, schema: Schema, *, views: Sequence[View]) -> Task:
    """Return `task` with a forward pass over all views; metrics and answers stay its own.

    Its loss is still that of the pictures as they are: it is for judging and predicting.

    views   from `gipi.data.tta_views`
    Raises `ConfigError` where the data has no pictures, the task has no way to merge, or a view is
    a mirror image of points of which no pairs are known.
    """
    if not any(f.kind == "image" for f in schema.inputs):
        raise ConfigError("tta on data without pictures", "pictures", "leave it out")
    if task.name not in MERGES:
        raise ConfigError(
            f"tta with the task '{task.name}'", "one of " + ", ".join(MERGES), "leave it out"
        )
    _check_names(schema, views)
    merge = MERGES[task.name]

    def merged(model: nn.Module, batch: Batch, first: Tensor | None = None) -> Tensor:
        """Return the merged outputs; `first` are those of the pictures as they are, if known."""
        image = batch.inputs["image"]
        fill = _black(schema, image)
        outputs = []
        for view in views:
            if first is not None and not view.steps:
                outputs.append(first.float())
                continue
            inputs = {**batch.inputs, "image": view.apply(image, fill=fill)}
            seen = Batch(inputs, None, batch.weight, batch.ids, batch.rows)
            outputs.append(task.forward(model, seen).float())
        return merge(outputs, views, (image.shape[2], image.shape[3]), schema, task)

    def judged(model: nn.Module, batch: Batch) -> Loss:
        """Return the loss on the pictures as they are, with merged outputs for the metrics."""
        loss = task.phases[0].loss(model, batch)
        return loss._replace(outputs=merged(model, batch, loss.outputs))

    phases = (replace(task.phases[0], loss=judged), *task.phases[1:])
    viewed = replace(task, forward=merged, phases=phases)
    return _of_detections(viewed) if task.name == "detect" else viewed


def _of_detections(task: Task) -> Task:
    """Return the task of detection whose outputs are detections already."""

    def at_origin(
        outputs: Tensor, schema: Schema, placement: np.ndarray, sizes: np.ndarray
    ) -> dict[str, np.ndarray]:
        answers = answers_of(outputs, schema)
        for i, (matrix, size) in enumerate(zip(placement, sizes, strict=True)):
            answers["boxes"][i] = boxes_to_original(answers["boxes"][i], matrix, size)
        return answers

    return replace(
        task, units=lambda out, target, _: (out, target), decode=answers_of,
        decode_original=at_origin,
    )  # fmt: skip


def _check_names(schema: Schema, views: Sequence[View]) -> None:
    """Raise where points would be averaged with those of another name in a mirror image."""
    target = schema.target
    if target is None or target.kind != "keypoints" or len(target.classes) < 2:
        return
    mirrors = any(turned_over(view.matrix(2, 2)[None])[0] for view in views)
    if mirrors and mirror_order(target) is None:
        raise ConfigError(
            f"tta with mirror images of {len(target.classes)} keypoints of which no pairs are "
            "known",
            "the pairs of points that change names in a mirror image (left eye, right eye), which "
            "training takes from names with left and right",
            "use views that do not mirror: --tta shift or --tta zoom",
        )


def predict_tta(
    model: nn.Module, task: Task, *, batch: Batch, schema: Schema, views: Sequence[View]
) -> dict[str, np.ndarray]:
    """Return the answers of `task.decode` on a batch, merged over views of its pictures."""
    viewed = with_views(task, schema, views=views)
    return viewed.decode(viewed.forward(model, batch).float(), schema)


def _black(schema: Schema, like: Tensor) -> Tensor:
    """Return the normalised value (C,) of black."""
    stats = next(f.stats for f in schema.inputs if f.kind == "image")
    if stats.get("range", 1.0) == 1.0:
        return like.new_zeros(like.shape[1])
    mean, std = (torch.tensor(stats[k], dtype=torch.float32) for k in ("mean", "std"))
    return (-mean / std).to(like.device)


# ---------------------------------------------------------------------- one merge per task


def _classes(
    outputs: Sequence[Tensor], _views: Sequence[View], _size: tuple[int, int], schema: Schema,
    _task: Task,
) -> Tensor:  # fmt: skip
    """Return logits whose softmax (or sigmoid) is the mean of the views'."""
    z = torch.stack(list(outputs)).double()
    target = schema.target
    single = z.dim() == 2 or z.shape[-1] == 1 or (target is not None and "multi" in target.stats)
    if not single:
        return (torch.logsumexp(torch.log_softmax(z, -1), 0) - torch.tensor(len(z)).log()).float()
    p = torch.sigmoid(z).mean(0).clamp(_TINY, 1 - _TINY)
    return torch.logit(p).float()


def _values(
    outputs: Sequence[Tensor], _views: Sequence[View], _size: tuple[int, int], _schema: Schema,
    _task: Task,
) -> Tensor:  # fmt: skip
    return torch.stack(list(outputs)).mean(0)


def _masks(
    outputs: Sequence[Tensor], views: Sequence[View], size: tuple[int, int], _schema: Schema,
    _task: Task,
) -> Tensor:  # fmt: skip
    """Return log probabilities (B, K, H, W), the mean over the views that show a pixel."""
    total, shown = torch.zeros(()), torch.zeros(())
    for logits, view in zip(outputs, views, strict=True):
        p = torch.softmax(logits, 1)
        b = len(p)
        back = view.inverse(*size).to(p.device).expand(b, 3, 3)
        seen = torch.cat([p, torch.ones_like(p[:, :1])], 1)
        nothing = seen.new_zeros(seen.shape[1])
        seen = apply_sampled(seen, back, fill=nothing, padding="zero", projective=False)
        total, shown = total + seen[:, :-1], shown + seen[:, -1:]
    return torch.log((total / shown.clamp_min(_TINY)).clamp_min(_TINY))


def _boxes(
    outputs: Sequence[Tensor], views: Sequence[View], size: tuple[int, int], schema: Schema,
    task: Task,
) -> Tensor:  # fmt: skip
    """Return detections (B, most, 6) x0 y0 x1 y1 score class of all views, best first."""
    found = []
    for out, view in zip(outputs, views, strict=True):
        rows, _ = task.units(out, out, schema)
        back = view.inverse(*size).to(rows.device).expand(len(rows), 3, 3)
        corners = transform_points(back, rows[..., :4].reshape(len(rows), -1, 2))
        pair = corners.view(len(rows), -1, 2, 2)
        limit = torch.tensor([size[1], size[0]], dtype=rows.dtype, device=rows.device)
        low, high = (edge.clamp(torch.zeros_like(limit), limit) for edge in
                     (pair.amin(2), pair.amax(2)))  # fmt: skip
        found.append(torch.cat([low, high, rows[..., 4:]], -1))
    rows = torch.cat(found, 1)
    used = rows[..., 5] >= 0
    scores = rows[..., 4].masked_fill(~used, -torch.inf)
    overlap = float(task.spec[1]["overlap"])
    kept = nms_batch(rows[..., :4], scores, threshold=overlap, groups=rows[..., 5].long())
    most = found[0].shape[1]
    value, index = scores.masked_fill(~kept, -torch.inf).topk(most, dim=1)
    best = rows.gather(1, index[..., None].expand(-1, -1, 6))
    nothing = constants([0.0, 0.0, 0.0, 0.0, 0.0, -1.0], rows.device)
    return torch.where((value > -torch.inf)[..., None], best, nothing)


def _points(
    outputs: Sequence[Tensor], views: Sequence[View], size: tuple[int, int], schema: Schema,
    task: Task,
) -> Tensor:  # fmt: skip
    """Return points (B, K, 3) x, y, confidence: the mean of the views, weighted by confidence."""
    target = schema.target
    swap = mirror_order(target) if target is not None else None
    total, weight = torch.zeros(()), torch.zeros(())
    for out, view in zip(outputs, views, strict=True):
        points, _ = task.units(out, out, schema)
        matrix = view.matrix(*size)[None]
        back = inverse(matrix).to(points.device).expand(len(points), 3, 3)
        if turned_over(matrix)[0] and swap is not None:
            points = points[:, swap.to(points.device)]
        sure = points[..., 2:].clamp_min(_TINY)
        total = total + transform_points(back, points[..., :2]) * sure
        weight = weight + sure
    return torch.cat([total / weight, weight / len(views)], -1)


MERGES: dict[str, Merge] = {
    "classify": _classes, "regress": _values, "segment": _masks, "detect": _boxes,
    "pose": _points,
}  # fmt: skip
