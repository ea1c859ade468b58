"""Metrics of masks against scikit-learn's confusion matrix and hand formulas."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, jaccard_score

from gipi import metrics
from gipi.core.errors import ModelError
from gipi.metrics.masks import class_dice, class_iou, confusion


def fuzz(seed):
    rng = np.random.default_rng(seed)
    rows, classes = int(rng.integers(1, 6)), int(rng.integers(2, 7))
    size = tuple(rng.integers(1, 9, 2))
    truth = rng.integers(0, classes, (rows, *size)).astype(np.uint8)
    truth[rng.random(truth.shape) < 0.2] = 255
    truth.flat[0] = 0
    guess = rng.integers(0, max(1, classes - 1), truth.shape)
    return torch.from_numpy(guess), torch.from_numpy(truth), classes


def score(name, classes, batches):
    metric = metrics.build(name, classes=classes)
    state = metric.init("cpu")
    for guess, truth, weight in batches:
        metric.update(state, guess, truth, weight)
    return metric.compute(state)


@pytest.mark.parametrize("seed", range(25))
def test_scores_are_scikit_learns_and_batches_do_not_matter(seed):
    guess, truth, classes = fuzz(seed)
    known = truth != 255
    g, t = guess[known].numpy(), truth[known].numpy()
    labels = sorted(set(g) | set(t))  # classes that neither has stay out of the mean
    wanted = {
        "mean_iou": jaccard_score(t, g, labels=labels, average="macro", zero_division=0),
        "dice": f1_score(t, g, labels=labels, average="macro", zero_division=0),
        "pixel_accuracy": accuracy_score(t, g),
    }
    matrix = confusion(guess, truth, classes=classes)
    np.testing.assert_array_equal(matrix.numpy(), confusion_matrix(t, g, labels=range(classes)))
    logits = torch.nn.functional.one_hot(guess, classes).permute(0, 3, 1, 2).float()
    for name, value in wanted.items():
        assert score(name, classes, [(guess, truth, None)]) == pytest.approx(value)
        parts = [(logits[i : i + 1], truth[i : i + 1], None) for i in range(len(truth))]
        assert score(name, classes, parts) == pytest.approx(value)


@pytest.mark.parametrize("name", ["mean_iou", "dice", "pixel_accuracy"])
def test_weight_two_is_a_row_twice_and_weight_zero_none(name):
    guess, truth, classes = fuzz(101)
    guess, truth = torch.cat([guess, guess.flip(1)]), torch.cat([truth, truth])
    n = len(truth)
    weight = torch.ones(n)
    weight[0], weight[-1] = 2, 0
    index = torch.tensor([0, *range(n - 1)])
    repeated = score(name, classes, [(guess[index], truth[index], None)])
    assert score(name, classes, [(guess, truth, weight)]) == pytest.approx(repeated)


def test_it_is_one_matrix_and_no_mean_of_pictures():
    truth = torch.tensor([[[0, 0, 0, 0]], [[0, 1, 1, 1]]])
    guess = torch.tensor([[[0, 0, 0, 1]], [[1, 1, 1, 1]]])
    # class 0: 3 of 5; class 1: 3 of 5. Picture by picture it would be (3/4 + 0 + 0 + 3/4) / 4.
    assert score("mean_iou", 2, [(guess, truth, None)]) == pytest.approx(0.6)


def test_absent_classes_and_nothing_at_all():
    matrix = torch.tensor([[3.0, 1.0, 0.0], [0.0, 2.0, 0.0], [0.0, 0.0, 0.0]])
    assert class_iou(matrix)[:2].tolist() == pytest.approx([0.75, 2 / 3])
    assert class_dice(matrix)[:2].tolist() == pytest.approx([6 / 7, 0.8])
    assert math.isnan(class_iou(matrix)[2])
    ignored = torch.full((1, 2, 2), 255)
    assert math.isnan(score("mean_iou", 3, [(torch.zeros(1, 2, 2), ignored, None)]))


def test_other_forms_are_named():
    with pytest.raises(ModelError, match="same height"):
        score("mean_iou", 2, [(torch.zeros(1, 2, 3), torch.zeros(1, 2, 2), None)])
    with pytest.raises(ModelError, match="3 maps of logits for 2 classes"):
        score("mean_iou", 2, [(torch.zeros(1, 3, 2, 2), torch.zeros(1, 2, 2), None)])
