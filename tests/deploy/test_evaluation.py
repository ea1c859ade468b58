"""Scores and their intervals, against closed forms and against scikit-learn's counts."""

import math

import pytest
import torch

from gipi import metrics
from gipi.core.schema import Field, Schema
from gipi.deploy.evaluation import (
    bootstrap,
    effective_rows,
    primary_metric,
    score_interval,
    summary,
)  # fmt: skip
from gipi.metrics.shares import wilson
from gipi.tasks import classify, regress
from gipi.train.evaluate import Evaluation

CLASSES = Schema((Field("y", "category", "target", classes=("a", "b", "c")),))
NUMBER = Schema((Field("y", "number", "target", stats={"mean": 10.0, "std": 4.0}),))


def judged(outputs, target, weight=None):
    return Evaluation({"loss": 1.0}, len(outputs), 0.1, outputs, target, weight, None)


def test_row_weights_cost_certainty():
    assert effective_rows(None, 7) == 7
    assert effective_rows(torch.ones(7), 7) == pytest.approx(7)
    assert effective_rows(torch.tensor([1.0, 0.0, 0.0]), 3) == pytest.approx(1)
    assert effective_rows(torch.zeros(3), 3) == 0


def test_the_accuracy_and_its_interval():
    outputs = torch.eye(3).repeat(10, 1) * 5
    target = torch.arange(30) % 3
    target[:6] = (target[:6] + 1) % 3
    found = score_interval(judged(outputs, target), classify(), CLASSES)
    assert found.value == pytest.approx(0.8)
    assert (found.low, found.high) == pytest.approx(wilson(0.8, 30))
    assert found.method == "Wilson"


def test_a_weighted_accuracy_counts_the_weights():
    outputs, target = torch.eye(3) * 5, torch.tensor([0, 1, 0])
    weight = torch.tensor([1.0, 1.0, 2.0])
    found = score_interval(judged(outputs, target, weight), classify(), CLASSES)
    assert found.value == pytest.approx(0.5)
    assert (found.low, found.high) == pytest.approx(wilson(0.5, 16 / 6))


def test_the_bootstrap_of_an_error_matches_its_standard_error():
    gen = torch.Generator().manual_seed(0)
    residual = torch.randn(4000, generator=gen)
    rmse = metrics.build("rmse", classes=0)
    low, high = bootstrap(rmse, residual[:, None], torch.zeros(4000, 1), None)
    value = float((residual**2).mean().sqrt())
    spread = float((residual**2).std()) / math.sqrt(4000) / (2 * value)
    assert low < value < high
    assert (high - low) / 2 == pytest.approx(1.96 * spread, rel=0.15)


def test_the_bootstrap_is_repeatable_and_weighted_rows_count():
    gen = torch.Generator().manual_seed(0)
    outputs, target = torch.randn(50, 1, generator=gen), torch.zeros(50, 1)
    rmse = metrics.build("rmse", classes=0)
    assert bootstrap(rmse, outputs, target, None) == bootstrap(rmse, outputs, target, None)
    weight = torch.zeros(50)
    weight[:5] = 1.0
    low, high = bootstrap(rmse, outputs, target, weight)
    all_low, all_high = bootstrap(rmse, outputs, target, None)
    assert high - low > all_high - all_low


def test_a_regression_is_judged_in_its_own_units():
    outputs, target = torch.zeros(100, 1), torch.linspace(-1, 1, 100)
    found = score_interval(judged(outputs, target), regress(), NUMBER)
    expected = 4.0 * float((target**2).mean().sqrt())
    assert found.value == pytest.approx(expected, rel=1e-5)
    assert found.low < expected < found.high
    assert found.method == "bootstrap"


def test_without_targets_or_a_metric_there_is_no_interval():
    assert score_interval(judged(torch.eye(3), None), classify(), CLASSES) is None
    nothing = Evaluation({"loss": 1.0}, 3, 0.1)
    assert score_interval(nothing, classify(), CLASSES) is None


def test_the_summary_is_json_able():
    found = summary(judged(torch.eye(3), torch.arange(3)), classify(), CLASSES)
    assert found["rows"] == 3
    assert found["metrics"] == {"loss": 1.0}
    assert found["primary"]["name"] == "accuracy" == primary_metric(classify(), CLASSES).name
    assert found["primary"]["greater_is_better"] is True
