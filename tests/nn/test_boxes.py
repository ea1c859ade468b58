"""Suppression against the slow greedy loop, box for box."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gipi.nn import boxes as suppression
from gipi.nn.boxes import nms, nms_batch

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


def greedy(boxes, scores, groups, threshold):
    """Take the best box left, drop what overlaps it; float32 like the boxes, one pair at a time."""
    order = sorted(range(len(scores)), key=lambda i: (-float(scores[i]), i))
    kept = []
    for i in order:
        for j in kept:
            if groups[i] != groups[j]:
                continue
            a, b = boxes[i], boxes[j]
            w = np.maximum(np.float32(0), min(a[2], b[2]) - max(a[0], b[0]))
            h = np.maximum(np.float32(0), min(a[3], b[3]) - max(a[1], b[1]))
            areas = [max(np.float32(0), c[2] - c[0]) * max(np.float32(0), c[3] - c[1])
                     for c in (a, b)]  # fmt: skip
            union = (areas[0] + areas[1]) - w * h
            if union > 0 and (w * h) / union > np.float32(threshold):
                break
        else:
            kept.append(i)
    return kept


def fuzz(seed):
    """Crowded boxes: whole numbers and equal scores (ties), empty and inverted boxes, groups."""
    draw = np.random.default_rng(seed)
    n = int(draw.integers(0, 60))
    start = draw.uniform(0, 30, (n, 2))
    size = draw.uniform(0, 20, (n, 2)) * (draw.random((n, 1)) > 0.1)
    if seed % 2:
        start, size = start.round(), size.round()
    boxes = np.concatenate([start, start + size], 1).astype(np.float32)
    if n and seed % 5 == 0:
        boxes[draw.integers(n)] = [9, 9, 3, 3]
    scores = draw.random(n).astype(np.float32)
    if seed % 3 == 0:
        scores = (scores * 4).round() / 4
    groups = draw.integers(0, 1 + seed % 4, n)
    return boxes, scores, groups, [0.0, 0.3, 0.5, 0.75, 1.0][seed % 5]


@pytest.mark.parametrize("block", [4, 512])
@pytest.mark.parametrize("device", DEVICES)
def test_the_slow_greedy_keeps_the_same_boxes_in_the_same_order(block, device, monkeypatch):
    monkeypatch.setattr(suppression, "BLOCK", block)
    for seed in range(150):
        boxes, scores, groups, threshold = fuzz(seed)
        found = nms(
            torch.from_numpy(boxes).to(device), torch.from_numpy(scores).to(device),
            groups=torch.from_numpy(groups).to(device), threshold=threshold,
        )  # fmt: skip
        assert found.tolist() == greedy(boxes, scores, groups, threshold), seed
        assert found.dtype == torch.int64


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("pairs", [1, 1 << 20])
def test_a_batch_is_its_pictures(device, pairs, monkeypatch):
    monkeypatch.setattr(suppression, "HOST_PAIRS", pairs)
    works = [fuzz(seed) for seed in range(0, 100, 5)]  # one threshold
    n = max(len(w[1]) for w in works)
    boxes, scores = torch.zeros(len(works), n, 4), torch.full((len(works), n), -torch.inf)
    groups = torch.zeros(len(works), n, dtype=torch.int64)
    for i, (b, s, g, _) in enumerate(works):
        boxes[i, : len(s)], scores[i, : len(s)] = torch.from_numpy(b), torch.from_numpy(s)
        groups[i, : len(s)] = torch.from_numpy(g)
    threshold = works[0][3]
    kept = nms_batch(boxes.to(device), scores.to(device), groups=groups.to(device),
                     threshold=threshold).cpu()  # fmt: skip
    for i, (b, s, g, _) in enumerate(works):
        assert kept[i].nonzero().flatten().tolist() == sorted(greedy(b, s, g, threshold))


def test_nothing_and_one():
    assert nms(torch.zeros(0, 4), torch.zeros(0)).tolist() == []
    assert nms(torch.tensor([[0.0, 0.0, 1.0, 1.0]]), torch.tensor([0.1])).tolist() == [0]
    assert nms_batch(torch.zeros(2, 0, 4), torch.zeros(2, 0)).shape == (2, 0)
    assert nms_batch(torch.zeros(0, 3, 4), torch.zeros(0, 3)).shape == (0, 3)


def test_ties_go_to_the_lower_index_and_the_threshold_itself_stays():
    boxes = torch.tensor([[0.0, 0.0, 4.0, 1.0]]).repeat(3, 1)
    assert nms(boxes, torch.tensor([0.5, 0.5, 0.5])).tolist() == [0]
    assert nms(boxes, torch.tensor([0.5, 0.7, 0.7])).tolist() == [1]
    half = torch.tensor([[0.0, 0.0, 4.0, 1.0], [0.0, 0.0, 2.0, 1.0]])  # IoU 1/2
    assert nms(half, torch.tensor([0.9, 0.8]), threshold=0.5).tolist() == [0, 1]
    assert nms(half, torch.tensor([0.9, 0.8]), threshold=0.499).tolist() == [0]


def test_a_dropped_box_drops_nobody():
    row = torch.tensor([[0.0, 0, 10, 1], [4.0, 0, 14, 1], [8.0, 0, 18, 1]])  # a chain of overlaps
    assert nms(row, torch.tensor([0.9, 0.8, 0.7]), threshold=0.3).tolist() == [0, 2]
    long = torch.stack([torch.tensor([4.0 * i, 0, 4.0 * i + 10, 1]) for i in range(600)])
    kept = nms(long, torch.linspace(1, 0, 600), threshold=0.3)
    assert kept.tolist() == list(range(0, 600, 2))


def test_empty_boxes_are_kept():
    empty = torch.tensor([[3.0, 3.0, 3.0, 3.0]]).repeat(2, 1)
    assert nms(empty, torch.tensor([0.2, 0.9])).tolist() == [1, 0]
