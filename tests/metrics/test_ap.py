"""Average precision in a state of fixed size, against the exact one."""

from __future__ import annotations

import importlib

import numpy as np
import pytest
import torch
from tests.metrics.detection_sets import detection_set, padded, slow_ap

from gipi import metrics
from gipi.metrics.ap import matches


def score(name, found, weight=None, pieces=1):
    metric = metrics.build(name, classes=found.classes)
    state = metric.init("cpu")
    said, truth = torch.from_numpy(padded(found)), torch.from_numpy(found.target)
    for part in torch.arange(len(said)).chunk(pieces):
        metric.update(state, said[part], truth[part], None if weight is None else weight[part])
    return metric.compute(state)


def test_it_is_the_exact_one_within_half_a_point():
    gaps = []
    for seed in range(240):
        if seed % 4 == 0:
            continue  # ties: there the exact value is one of many, by the order of the pictures
        found = detection_set(seed)
        exact = slow_ap(found)
        if np.isnan(exact).all():
            assert np.isnan(score("ap", found))
            continue
        gaps.append([score("ap50", found) - np.nanmean(exact[0]),
                     score("ap", found) - np.nanmean(exact)])  # fmt: skip
    assert len(gaps) > 140
    assert np.abs(gaps).max() < 0.005


def test_truth_said_again_is_one_and_silence_is_zero():
    found = next(s for s in map(detection_set, range(99)) if (s.target[..., 4] >= 0).sum() > 9)
    real = (found.target[..., 4] >= 0) & (found.target[..., 5] == 0)
    boxes = [t[r][:, :4] for t, r in zip(found.target, real, strict=True)]
    labels = [t[r][:, 4].astype(int) for t, r in zip(found.target, real, strict=True)]
    scores = [np.linspace(0.9, 0.5, len(b), dtype=np.float32) for b in boxes]
    perfect = found._replace(boxes=boxes, labels=labels, scores=scores)
    assert score("ap", perfect) == pytest.approx(1)
    silent = found._replace(boxes=[b[:0] for b in boxes], labels=[x[:0] for x in labels],
                            scores=[s[:0] for s in scores])  # fmt: skip
    assert score("ap", silent) == 0
    assert score("ap50", silent) == 0


def test_pieces_ranks_and_weights_add_up():
    found = next(s for s in map(detection_set, range(20, 99)) if len(s.boxes) > 6)
    n = len(found.boxes)
    whole = score("ap", found)
    assert score("ap", found, pieces=3) == pytest.approx(whole)
    twice = found._replace(boxes=found.boxes + found.boxes[2:6],
                           scores=found.scores + found.scores[2:6],
                           labels=found.labels + found.labels[2:6],
                           target=np.concatenate([found.target, found.target[2:6]]))  # fmt: skip
    weight = torch.ones(n)
    weight[2:6] = 2
    assert score("ap", found, weight) == pytest.approx(score("ap", twice))
    assert score("ap", found, weight) != pytest.approx(whole)


def test_a_hand_made_case():
    """Two boxes; a hit at 0.9, a miss at 0.8, a hit at 0.7: precision 1 to 0.5, then 2/3."""
    target = torch.zeros(1, 2, 6)
    target[0, :, :4] = torch.tensor([[0.0, 0, 10, 10], [20.0, 0, 30, 10]])
    said = torch.zeros(1, 4, 6)
    said[0, 0] = torch.tensor([0.0, 0, 10, 10, 0.9, 0])
    said[0, 1] = torch.tensor([0.0, 0, 10, 10, 0.8, 0])  # the box is taken already
    said[0, 2] = torch.tensor([20.0, 0, 30, 10, 0.7, 0])
    said[0, 3, 5] = -1
    metric = metrics.build("ap50", classes=1)
    state = metric.init("cpu")
    metric.update(state, said, target, None)
    assert metric.compute(state) == pytest.approx((51 + 50 * 2 / 3) / 101)


def test_the_state_keeps_its_size_and_nothing_seen_is_nan():
    metric = metrics.build("ap", classes=3)
    state = metric.init("cpu")
    assert np.isnan(metric.compute(state))
    before = {k: (v.shape, v.data_ptr()) for k, v in state.items()}
    found = detection_set(3)
    metric.update(state, torch.from_numpy(padded(found)).clamp_max(2),
                  torch.from_numpy(found.target).clamp_max(2), None)  # fmt: skip
    assert {k: (v.shape, v.data_ptr()) for k, v in state.items()} == before
    metric.update(state, torch.zeros(2, 0, 6), torch.zeros(2, 0, 6), None)


def test_the_matching_of_the_last_pair_is_not_done_again(monkeypatch):
    ap_file = importlib.import_module("gipi.metrics.ap")
    calls = []
    work = ap_file._match
    monkeypatch.setattr(ap_file, "_match", lambda *a: calls.append(1) or work(*a))
    found = detection_set(5)
    said, truth = torch.from_numpy(padded(found)), torch.from_numpy(found.target)
    for name in ("ap50", "ap", "ap"):
        metric = metrics.build(name, classes=found.classes)
        metric.update(metric.init("cpu"), said, truth, None)
    assert calls == [1]
    metric.update(metric.init("cpu"), said.clone(), truth, None)
    assert calls == [1, 1]


def test_what_is_remembered_is_of_this_tensor_as_it_is_now():
    target = torch.zeros(1, 1, 6)
    target[0, 0, :4] = torch.tensor([0.0, 0, 10, 10])
    said = target.clone()
    said[..., 4], said[..., 5] = 0.9, 0
    metric = metrics.build("ap50", classes=1)

    def ask(outputs, truth):
        state = metric.init("cpu")
        metric.update(state, outputs, truth, None)
        return metric.compute(state)

    assert ask(said, target) == 1
    first = matches(said, target)
    assert matches(said, target) is first
    said[..., :4] += 50  # in place: the object is the same
    assert ask(said, target) == 0
    target[..., :4] += 50
    assert ask(said, target) == 1
    with torch.inference_mode():
        assert ask(said.clone(), target.clone()) == 1
