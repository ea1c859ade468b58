"""Metrics of forecasts, against their formulas written out in NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gipi import metrics
from gipi.core.errors import ModelError

G = torch.Generator().manual_seed(0)
TRUTH, GUESS = (torch.randn(9, 5, 3, generator=G) for _ in range(2))
W = torch.rand(9, generator=G)
FACTORS = (2.0, 0.5, 10.0)


def score(metric, out, target, weight=None):
    state = metric.init("cpu")
    half = len(out) // 2
    for rows in (slice(0, half), slice(half, None)):
        metric.update(state, out[rows], target[rows], None if weight is None else weight[rows])
    return metric.compute(state)


@pytest.mark.parametrize(("name", "option"), [("original_mae", "spread"), ("mase", "scale")])
@pytest.mark.parametrize("weight", [None, W])
def test_each_series_has_its_own_scale(name, option, weight):
    metric = metrics.build(name, options={option: FACTORS})
    error = np.abs((TRUTH - GUESS).double().numpy()) * np.array(FACTORS)
    expected = np.average(error.mean((1, 2)), weights=None if weight is None else weight.numpy())
    assert score(metric, GUESS, TRUTH, weight) == pytest.approx(expected, rel=1e-6)
    assert score(metric, TRUTH, TRUTH) == 0
    assert not metric.greater_is_better


def test_nothing_seen_is_nan_and_a_wrong_shape_is_named():
    metric = metrics.build("mase")
    assert np.isnan(metric.compute(metric.init("cpu")))
    with pytest.raises(ModelError, match="one forecast for each step"):
        score(metric, GUESS[:, :4], TRUTH)
