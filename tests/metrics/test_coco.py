"""The exact COCO scores: pycocotools' and those of our own slow calculation."""

from __future__ import annotations

import contextlib
import io
import sys

import numpy as np
import pytest
from tests.metrics.detection_sets import detection_set, slow_ap

from gipi.core.errors import MissingExtra
from gipi.metrics.coco import SCORES, coco_scores

pytest.importorskip("faster_coco_eval")


def theirs(found):
    """The twelve numbers, from files as the users of pycocotools make them."""
    tools = pytest.importorskip("pycocotools.coco")
    from pycocotools.cocoeval import COCOeval

    truth = tools.COCO()
    annotations = [
        {"id": 0, "image_id": 10 + i, "category_id": 7 + int(row[4]),
         "bbox": [float(row[0]), float(row[1]), float(row[2]) - float(row[0]),
                  float(row[3]) - float(row[1])],
         "area": (float(row[2]) - float(row[0])) * (float(row[3]) - float(row[1])),
         "iscrowd": int(row[5])}
        for i, rows in enumerate(found.target) for row in rows if row[4] >= 0
    ]  # fmt: skip
    for number, annotation in enumerate(annotations):
        annotation["id"] = number + 1
    truth.dataset = {
        "info": {}, "images": [{"id": 10 + i} for i in range(len(found.target))],
        "categories": [{"id": 7 + k} for k in range(found.classes)], "annotations": annotations,
    }  # fmt: skip
    truth.createIndex()
    answers = [
        {"image_id": 10 + i, "category_id": 7 + int(label), "score": float(score),
         "bbox": [float(b[0]), float(b[1]), float(b[2]) - float(b[0]), float(b[3]) - float(b[1])]}
        for i in range(len(found.boxes))
        for b, score, label in zip(found.boxes[i], found.scores[i], found.labels[i], strict=True)
    ]  # fmt: skip
    if not answers:
        return None
    judge = COCOeval(truth, truth.loadRes(answers), "bbox")
    judge.evaluate()
    judge.accumulate()
    judge.summarize()
    return judge.stats


@pytest.mark.parametrize("part", range(4))
def test_two_hundred_fuzzed_sets_score_as_pycocotools_scores_them(part):
    compared = 0
    for seed in range(50 * part, 50 * part + 50):
        found = detection_set(seed)
        ours = coco_scores(found.boxes, found.scores, found.labels,
                           target=found.target, classes=found.classes)  # fmt: skip
        with contextlib.redirect_stdout(io.StringIO()):
            expected = theirs(found)
        slow = slow_ap(found)
        if np.isfinite(slow).any():
            assert ours.scores["ap"] == pytest.approx(np.nanmean(slow), abs=1e-9)
            assert ours.scores["ap50"] == pytest.approx(np.nanmean(slow[0]), abs=1e-9)
        np.testing.assert_allclose(ours.per_class, slow.mean(0), atol=1e-9)
        np.testing.assert_allclose(ours.per_class50, slow[0], atol=1e-9)
        if expected is None:
            continue
        compared += 1
        expected = np.where(expected < 0, np.nan, expected)
        np.testing.assert_allclose([ours.scores[n] for n in SCORES], expected, atol=1e-9)
    assert compared > 40


def test_nothing_said_and_nothing_there():
    found = detection_set(1)
    none = [b[:0] for b in found.boxes]
    silent = coco_scores(none, [b[:, 0] for b in none], [b[:, 0] for b in none],
                         target=found.target, classes=found.classes)  # fmt: skip
    assert silent.scores["ap"] == 0
    empty = np.where(np.arange(6) == 4, -1.0, found.target)
    nothing = coco_scores(found.boxes, found.scores, found.labels, target=empty,
                          classes=found.classes)  # fmt: skip
    assert np.isnan(nothing.scores["ap"])
    assert np.isnan(nothing.per_class).all()


def test_without_the_package_the_extra_is_named(monkeypatch):
    for name in ("faster_coco_eval", "pycocotools", "pycocotools.coco"):
        monkeypatch.setitem(sys.modules, name, None)
    found = detection_set(1)
    with pytest.raises(MissingExtra, match=r"gipi\[detect\]"):
        coco_scores(found.boxes, found.scores, found.labels, target=found.target,
                    classes=found.classes)  # fmt: skip


def test_either_package_will_do(monkeypatch):
    pytest.importorskip("pycocotools.coco")
    found = detection_set(7)
    first = coco_scores(found.boxes, found.scores, found.labels, target=found.target,
                        classes=found.classes)  # fmt: skip
    monkeypatch.setitem(sys.modules, "faster_coco_eval", None)
    second = coco_scores(found.boxes, found.scores, found.labels, target=found.target,
                         classes=found.classes)  # fmt: skip
    assert first.scores == pytest.approx(second.scores, nan_ok=True)
    np.testing.assert_allclose(first.per_class, second.per_class)
