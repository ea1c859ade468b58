"""The task forecast: its loss, its units, its answers and its options."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from gipi import tasks
from gipi.core.batch import Batch
from gipi.core.errors import ConfigError
from gipi.data import DataOptions, open_data

G = torch.Generator().manual_seed(0)
Y, OUT = (torch.randn(6, 4, 2, generator=G) for _ in range(2))
W = torch.rand(6, generator=G)


def data():
    draw = np.random.default_rng(0)
    columns = {"a": 100 + 10 * draw.normal(size=80), "b": draw.normal(size=80)}
    return open_data(columns, DataOptions(task="forecast", horizon=4, lookback=8, season=2))


@pytest.mark.parametrize(
    ("loss", "of"),
    [
        ("mse", lambda r: r**2),
        ("mae", np.abs),
        ("huber", lambda r: np.where(np.abs(r) <= 0.5, r**2 / 2, 0.5 * (np.abs(r) - 0.25))),
    ],
)
@pytest.mark.parametrize("weight", [None, W])
def test_the_loss_is_the_weighted_mean_over_steps_and_series(loss, of, weight):
    task = tasks.forecast(loss=loss, delta=0.5)
    batch = Batch({"series": OUT}, Y, weight)
    found = task.phases[0].loss(nn.Identity(), batch)
    rows = of((Y - OUT).double().numpy()).mean((1, 2))
    w = np.ones(6) if weight is None else weight.numpy()
    assert float(found.total) == pytest.approx((rows * w).sum(), rel=1e-5)
    assert float(found.count) == pytest.approx(w.sum(), rel=1e-6)


def test_answers_are_in_the_units_of_the_data():
    rows = data()
    task = tasks.forecast()
    assert task.outputs(rows.schema) == 2
    batch = next(iter(rows.stream("train", batch_size=64, shuffle=False).epoch(0)))
    said = task.decode(batch.target, rows.schema)["forecast"]
    raw = np.stack([rows.source.columns[n] for n in ("a", "b")], 1)
    expected = np.stack([raw[t : t + 4] for t in batch.ids.tolist()])
    np.testing.assert_allclose(said, expected, rtol=1e-5, atol=1e-5)


def test_metrics_are_on_both_scales():
    rows = data()
    named = {m.name: m for m in tasks.forecast().metrics(rows.schema)}
    assert list(named) == ["mse", "mae", "original_mae", "mase"]
    state = {name: m.init("cpu") for name, m in named.items()}
    for name, m in named.items():
        m.update(state[name], OUT, Y, None)
    error = np.abs((Y - OUT).double().numpy())
    std, yard = (np.array([f.stats[k] for f in rows.schema.of("target")]) for k in ("std", "naive"))
    scores = {name: m.compute(state[name]) for name, m in named.items()}
    assert scores["mae"] == pytest.approx(error.mean())
    assert scores["mse"] == pytest.approx((error**2).mean())
    assert scores["original_mae"] == pytest.approx((error * std).mean())
    assert scores["mase"] == pytest.approx((error * std / yard).mean())


def test_a_series_that_repeats_itself_exactly_has_no_mase():
    columns = {"a": np.tile([1.0, 2.0, 4.0], 30)}
    rows = open_data(columns, DataOptions(task="forecast", horizon=3, lookback=6, season=3))
    metric = next(m for m in tasks.forecast().metrics(rows.schema) if m.name == "mase")
    state = metric.init("cpu")
    metric.update(state, OUT[:, :3, :1], Y[:, :3, :1], None)
    assert np.isnan(metric.compute(state))


def test_the_spec_rebuilds_it():
    task = tasks.forecast(loss="huber", delta=0.3, metric="mase")
    again = tasks.build(*task.spec)
    assert again.spec == task.spec
    assert again.primary == "mase"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"loss": "l2"}, "task.loss='l2'"),
        ({"metric": "rmse"}, "task.metric='rmse'"),
        ({"delta": 0.0}, "task.delta=0.0"),
    ],
)
def test_wrong_options_are_named(options, words):
    with pytest.raises(ConfigError, match=words):
        tasks.forecast(**options)
