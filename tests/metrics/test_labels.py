"""Metrics of several labels a row against scikit-learn."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, average_precision_score, f1_score

from gipi import metrics


def fuzz(seed):
    rng = np.random.default_rng(seed)
    rows, classes = int(rng.integers(5, 60)), int(rng.integers(2, 6))
    truth = (rng.random((rows, classes)) < 0.4).astype(np.float32)
    truth[0], truth[1] = 1, 0
    logits = (2 * truth - 1 + rng.normal(0, 2, truth.shape)).astype(np.float32)
    return logits, truth, rng.random(rows)


def score(name, logits, truth, weight=None, *, pieces=1):
    metric = metrics.build(name, classes=truth.shape[1])
    state = metric.init("cpu")
    for index in np.array_split(np.arange(len(truth)), pieces):
        w = None if weight is None else torch.from_numpy(weight[index])
        metric.update(state, torch.from_numpy(logits[index]), torch.from_numpy(truth[index]), w)
    return metric.compute(state)


@pytest.mark.parametrize("seed", range(15))
@pytest.mark.parametrize("weighted", [False, True])
def test_scores_are_scikit_learns(seed, weighted):
    logits, truth, weight = fuzz(seed)
    w = weight if weighted else None
    guess = (logits > 0).astype(int)
    seen = np.flatnonzero(truth.sum(0) + guess.sum(0))
    wanted = {
        "label_f1_micro": f1_score(truth[:, seen], guess[:, seen], average="micro",
                                   sample_weight=w),
        "label_f1_macro": np.mean([f1_score(truth[:, k], guess[:, k], sample_weight=w)
                                   for k in seen]),
        "exact_match": accuracy_score(truth, guess, sample_weight=w),
    }  # fmt: skip
    for name, value in wanted.items():
        assert score(name, logits, truth, w) == pytest.approx(value)
        assert score(name, logits, truth, w, pieces=3) == pytest.approx(value)
    # On logits that the bins hold exactly: powers of two.
    coarse = np.sign(logits) * 2.0 ** np.ceil(np.log2(np.abs(logits)))
    each = [average_precision_score(truth[:, k], coarse[:, k], sample_weight=w)
            for k in range(truth.shape[1])]  # fmt: skip
    found = score("label_map", coarse.astype(np.float32), truth, w)
    assert found == pytest.approx(np.mean(each))


def test_labels_that_no_row_has_stay_out():
    logits = np.array([[1.0, -1.0], [-1.0, -1.0]], dtype=np.float32)
    truth = np.array([[1.0, 0.0], [0.0, 0.0]], dtype=np.float32)
    assert score("label_map", logits, truth) == 1
    assert score("label_f1_macro", logits, truth) == 1
    assert math.isnan(score("label_f1_micro", -np.ones((2, 2), np.float32), np.zeros((2, 2))))
