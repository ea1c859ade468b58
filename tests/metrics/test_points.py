"""Metrics of points against hand formulas."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from gipi import metrics
from gipi.core.errors import ModelError
from gipi.metrics.points import COCO_SIGMAS


def fuzz(seed, points=5):
    rng = np.random.default_rng(seed)
    rows = int(rng.integers(1, 7))
    truth = np.concatenate(
        [rng.random((rows, points, 2)) * 50, rng.integers(0, 3, (rows, points, 1))], axis=2
    )
    truth[0, :, 2] = 2
    truth[truth[..., 2] == 0, :2] = np.nan
    guess = np.nan_to_num(truth[..., :2]) + rng.normal(0, 4, (rows, points, 2))
    return guess, truth, rng.random(rows)


def slow(guess, truth, weight, reference, value, *, pooled):
    """Mean over rows of the mean over points, or the mean over all points."""
    above = below = 0.0
    for g, t, w in zip(guess, truth, weight, strict=True):
        seen = [k for k in range(len(t)) if t[k, 2] > 0]
        size = reference(t, seen)
        if not seen or not size:
            continue
        values = [value(math.hypot(*(g[k, :2] - t[k, :2])) / size, k) for k in seen]
        above += w * (sum(values) if pooled else sum(values) / len(values))
        below += w * (len(values) if pooled else 1)
    return above / below


def eyes(t, seen):
    return math.hypot(*(t[1, :2] - t[3, :2])) if 1 in seen and 3 in seen else 0.0


def box(t, seen):
    if len(seen) < 2:
        return 0.0
    xy = t[seen, :2]
    return math.sqrt(np.prod(xy.max(0) - xy.min(0)))


def score(name, guess, truth, weight, options, *, split=False):
    metric = metrics.build(name, classes=truth.shape[1], options=options)
    state = metric.init("cpu")
    g, t, w = (torch.from_numpy(a) for a in (guess, truth, weight))
    for i in range(len(g)) if split else [slice(None)]:
        s = slice(i, i + 1) if split else i
        metric.update(state, g[s], t[s], w[s])
    return metric.compute(state)


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize(
    ("options", "reference"),
    [({"points": (1, 3)}, eyes), ({"size": 40.0}, lambda t, seen: 40.0), ({}, box)],
    ids=["eyes", "size", "box"],
)
def test_scores_are_those_of_the_formulas(seed, options, reference):
    guess, truth, weight = fuzz(seed)
    wanted = slow(guess, truth, weight, reference, lambda d, k: d, pooled=False)
    assert score("nme", guess, truth, weight, options) == pytest.approx(wanted)
    assert score("nme", guess, truth, weight, options, split=True) == pytest.approx(wanted)
    wanted = slow(guess, truth, weight, reference, lambda d, k: d <= 0.2, pooled=True)
    found = score("pck", guess, truth, weight, {**options, "share": 0.2})
    assert found == pytest.approx(wanted)
    if "points" not in options:
        sigmas = [0.03, 0.05, 0.07, 0.09, 0.11]

        def similar(d, k):
            return math.exp(-(d**2) / (2 * (2 * sigmas[k]) ** 2))

        wanted = slow(guess, truth, weight, reference, similar, pooled=False)
        found = score("oks", guess, truth, weight, {**options, "sigmas": sigmas})
        assert found == pytest.approx(wanted)


def test_exact_points_are_perfect_and_confidences_do_not_disturb():
    _, truth, weight = fuzz(3)
    guess = np.concatenate([np.nan_to_num(truth[..., :2]), np.full((*truth.shape[:2], 1), 0.3)], 2)
    assert score("nme", guess, truth, weight, {}) == 0
    assert score("pck", guess, truth, weight, {}) == 1
    assert score("oks", guess, truth, weight, {}) == 1


def test_cocos_sigmas_are_taken_for_seventeen_points():
    guess, truth, weight = fuzz(5, points=17)
    named = score("oks", guess, truth, weight, {"sigmas": COCO_SIGMAS})
    assert score("oks", guess, truth, weight, {}) == named
    assert score("oks", guess, truth, weight, {"sigmas": [0.05] * 17}) != named


def test_rows_without_a_reference_do_not_count():
    truth = np.array([[[0.0, 0, 2], [10, 0, 2]], [[0, 0, 0], [5, 5, 2]], [[0, 0, 0], [1, 1, 0]]])
    guess = np.zeros((3, 2, 2))
    guess[0, 1, 0] = 8
    assert score("nme", guess, truth, np.ones(3), {"points": (0, 1)}) == pytest.approx(0.1)
    none = score("nme", guess[2:], truth[2:], np.ones(1), {"points": (0, 1)})
    assert math.isnan(none)


def test_other_forms_are_named():
    guess, truth, weight = fuzz(0)
    with pytest.raises(ModelError, match="model for pose"):
        score("nme", guess[:, :2], truth, weight, {})
    with pytest.raises(ModelError, match="one sigma a point"):
        score("oks", guess, truth, weight, {"sigmas": [0.1, 0.2]})
