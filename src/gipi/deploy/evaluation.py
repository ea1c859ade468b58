"""Evaluation: what a model says about every row of a split, and how well, with an interval.

An interval of 95 % says how far the score may lie from what endlessly many such rows would give:
Wilson's (1927) for an accuracy, the bootstrap's percentiles (Efron 1979) for every other metric.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from gipi.core.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from gipi.core.batch import Batch, Stream
    from gipi.core.schema import Schema
    from gipi.metrics import Metric
    from gipi.tasks import Task

Z95 = 1.959963984540054
"""The normal distribution's 97.5 % point."""

_RESAMPLES = 400
_BOOTSTRAP_WORK = 20_000_000  # outputs touched over all resamples; fewer resamples beyond it


@dataclass(frozen=True)
class Answers:
    """What the model said about N rows, on the CPU.

    outputs  (N, ...) as the model gives them
    target   (N, ...) as the loss sees it, or None where nothing is known
    weight   (N,) or None for all ones
    ids      (N,) int64 row ids
    loss     mean training loss over the rows, None without targets
    """

    outputs: Tensor
    target: Tensor | None
    weight: Tensor | None
    ids: np.ndarray
    loss: float | None = None


@dataclass(frozen=True)
class Interval:
    """A score and the 95 % interval around it."""

    value: float
    low: float
    high: float
    method: str


@torch.no_grad()
def gather(model: nn.Module, task: Task, stream: Stream, *, device: torch.device) -> Answers:
    """Return the outputs for one pass over `stream`, with the model in evaluation mode.

    The model's mode is restored. Raises `DataError` where the stream is empty.
    """
    outputs, targets, weights, ids = [], [], [], []
    total, count, seen = 0.0, 0.0, 0
    was_training = model.training
    model.eval()
    try:
        for batch in stream.epoch(0):
            on_device = batch.to(device)
            if batch.target is None:
                out = task.forward(model, on_device)
            else:
                loss = task.phases[0].loss(model, on_device)
                out = loss.outputs
                total += float(loss.total)  # sync
                count += float(loss.count)
            outputs.append(out.float().cpu() if out.is_floating_point() else out.cpu())  # sync
            targets.append(None if batch.target is None else batch.target.cpu())
            weights.append(None if batch.weight is None else batch.weight.cpu())
            ids.append(_ids(batch, seen))
            seen += len(batch)
    finally:
        model.train(was_training)
    if not outputs:
        raise DataError("there is no row", "at least one row", "check the file or folder")
    return Answers(
        torch.cat(outputs),
        _joined(targets),
        _joined(weights),
        np.concatenate(ids),
        total / count if count else None,
    )


def _ids(batch: Batch, first: int) -> np.ndarray:
    if batch.ids is None:
        return np.arange(first, first + len(batch), dtype=np.int64)
    return batch.ids.cpu().numpy().astype(np.int64)


def _joined(parts: list[Tensor | None]) -> Tensor | None:
    known = [p for p in parts if p is not None]
    return torch.cat(known) if known and len(known) == len(parts) else None


def measure(answers: Answers, task: Task, schema: Schema) -> dict[str, float]:
    """Return every metric of the task and the loss; empty where there are no targets."""
    if answers.target is None:
        return {}
    outputs, target = task.units(answers.outputs, answers.target, schema)
    found = {} if answers.loss is None else {"loss": answers.loss}
    for metric in task.metrics(schema):
        found[metric.name] = _score(metric, outputs, target, answers.weight)
    return found


def _score(metric: Metric, outputs: Tensor, target: Tensor, weight: Tensor | None) -> float:
    state = metric.init(outputs.device)
    metric.update(state, outputs, target, weight)
    return float(metric.compute(state))


def primary_metric(task: Task, schema: Schema) -> Metric | None:
    """Return the metric that the task is judged by; None where it is judged by its loss."""
    return next((m for m in task.metrics(schema) if m.name == task.primary), None)


def score_interval(answers: Answers, task: Task, schema: Schema) -> Interval | None:
    """Return the primary metric with its 95 % interval; None without targets or metric."""
    metric = primary_metric(task, schema)
    if metric is None or answers.target is None:
        return None
    outputs, target = task.units(answers.outputs, answers.target, schema)
    value = _score(metric, outputs, target, answers.weight)
    if metric.name == "accuracy":
        low, high = wilson(value, effective_rows(answers.weight, len(outputs)))
        return Interval(value, low, high, "Wilson")
    low, high = bootstrap(metric, outputs, target, answers.weight)
    return Interval(value, low, high, "bootstrap")


def effective_rows(weight: Tensor | None, rows: int) -> float:
    """Return Kish's effective number of rows, (Σ w)² / Σ w²; `rows` without weights."""
    if weight is None:
        return float(rows)
    w = weight.double()
    squares = float((w * w).sum())
    return float(w.sum()) ** 2 / squares if squares else 0.0


def wilson(share: float, rows: float) -> tuple[float, float]:
    """Return Wilson's 95 % interval of a share seen in `rows` independent rows.

    (p + z²/2n ± z √(p(1-p)/n + z²/4n²)) / (1 + z²/n), which stays within [0, 1].

    >>> [round(x, 4) for x in wilson(0.9, 100)]
    [0.8256, 0.9448]
    """
    if rows <= 0 or not math.isfinite(share):
        return 0.0, 1.0
    z2 = Z95 * Z95
    center = share + z2 / (2 * rows)
    spread = Z95 * math.sqrt(max(share * (1 - share), 0) / rows + z2 / (4 * rows * rows))
    scale = 1 + z2 / rows
    return max(0.0, (center - spread) / scale), min(1.0, (center + spread) / scale)


def bootstrap(
    metric: Metric, outputs: Tensor, target: Tensor, weight: Tensor | None, *, seed: int = 0
) -> tuple[float, float]:
    """Return the 2.5 % and 97.5 % percentiles of the metric over resampled rows.

    Drawing rows with replacement is the same as weighting each row by how often it was drawn, so
    no row is copied. Resamples on which the metric is not finite are left out.
    """
    rows = len(outputs)
    draw = np.random.default_rng(seed)
    resamples = max(50, min(_RESAMPLES, _BOOTSTRAP_WORK // max(outputs.numel(), 1)))
    scores = []
    for _ in range(resamples):
        times = np.bincount(draw.integers(0, rows, rows), minlength=rows)
        w = torch.from_numpy(times).to(torch.float32)
        scores.append(_score(metric, outputs, target, w if weight is None else w * weight))
    finite = [s for s in scores if math.isfinite(s)]
    if not finite:
        return math.nan, math.nan
    low, high = np.percentile(finite, [2.5, 97.5])
    return float(low), float(high)


def decoded(answers: Answers, task: Task, schema: Schema) -> dict[str, np.ndarray]:
    """Return the task's answers for people, one entry a row."""
    return task.decode(answers.outputs, schema)


def summary(answers: Answers, task: Task, schema: Schema) -> dict[str, Any]:
    """Return {"rows", "metrics", "primary"} of an evaluation as JSON-able values."""
    interval = score_interval(answers, task, schema)
    metric = primary_metric(task, schema)
    primary = None
    if interval is not None and metric is not None:
        primary = {
            "name": metric.name,
            "value": interval.value,
            "low": interval.low,
            "high": interval.high,
            "method": interval.method,
            "greater_is_better": metric.greater_is_better,
        }
    return {
        "rows": len(answers.ids),
        "metrics": measure(answers, task, schema),
        "primary": primary,
    }
