"""Fuzzed detections and truths, and a slow average precision in float64."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

THRESHOLDS = np.round(np.arange(0.5, 0.96, 0.05), 2)


class DetectionSet(NamedTuple):
    """What a detector said about some pictures, and what is there."""

    boxes: list[np.ndarray]
    scores: list[np.ndarray]
    labels: list[np.ndarray]
    target: np.ndarray
    classes: int


def detection_set(seed: int) -> DetectionSet:
    """Pictures without boxes or without answers, classes without either, crowds, ties, doubles."""
    draw = np.random.default_rng(seed)
    pictures, classes, most = int(draw.integers(1, 9)), int(draw.integers(1, 5)), 8
    target = np.full((pictures, most, 6), 0.0)
    target[..., 4] = -1
    boxes, scores, labels = [], [], []
    silent = int(draw.integers(classes + 1))  # no box of this class; `classes` means none
    for i in range(pictures):
        n = int(draw.integers(0, most + 1)) * bool(draw.random() > 0.15)
        start = draw.uniform(0, 60, (n, 2))
        whole = np.concatenate([start, start + draw.uniform(2, 40, (n, 2))], 1)
        kinds = draw.integers(0, classes, n)
        kinds[kinds == silent] = (silent + 1) % classes
        target[i, :n, :4], target[i, :n, 4] = whole.round(seed % 3), kinds
        target[i, :n, 5] = draw.random(n) < 0.15
        found = [whole + draw.normal(0, draw.uniform(0, 6), (n, 4)) for _ in range(2)]
        start = draw.uniform(0, 60, (int(draw.integers(0, 6)), 2))
        found.append(np.concatenate([start, start + draw.uniform(2, 40, start.shape)], 1))
        boxes_i = np.concatenate(found)
        boxes_i[:, 2:] = np.maximum(boxes_i[:, 2:], boxes_i[:, :2])
        labels_i = np.concatenate([kinds, kinds, draw.integers(0, classes, len(start))])
        wrong = draw.random(len(labels_i)) < 0.1
        labels_i[wrong] = draw.integers(0, classes, int(wrong.sum()))
        keep = draw.random(len(labels_i)) < draw.uniform(0.3, 1)
        if draw.random() < 0.1:
            keep[:] = False
        scores_i = 0.6 * draw.random(len(labels_i))
        scores_i[: len(kinds)] += 0.4 * draw.random()
        if seed % 4 == 0:
            scores_i = scores_i.round(1)  # ties
        boxes.append(boxes_i[keep].round(seed % 3).astype(np.float32))
        scores.append(scores_i[keep].astype(np.float32))
        labels.append(labels_i[keep].astype(np.int64))
    return DetectionSet(boxes, scores, labels, target.astype(np.float32), classes)


def padded(found: DetectionSet, most: int = 100) -> np.ndarray:
    """Return the detections as (n, most, 6), class -1 where there is none."""
    out = np.zeros((len(found.boxes), most, 6), dtype=np.float32)
    out[..., 5] = -1
    for i, (box, score, label) in enumerate(
        zip(found.boxes, found.scores, found.labels, strict=True)
    ):
        out[i, : len(box), :4], out[i, : len(box), 4] = box, score
        out[i, : len(box), 5] = label
    return out


def overlap(a: np.ndarray, b: np.ndarray, *, crowd: bool) -> float:
    """IoU of two boxes, of a crowd the share of the first that lies in it."""
    w = min(a[2], b[2]) - max(a[0], b[0])
    h = min(a[3], b[3]) - max(a[1], b[1])
    if w <= 0 or h <= 0:
        return 0.0
    areas = [(c[2] - c[0]) * (c[3] - c[1]) for c in (a, b)]
    return w * h / (areas[0] if crowd else areas[0] + areas[1] - w * h)


def slow_ap(found: DetectionSet) -> np.ndarray:
    """Return (T, K) average precision; NaN for a class without boxes. One pair at a time."""
    values = np.full((len(THRESHOLDS), found.classes), np.nan)
    for k in range(found.classes):
        truth = [[row.astype(np.float64) for row in t if row[4] == k] for t in found.target]
        boxes = sum(row[5] == 0 for rows in truth for row in rows)
        if boxes == 0:
            continue
        for t, threshold in enumerate(THRESHOLDS):
            judged = []  # (score, hit), in the order of the pictures
            for i, rows in enumerate(truth):
                mine = [
                    (float(s), b.astype(np.float64))
                    for b, s, label in zip(
                        found.boxes[i], found.scores[i], found.labels[i], strict=True
                    )
                    if label == k
                ]
                taken = set()
                for score, box in sorted(mine, key=lambda pair: -pair[0]):
                    best, which = threshold, None
                    for j, row in enumerate(rows):
                        if row[5] == 0 and j not in taken:
                            value = overlap(box, row, crowd=False)
                            if value >= best:
                                best, which = value, j
                    if which is not None:
                        taken.add(which)
                        judged.append((score, True))
                    elif not any(
                        row[5] and overlap(box, row, crowd=True) >= threshold for row in rows
                    ):
                        judged.append((score, False))
            judged.sort(key=lambda pair: -pair[0])
            hits = np.cumsum([hit for _, hit in judged])
            recall = hits / boxes
            precision = hits / np.arange(1, len(judged) + 1)
            values[t, k] = np.mean([
                max(precision[recall >= r], default=0.0) for r in np.linspace(0, 1, 101)
            ])  # fmt: skip
    return values
