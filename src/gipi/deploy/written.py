"""What is known of texts that were written: the score with its interval, and rows to read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from gipi.deploy.known import Case, Evidence, Known, Rows, shortened

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gipi.core.schema import Schema
    from gipi.metrics import TextMetric
    from gipi.tasks import Task
    from gipi.train.evaluate import Evaluation
    from gipi.train.said import Said

SHOWN = 12  # rows that a report shows of each kind


def judge(
    judged: Evaluation, task: Task, schema: Schema, rows: Rows | None
) -> dict[str, Any]:  # fmt: skip
    """Return what a report shows of answers: the worst rows, some rows at random, a simple rule.

    rows  shows rows to people; None: no row is shown, and the rule, which needs their texts, is
          left out
    """
    said = judged.said
    assert said is not None
    if rows is None or not len(said.ids) or not task.judges:
        return {}
    first = task.judges[0]
    scores = row_scores(first, said)
    source = schema.of("input", "text")[0].name
    raw = [str(row.get(source) or "") for row in rows.raw(said.ids)]
    sign = -1 if first.greater_is_better else 1
    worst = np.argsort(sign * np.nan_to_num(scores, nan=-sign * np.inf), kind="stable")[::-1]
    drawn = np.random.default_rng(0).permutation(len(said.ids))[:SHOWN]
    return {
        "baseline": {"metric": first.name, "value": copied(first, raw, said),
                     "rule": "copying the source"},
        "worst": _shown(worst[:SHOWN], said, raw, scores, rows),
        "random": _shown(np.sort(drawn), said, raw, scores, rows),
        "row_score": first.name,
    }  # fmt: skip


def row_scores(metric: TextMetric, said: Said) -> np.ndarray:
    """Return (n,) float64 the score of each row alone."""
    out = []
    for row in said.statistics[metric.name].split(1):
        state = metric.metric.init("cpu")
        metric.metric.update(state, row, row, None)
        out.append(metric.metric.compute(state))
    return np.array(out, dtype=np.float64)


def copied(metric: TextMetric, sources: Sequence[str], said: Said) -> float:
    """Return the score of answers that are the sources themselves, cut to the mean length."""
    words = [len(r.split()) for r in said.references]
    most = max(1, round(float(np.mean(words))))
    short = [source if len(source.split()) <= 2 * most else " ".join(source.split()[:most])
             for source in sources]  # fmt: skip
    weight = None if said.weight is None else said.weight.to(torch.float64)
    return metric.score(short, [[r] for r in said.references], weight=weight)


def _shown(
    places: np.ndarray, said: Said, sources: Sequence[str], scores: np.ndarray, rows: Rows
) -> list[dict[str, Any]]:
    names = rows.row_names(said.ids[places])
    return [
        {
            "id": int(said.ids[i]), "name": str(name), "score": float(scores[i]),
            "texts": [shortened(sources[i])], "prediction": shortened(said.texts[i]),
            "target": shortened(said.references[i]), "values": {},
        }
        for i, name in zip(places.tolist(), names, strict=True)
    ]  # fmt: skip


def _evidence(case: Case) -> Known:
    return Known(judge(case.judged, case.task, case.schema, case.shown))


EVIDENCE = Evidence("texts that were written", lambda case: case.judged.said is not None, _evidence)
