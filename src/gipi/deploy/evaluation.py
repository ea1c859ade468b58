"""How well a model does, with an interval: the score of an evaluation and how sure it is.

An interval of 95 % says how far the score may lie from what endlessly many such rows would give:
Wilson's (1927) for an accuracy, the bootstrap's percentiles (Efron 1979) for every other metric.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from gipi.data.windows import geometry_of
from gipi.metrics.shares import wilson

if TYPE_CHECKING:
    from torch import Tensor

    from gipi.core.schema import Schema
    from gipi.metrics import Metric, TextMetric
    from gipi.tasks import Task
    from gipi.train.evaluate import Evaluation
    from gipi.train.said import Said

_RESAMPLES = 400
_MANY = 4096  # values of one row above which states are drawn instead of rows
_STATES, _LEAST_GROUPS = 50_000_000, 50
FEWEST_BLOCKS = 5
"""Blocks of windows that do not overlap below which resampling them says nothing."""
_BOOTSTRAP_WORK = 20_000_000  # outputs touched over all resamples; fewer resamples beyond it


@dataclass(frozen=True)
class Interval:
    """A score and the 95 % interval around it; None and None where too few rows give none."""

    value: float
    low: float | None
    high: float | None
    method: str


def primary_metric(task: Task, schema: Schema) -> Metric | None:
    """Return the metric that the task is judged by; None where it is judged by its loss."""
    if task.judges:
        return task.judges[0].metric
    return next((m for m in task.metrics(schema) if m.name == task.primary), None)


def score_interval(found: Evaluation, task: Task, schema: Schema) -> Interval | None:
    """Return the primary metric with its 95 % interval; None without kept targets or a metric."""
    if found.said is not None and task.judges:
        return _of_texts(found.said, task.judges[0])
    metric = primary_metric(task, schema)
    if metric is None or found.outputs is None or found.target is None:
        return None
    outputs, target = compared(found, task, schema)
    value = _score(metric, outputs, target, found.weight)
    some = f", {len(outputs)} of {found.rows} rows" if len(outputs) < found.rows else ""
    shift = found.metrics.get(metric.name, value) - value if some else 0.0  # the score is of all
    if metric.name == "accuracy":
        low, high = wilson(value + shift, effective_rows(found.weight, len(outputs)))
        return Interval(value + shift, low, high, f"Wilson{some}")
    if task.name == "forecast":  # windows overlap: neighbours are no independent rows
        blocks = max(1, len(outputs) // geometry_of(schema).horizon)
        if blocks < FEWEST_BLOCKS:
            few = f"{blocks} block{'s' * (blocks > 1)} of windows: too few for an interval"
            return Interval(value + shift, None, None, few)
        low, high = bootstrap_states(metric, outputs, target, found.weight, groups=blocks)
        return Interval(
            value + shift, low + shift, high + shift, f"bootstrap of {blocks} blocks{some}"
        )
    resample = bootstrap_states if outputs[:1].numel() > _MANY else bootstrap
    low, high = resample(metric, outputs, target, found.weight)
    return Interval(value + shift, low + shift, high + shift, f"bootstrap{some}")


def _of_texts(said: Said, judge: TextMetric) -> Interval:
    """Return the score of texts that were written; rows are resampled, not compared again."""
    rows, metric = said.statistics[judge.name], judge.metric
    low, high = bootstrap(metric, rows, rows, said.weight)
    return Interval(_score(metric, rows, rows, said.weight), low, high, "bootstrap")


def compared(found: Evaluation, task: Task, schema: Schema) -> tuple[Tensor, Tensor]:
    """Return kept outputs and targets as the metrics compare them, in the units of the data."""
    assert found.outputs is not None
    assert found.target is not None
    if task.decode_original is not None:  # kept in that form already
        return found.outputs, found.target
    return task.units(found.outputs, found.target, schema)


def _score(metric: Metric, outputs: Tensor, target: Tensor, weight: Tensor | None) -> float:
    state = metric.init(outputs.device)
    metric.update(state, outputs, target, weight)
    return float(metric.compute(state))


def effective_rows(weight: Tensor | None, rows: int) -> float:
    """Return Kish's effective number of rows, (Σ w)² / Σ w²; `rows` without weights."""
    if weight is None:
        return float(rows)
    w = weight.double()
    squares = float((w * w).sum())
    return float(w.sum()) ** 2 / squares if squares else 0.0


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


def bootstrap_states(
    metric: Metric, outputs: Tensor, target: Tensor, weight: Tensor | None, *, seed: int = 0,
    groups: int | None = None,
) -> tuple[float, float]:  # fmt: skip
    """Return what `bootstrap` does for rows that are large, such as masks.

    The states of a metric add up, so each row is measured once and only states are drawn. Where
    they are large, neighbouring rows are drawn together; with `groups` in so many blocks, for rows
    that are not independent of their neighbours (Künsch 1989).
    """
    empty = metric.init(outputs.device)
    size = sum(t.numel() for t in empty.values())
    groups = groups or min(len(outputs), max(_LEAST_GROUPS, _STATES // max(size, 1)))
    states = []
    for part in np.array_split(np.arange(len(outputs)), groups):
        rows = slice(int(part[0]), int(part[-1]) + 1)
        state = metric.init(outputs.device)
        metric.update(state, outputs[rows], target[rows], None if weight is None else weight[rows])
        states.append(state)
    stacked = {k: torch.stack([s[k] for s in states]) for k in empty}
    draw, scores = np.random.default_rng(seed), []
    for _ in range(_RESAMPLES):
        times = torch.from_numpy(np.bincount(draw.integers(0, groups, groups), minlength=groups))
        state = {k: torch.tensordot(times.to(t.dtype), t, 1) for k, t in stacked.items()}
        scores.append(float(metric.compute(state)))
    finite = [s for s in scores if math.isfinite(s)]
    if not finite:
        return math.nan, math.nan
    low, high = np.percentile(finite, [2.5, 97.5])
    return float(low), float(high)


def summary(found: Evaluation, task: Task, schema: Schema) -> dict[str, Any]:
    """Return {"rows", "metrics", "primary"} of an evaluation as JSON-able values."""
    interval = score_interval(found, task, schema)
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
    return {"rows": found.rows, "metrics": dict(found.metrics), "primary": primary}
