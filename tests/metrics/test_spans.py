"""Overlap of spans of tokens."""

from __future__ import annotations

import math

import torch

from gipi.metrics import build


def test_overlap_by_hand_windows_without_an_answer_count_nowhere() -> None:
    metric = build("span_f1")
    outputs = torch.tensor([[3.0, 4, 1], [5, 9, 1], [2, 2, -3], [1, 1, 0]])
    target = torch.tensor([[3, 4], [8, 9], [0, 0], [4, 6]])
    state = metric.init("cpu")
    metric.update(state, outputs, target, None)
    assert math.isclose(metric.compute(state), (1 + 2 * 2 / 7 + 0) / 3, rel_tol=1e-6)
    state = metric.init("cpu")
    metric.update(state, outputs, target, torch.tensor([2.0, 0, 1, 1]))
    assert math.isclose(metric.compute(state), 2 / 3)
    assert math.isnan(metric.compute(metric.init("cpu")))
