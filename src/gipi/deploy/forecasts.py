"""Evidence of forecasts: naive floors, the error by step ahead, windows to look at; and answers.

Errors are squared errors on the standardised scale, as the metric `mse` counts them. The floors
are what needs no training: the last value goes on, or the last season comes again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from gipi.data.windows import Geometry, Windows, geometry_of, naive
from gipi.deploy.evaluation import primary_metric
from gipi.deploy.known import Case, Evidence, Known, Rows
from gipi.deploy.predictions import Predictions

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from gipi.core.schema import Schema
    from gipi.data import Dataset
    from gipi.data.stream import Columns
    from gipi.tasks import Task
    from gipi.train.evaluate import Evaluation

CHUNK = 2048  # windows whose floors are held at once
MOST_SERIES = 4  # drawn of one window
PAST = 2  # horizons of the past that are drawn
SHOWN = ("worst", "median", "best")


@dataclass(frozen=True)
class Floors:
    """The naive forecasts of some windows, scored.

    metric   name of the task's primary metric
    values   rule in words -> its score
    by_step  rule in words -> squared error of each step ahead (H,)
    by_series  the same by series (K,)
    """

    metric: str
    values: dict[str, float]
    by_step: dict[str, np.ndarray]
    by_series: dict[str, np.ndarray]


def floors(
    columns: Columns, ids: np.ndarray, weight: Tensor | None, task: Task, schema: Schema
) -> Floors | None:
    """Return the scores of naive forecasts on the windows `ids`; None where no window is known."""
    metric, window = primary_metric(task, schema), geometry_of(schema)
    values, goal = _history(columns), columns.target
    if metric is None or values is None or not isinstance(goal, Windows) or not len(ids):
        return None
    width = goal.shape[1]
    scores: dict[str, float] = {}
    step: dict[str, np.ndarray] = {}
    series: dict[str, np.ndarray] = {}
    for rule, season in _rules(window).items():
        state = metric.init("cpu")
        steps, each, total = np.zeros(window.horizon), np.zeros(width), 0.0
        for at in range(0, len(ids), CHUNK):
            rows = ids[at : at + CHUNK]
            truth = goal.fetch(rows)
            guess = naive(values[:, :width], rows, horizon=window.horizon, season=season)
            w = None if weight is None else weight[at : at + CHUNK]
            metric.update(state, torch.from_numpy(guess), truth, w)
            heavy = np.ones(len(rows)) if w is None else w.double().numpy()
            squares = (truth.numpy() - guess).astype(np.float64) ** 2
            steps += heavy @ squares.mean(2)
            each += heavy @ squares.mean(1)
            total += float(heavy.sum())
        scores[rule] = float(metric.compute(state))
        step[rule], series[rule] = steps / max(total, 1e-12), each / max(total, 1e-12)
    return Floors(metric.name, scores, step, series)


def _rules(window: Geometry) -> dict[str, int]:
    """Return the naive rules in words, and how far back each looks."""
    rules = {"the last value goes on": 1}
    if window.season > 1:
        rules[f"the last {window.season} steps come again"] = window.season
    return rules


def _history(columns: Columns) -> np.ndarray | None:
    """Return (N, F) standardised values of all steps, None where the data is no series."""
    found = next((c for c in columns.inputs.values() if isinstance(c, Windows)), None)
    return None if found is None else found.values.numpy()


def floor_scores(dataset: Dataset, split: str, task: Task) -> dict[str, float]:
    """Return the scores of naive forecasts on one split, {} for other tasks."""
    if task.name != "forecast":
        return {}
    ids = dataset.splits[split]
    weight = dataset.columns.weight
    if weight is not None:
        weight = weight[torch.from_numpy(ids)]
    found = floors(dataset.columns, ids, weight, task, dataset.schema)
    return {} if found is None else found.values


# ---------------------------------------------------------------------------- evidence


def judge(
    judged: Evaluation, task: Task, schema: Schema, rows: Rows | None, *, samples: bool
) -> dict[str, Any]:
    """Return entries of the summary: forecasts against the truth, with `samples` some windows."""
    assert judged.outputs is not None
    assert judged.target is not None
    window = geometry_of(schema)
    out, truth = judged.outputs.double().numpy(), judged.target.double().numpy()
    ids = np.arange(len(out)) if judged.ids is None else judged.ids.numpy()
    heavy = np.ones(len(out)) if judged.weight is None else judged.weight.double().numpy()
    squares = (truth - out) ** 2
    total = max(float(heavy.sum()), 1e-12)
    names = [f.name for f in schema.of("target")]
    spread = np.array([f.stats["std"] for f in schema.of("target")])
    off = heavy @ np.abs(truth - out).mean(1) / total
    each = heavy @ squares.mean(1) / total
    known = None if rows is None else floors(rows.columns, ids, judged.weight, task, schema)
    facts: dict[str, Any] = {
        "forecast": {"horizon": window.horizon, "lookback": window.lookback,
                     "season": window.season, "step": window.step.words},
        "by_step": {"the model": (heavy @ squares.mean(2) / total).tolist()},
        "per_series": [
            {"series": n, "mse": float(e), "original_mae": float(a * s)}
            for n, e, a, s in zip(names, each, off, spread, strict=True)
        ],
    }  # fmt: skip
    if known is not None:
        facts["by_step"] |= {rule: v.tolist() for rule, v in known.by_step.items()}
        facts["baselines"] = [
            {"rule": rule, "metric": known.metric, "value": v} for rule, v in known.values.items()
        ]
        best = min(known.values, key=lambda rule: known.values[rule])
        facts["baseline"] = {
            "metric": known.metric, "value": known.values[best], "rule": f"the rule that {best}"
        }  # fmt: skip
        least = np.min(list(known.by_series.values()), axis=0)
        for entry, floor in zip(facts["per_series"], least.tolist(), strict=True):
            entry["floor"] = floor
    if samples and rows is not None:
        facts["windows"] = _shown(squares, out, truth, ids, schema, rows)
    return facts


def _shown(
    squares: np.ndarray, out: np.ndarray, truth: np.ndarray, ids: np.ndarray, schema: Schema,
    rows: Rows,
) -> list[dict[str, Any]]:  # fmt: skip
    """Return the worst, the median and the best window, in the units of the data."""
    cost = squares.mean((1, 2))
    order = np.argsort(-np.nan_to_num(cost, nan=np.inf), kind="stable")
    places = {"worst": int(order[0]), "median": int(order[len(order) // 2]), "best": int(order[-1])}
    fields, window, values = schema.of("target"), geometry_of(schema), _history(rows.columns)
    hardest = np.argsort(-squares.mean((0, 1)), kind="stable")[:MOST_SERIES]
    past = min(window.lookback, PAST * window.horizon)
    found = []
    for kind in SHOWN if len(order) > 2 else SHOWN[:1]:
        i = places[kind]
        t = int(ids[i])
        ends = rows.row_names(np.array([t, t + window.horizon - 1]))
        series = []
        for k in np.sort(hardest).tolist():
            mean, std = float(fields[k].stats["mean"]), float(fields[k].stats["std"])
            before = np.zeros(0) if values is None else values[t - past : t, k].astype(np.float64)
            parts = {"past": before, "truth": truth[i, :, k], "forecast": out[i, :, k]}
            series.append(
                {"series": fields[k].name}
                | {name: (v * std + mean).tolist() for name, v in parts.items()}
            )
        found.append({"kind": kind, "id": t, "first": str(ends[0]), "last": str(ends[1]),
                      "loss": float(cost[i]), "series": series})  # fmt: skip
    return found


def _evidence(case: Case) -> Known:
    facts = judge(case.judged, case.task, case.schema, case.rows, samples=case.samples)
    return Known(facts)


EVIDENCE = Evidence(
    "forecasts", lambda case: case.task.name == "forecast" and case.complete, _evidence
)

# ---------------------------------------------------------------------------- answers


def as_table(answers: dict[str, np.ndarray], rows: Dataset, notes: Sequence[str]) -> Predictions:
    """Return the forecast after the last row: one line a step, one column a series."""
    schema = rows.schema
    first = int(rows.splits["all"][0])
    steps = np.arange(first, first + geometry_of(schema).horizon)
    title = next((f.name for f in schema.of("time")), "step")
    names = tuple(f.name for f in schema.of("target"))
    values = {"forecast": answers["forecast"][0]}
    return Predictions(tuple(rows.row_names(steps)), values, names, "", tuple(notes), title)
