"""Exact COCO average precision, from the package faster-coco-eval or pycocotools."""

from __future__ import annotations

import contextlib
import io
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from gipi.core.errors import missing_extra

if TYPE_CHECKING:
    from collections.abc import Sequence

SCORES = (
    "ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large",
    "ar1", "ar10", "ar100", "ar_small", "ar_medium", "ar_large",
)  # fmt: skip
"""The twelve numbers of COCO, in its order."""


@dataclass(frozen=True)
class CocoScores:
    """Scores in [0, 1]; NaN where no box falls under one.

    scores     the twelve of `SCORES`: ap is the mean over IoU 0.50:0.05:0.95, ap50 at IoU 0.5
    per_class  (K,) ap, and (K,) ap50, of each class
    """

    scores: dict[str, float]
    per_class: np.ndarray
    per_class50: np.ndarray


def coco_scores(
    boxes: Sequence[np.ndarray],
    scores: Sequence[np.ndarray],
    labels: Sequence[np.ndarray],
    *,
    target: np.ndarray,
    classes: int,
) -> CocoScores:
    """Return the COCO scores of detections, at most 100 a class and picture.

    boxes    for each picture (k, 4) x0, y0, x1, y1
    scores   for each picture (k,); labels: (k,) class indices
    target   (n, M, 6) x0, y0, x1, y1, class, crowd; class -1 in unused rows

    Small, medium and large are measured in the pixels that the boxes are in; everything else is the
    same in any scale. Lin et al. 2014, "Microsoft COCO", arXiv:1405.0312.

    Raises `MissingExtra` where neither package is installed.
    """
    base, evaluator = _engine()
    real = target[..., 4] >= 0
    truth = [
        _annotation(i, row[:4], int(row[4]), crowd=int(row[5] != 0))
        for i in range(len(target))
        for row in target[i][real[i]].astype(np.float64)
    ]
    found = [
        {**_annotation(i, box, int(label)), "score": float(score)}
        for i in range(len(target))
        for box, score, label in zip(
            np.asarray(boxes[i], dtype=np.float64).reshape(-1, 4), scores[i], labels[i], strict=True
        )
    ]
    with contextlib.redirect_stdout(io.StringIO()):  # both packages print
        judge = evaluator(
            _index(base(), truth, len(target), classes),
            _index(base(), found, len(target), classes),
            "bbox",
        )
        judge.params.imgIds = list(range(1, len(target) + 1))
        judge.params.catIds = list(range(1, classes + 1))
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    precision = np.asarray(judge.eval["precision"])[:, :, :, 0, -1]  # (T, R, K), all sizes, 100
    precision = precision.reshape(-1, 101, classes)
    return CocoScores(
        {name: _number(v) for name, v in zip(SCORES, judge.stats, strict=False)},
        _means(precision),
        _means(precision[:1]),
    )


def _engine() -> tuple[Any, Any]:
    """Return the classes COCO and COCOeval of the package that is installed."""
    try:
        from faster_coco_eval import COCO, COCOeval_faster
    except ImportError:
        try:
            from pycocotools.coco import COCO
            from pycocotools.cocoeval import COCOeval
        except ImportError:
            raise missing_extra("faster-coco-eval", "detect", "the exact COCO score") from None
        return COCO, COCOeval
    return COCO, COCOeval_faster


def _annotation(picture: int, box: np.ndarray, label: int, *, crowd: int = 0) -> dict[str, Any]:
    x0, y0, x1, y1 = map(float, box)
    w, h = max(x1 - x0, 0.0), max(y1 - y0, 0.0)
    return {
        "image_id": picture + 1, "category_id": label + 1, "bbox": [x0, y0, w, h],
        "area": w * h, "iscrowd": crowd, "ignore": crowd,
    }  # fmt: skip


def _index(holder: Any, annotations: list[dict[str, Any]], pictures: int, classes: int) -> Any:
    """Fill a COCO object; ids begin at 1, since 0 means "no match" to both packages."""
    for number, annotation in enumerate(annotations, 1):
        annotation["id"] = number
    holder.dataset = {
        "info": {},
        "images": [{"id": i + 1} for i in range(pictures)],
        "categories": [{"id": k + 1, "name": str(k)} for k in range(classes)],
        "annotations": annotations,
    }
    holder.createIndex()
    return holder


def _number(value: float) -> float:
    return float(value) if value > -1 else math.nan


def _means(precision: np.ndarray) -> np.ndarray:
    """Mean over thresholds and recalls, (K,); -1 stands for a class without boxes."""
    means = precision.mean((0, 1))
    return np.where((precision < 0).all((0, 1)), math.nan, means)
