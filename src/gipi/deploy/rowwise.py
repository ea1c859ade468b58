"""Evidence of one answer a row: a class, several labels, or numbers; the worst-predicted rows."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image

from gipi.deploy.known import WORST, Case, Evidence, Known, Rows, shortened

if TYPE_CHECKING:
    from torch import Tensor

    from gipi.core.schema import Schema
    from gipi.train.evaluate import Evaluation

BINS = 15
POINTS = 1500
THUMBNAIL = 96


def judge(case: Case) -> Known:
    """Return what is known of one answer a row; nothing of an answer of another kind."""
    judged, task, schema = case.judged, case.task, case.schema
    assert judged.outputs is not None
    assert judged.target is not None
    said = task.decode(judged.outputs, schema)
    answers = _answers(judged, said, task.units(judged.outputs, judged.target, schema)[1])
    arrays: dict[str, np.ndarray] = {}
    if "labels" in said:
        facts, losses = _labelled(answers, schema.classes)
    elif "probabilities" in said:
        facts, arrays, losses = _classified(answers, schema.classes)
    elif "value" in said:
        facts, arrays, losses = _regressed(answers, samples=case.samples)
    else:
        return Known()
    if case.shown is None:
        return Known(facts, arrays)
    worst, files = _worst(answers, losses, schema, case.shown)
    return Known({**facts, "worst": worst}, arrays, files)


@dataclass(frozen=True)
class _Answers:
    """One entry a row: what was said, what is true (in the data's units), weights and row ids."""

    said: dict[str, np.ndarray]
    truth: np.ndarray
    weight: np.ndarray
    ids: np.ndarray


def _answers(judged: Evaluation, said: dict[str, np.ndarray], target: Tensor) -> _Answers:
    truth = target.double().numpy() if target.is_floating_point() else target.numpy()
    weight = np.ones(len(truth)) if judged.weight is None else judged.weight.double().numpy()
    ids = np.arange(len(truth)) if judged.ids is None else judged.ids.numpy()
    return _Answers(said, truth, weight, ids)


# ---------------------------------------------------------------------------- classification


def _classified(
    answers: _Answers, classes: tuple[str, ...]
) -> tuple[dict[str, Any], dict[str, np.ndarray], np.ndarray]:
    """Return (facts of the summary, arrays, loss of each row)."""
    said, truth = answers.said, answers.truth
    p, best = said["probabilities"], said["index"]
    names = list(classes) or [str(i) for i in range(p.shape[1])]
    confusion = confusion_matrix(truth, best, len(names), answers.weight)
    support = confusion.sum(1)
    facts: dict[str, Any] = {
        "classes": names,
        "per_class": _per_class(confusion, names),
        "calibration": calibration(said["probability"], best == truth, answers.weight),
    }
    if support.sum() > 0:
        common = int(support.argmax())
        facts["baseline"] = {
            "metric": "accuracy",
            "value": float(support[common] / support.sum()),
            "rule": f"always answering '{names[common]}', the most frequent class",
        }
    losses = -np.log(np.clip(p[np.arange(len(p)), truth], 1e-300, None))
    return facts, {"confusion": confusion}, losses


def confusion_matrix(
    truth: np.ndarray, predicted: np.ndarray, classes: int, weight: np.ndarray | None = None
) -> np.ndarray:
    """Return (K, K) float64: the weight of rows of class `row` that were called `column`."""
    cells = truth.astype(np.int64) * classes + predicted.astype(np.int64)
    counts = np.bincount(cells, weight, minlength=classes * classes)
    return counts.astype(np.float64).reshape(classes, classes)


def _per_class(confusion: np.ndarray, names: list[str]) -> list[dict[str, Any]]:
    hits, support, called = confusion.diagonal(), confusion.sum(1), confusion.sum(0)
    out = []
    for k, name in enumerate(names):
        precision = float(hits[k] / called[k]) if called[k] else None
        recall = float(hits[k] / support[k]) if support[k] else None
        both = support[k] + called[k]
        out.append(
            {
                "class": name,
                "rows": float(support[k]),
                "precision": precision,
                "recall": recall,
                "f1": float(2 * hits[k] / both) if both else None,
            }
        )
    return out


def calibration(
    confidence: np.ndarray, correct: np.ndarray, weight: np.ndarray | None = None
) -> dict[str, Any]:
    """Return the reliability diagram over `BINS` equal bins, and the expected calibration error.

    ECE = Σ_b (n_b / n) · |accuracy_b - confidence_b| (Guo et al. 2017).
    """
    w = np.ones(len(confidence)) if weight is None else weight
    which = np.clip((confidence * BINS).astype(np.int64), 0, BINS - 1)
    rows = np.bincount(which, w, minlength=BINS)
    mean = np.bincount(which, w * confidence, minlength=BINS)
    right = np.bincount(which, w * correct, minlength=BINS)
    bins = [
        {
            "low": b / BINS,
            "high": (b + 1) / BINS,
            "rows": float(rows[b]),
            "confidence": float(mean[b] / rows[b]),
            "accuracy": float(right[b] / rows[b]),
        }
        for b in range(BINS)
        if rows[b] > 0
    ]
    total = rows.sum()
    ece = float(np.abs(right - mean).sum() / total) if total else math.nan
    return {"kind": "confidence", "ece": ece, "bins": bins}


def _labelled(answers: _Answers, classes: tuple[str, ...]) -> tuple[dict[str, Any], np.ndarray]:
    """Return (facts of the summary, loss of each row) where a row may have several labels."""
    p, truth = answers.said["probabilities"], answers.truth > 0.5
    w, said = answers.weight[:, None], p > 0.5
    hits, support, called = ((x * w).sum(0) for x in (said & truth, truth, said))
    table = [
        {
            "class": name, "rows": float(support[k]),
            "precision": float(hits[k] / called[k]) if called[k] else None,
            "recall": float(hits[k] / support[k]) if support[k] else None,
            "f1": float(2 * hits[k] / (support[k] + called[k])) if support[k] + called[k] else None,
        }
        for k, name in enumerate(classes)
    ]  # fmt: skip
    chance = np.where(truth, p, 1 - p)
    losses = -np.log(np.clip(chance, 1e-300, None)).mean(1)
    return {"classes": list(classes), "per_class": table}, losses


# ---------------------------------------------------------------------------- regression


def _regressed(
    answers: _Answers, *, samples: bool
) -> tuple[dict[str, Any], dict[str, np.ndarray], np.ndarray]:
    """Return (facts of the summary, arrays, absolute error of each row)."""
    rows = len(answers.truth)
    value = answers.said["value"].reshape(rows, -1).astype(np.float64)
    truth = answers.truth.reshape(rows, -1).astype(np.float64)
    residual = truth - value
    finite = residual[np.isfinite(residual)]
    facts: dict[str, Any] = {}
    arrays: dict[str, np.ndarray] = {}
    if len(finite):
        span = max(float(np.abs(np.percentile(finite, [0.5, 99.5])).max()), 1e-12)
        counts, edges = np.histogram(np.clip(finite, -span, span), 41, (-span, span))
        arrays |= {"residual_counts": counts, "residual_edges": edges}
        facts["residuals"] = {
            "mean": float(finite.mean()),
            "std": float(finite.std()),
            "quantiles": {q: float(np.percentile(finite, float(q))) for q in ("5", "50", "95")},
        }
    if answers.weight.sum() > 0:
        spread = (truth - np.average(truth, axis=0, weights=answers.weight)) ** 2
        facts["baseline"] = {
            "metric": "rmse",
            "value": float(np.sqrt(np.average(spread.mean(1), weights=answers.weight))),
            "rule": "always answering the mean of these rows",
        }
    if samples:
        pick = np.linspace(0, rows - 1, min(POINTS, rows)).astype(np.int64)
        arrays |= {"truth": truth[pick], "value": value[pick]}
    if "std" in answers.said:
        std = answers.said["std"].reshape(rows, -1).astype(np.float64)
        facts["calibration"] = coverage(residual, std)
    return facts, arrays, np.asarray(np.abs(residual).mean(1))


def coverage(residual: np.ndarray, std: np.ndarray) -> dict[str, Any]:
    """Return how many rows fall inside the central intervals that the model promised.

    A model that knows its own spread has `observed` = `promised` at every level (Kuleshov,
    Fenner and Ermon 2018).
    """
    z = np.abs(residual) / np.clip(std, 1e-300, None)
    share = torch.erf(torch.from_numpy(z / math.sqrt(2))).numpy()
    levels = [i / 10 for i in range(1, 10)] + [0.95]
    return {
        "kind": "coverage",
        "bins": [{"promised": q, "observed": float((share <= q).mean())} for q in levels],
    }


# ---------------------------------------------------------------------------- worst rows


def _worst(
    answers: _Answers, losses: np.ndarray, schema: Schema, rows: Rows
) -> tuple[list[dict[str, Any]], dict[str, bytes]]:
    """Return the rows with the largest loss, non-finite ones first, and their pictures as files."""
    said, truth, ids = answers.said, answers.truth, answers.ids
    files: dict[str, bytes] = {}
    order = np.argsort(-np.nan_to_num(losses, nan=np.inf), kind="stable")[:WORST]
    names, raw = rows.row_names(ids[order]), rows.raw(ids[order])
    image = next((f for f in schema.inputs if f.kind == "image"), None)
    texts = [f.name for f in schema.inputs if f.kind == "text"]
    hidden = {f.name for f in schema.fields if f.kind == "image" or f.name in texts}
    out = []
    for place, i in enumerate(order.tolist()):
        row: dict[str, Any] = {
            "id": int(ids[i]),
            "name": str(names[place]),
            "loss": float(losses[i]),
        }
        if "labels" in said:
            there = [schema.classes[k] for k in np.flatnonzero(truth[i] > 0.5)]
            row["target"] = ", ".join(there) or "none"
            row["prediction"] = ", ".join(said["labels"][i]) or "none"
        elif "probabilities" in said:
            row["target"] = schema.classes[int(truth[i])] if schema.classes else int(truth[i])
            row["prediction"] = str(said["label"][i])
            row["probability"] = float(said["probability"][i])
            row["target_probability"] = float(said["probabilities"][i, int(truth[i])])
        else:
            row["target"] = _numbers(truth[i])
            row["prediction"] = _numbers(said["value"][i])
            if "std" in said:
                row["std"] = _numbers(said["std"][i])
        if image is not None:
            row["picture"] = f"worst-{place:02d}.png"
            files[row["picture"]] = thumbnail(rows.picture(int(ids[i])))
        if texts:
            row["texts"] = [shortened(raw[place].get(name)) for name in texts]
        values = {k: _text(v) for k, v in raw[place].items() if k not in hidden}
        row["values"] = {} if image is not None else values
        out.append(row)
    return out, files


def thumbnail(picture: np.ndarray) -> bytes:
    """Return a picture (H, W), (H, W, 1|3|4) uint8 as PNG, its longer side about `THUMBNAIL`.

    Small pictures are enlarged by a whole factor, so that every pixel stays a sharp square.
    """
    array = np.asarray(picture, dtype=np.uint8)
    if array.ndim == 3 and array.shape[2] in (1, 2):
        array = array[:, :, 0]
    image = Image.fromarray(array)
    longest = max(image.size)
    if longest * 2 <= THUMBNAIL:
        factor = THUMBNAIL // longest
        size = (image.width * factor, image.height * factor)
        image = image.resize(size, Image.Resampling.NEAREST)
    elif longest > THUMBNAIL:
        image.thumbnail((THUMBNAIL, THUMBNAIL))
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _numbers(value: Any) -> Any:
    array = np.asarray(value, dtype=np.float64).reshape(-1)
    return float(array[0]) if len(array) == 1 else array.tolist()


def _text(value: Any) -> Any:
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, np.generic) and value.dtype.kind in "biuf":
        return value.item()
    return str(value)[:200]


EVIDENCE = Evidence("one answer a row", lambda case: case.complete, judge)
