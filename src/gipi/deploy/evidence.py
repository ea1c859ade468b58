"""Evidence: what a report needs of an evaluation beyond the score, as files of a folder.

summary.json   scores, interval, baseline, per-class figures, calibration, worst rows
arrays.npz     confusion matrix; residual histogram and (with samples) points
worst-NN.png   thumbnails of the worst-predicted pictures (with samples)
"""

from __future__ import annotations

import io
import json
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from gipi.core.atomic import write_folder
from gipi.deploy import drawn, entities, forecasts, passages, rowwise, spans, written
from gipi.deploy.evaluation import summary
from gipi.deploy.known import Case, Known

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from gipi.core.schema import Schema
    from gipi.data import Source
    from gipi.deploy.known import Rows
    from gipi.tasks import Task
    from gipi.train.evaluate import Evaluation

FORMAT_VERSION = 1
EVIDENCE = (
    drawn.EVIDENCE,
    written.EVIDENCE,
    spans.EVIDENCE,
    entities.EVIDENCE,
    passages.EVIDENCE,
    forecasts.EVIDENCE,
    rowwise.EVIDENCE,
)
"""The forms of evidence; the first that fits a case judges it."""


def write_evidence(
    path: Path,
    judged: Evaluation,
    task: Task,
    schema: Schema,
    *,
    split: str,
    rows: Rows | None = None,
    samples: bool = True,
    asked: Source | None = None,
    texts: Sequence[str] = (),
) -> dict[str, Any]:
    """Write the evaluation folder of a run in one step and return its summary.

    judged   from `train.evaluate(..., keep=True)`: metrics, outputs, targets, row ids
    split    name of the rows that were judged ("test", "val", or a file)
    rows     shows the worst rows, and what is naive of a series; None leaves them out
    samples  False keeps every single data row out of the folder: counts and curves only
    asked    the windows of questions, whose answers are scored as texts
    texts    what a language model has written

    Raises `StorageError` where the folder cannot be written.
    """
    found: dict[str, Any] = {"format_version": FORMAT_VERSION, "split": split, "task": task.name}
    found |= summary(judged, task, schema)
    found["target"] = schema.predicted
    found["samples"] = samples
    if judged.outputs is not None and len(judged.outputs) < judged.rows:
        found["looked_at"] = len(judged.outputs)  # the rest are in the metrics alone
    case = Case(judged, task, schema, found, rows, samples, asked, texts)
    form = next((form for form in EVIDENCE if form.fits(case)), None)
    known = Known() if form is None else form.judge(case)
    found |= known.facts
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **known.arrays)
    files = {**known.files, "arrays.npz": buffer.getvalue()}
    files["summary.json"] = json.dumps(_finite(found), indent=1, ensure_ascii=False).encode()
    write_folder(path, files)
    return found


def _finite(value: Any) -> Any:
    """Return `value` with non-finite numbers as the words "nan", "inf", "-inf": valid JSON."""
    if isinstance(value, dict):
        return {str(k): _finite(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value
