"""Forecasts of new rows continue their dates; floors are what a loop gives; a run resumes alike."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
import torch
from torch import nn

import gipi
from gipi import models, tasks
from gipi.core.errors import DataError
from gipi.data import DataOptions, open_data
from gipi.deploy import save_model_folder
from gipi.deploy.forecasts import floors
from gipi.deploy.predict import load
from gipi.report.page import summary_lines

L, H = 14, 7
FIXED = {"precision": "fp32", "threads": 1, "gemm": "native", "compile": "off",
         "layout": "contiguous"}  # fmt: skip


def table(n=160, unit="D"):
    draw = np.random.default_rng(0)
    step = np.timedelta64(1, unit)
    dates = (np.datetime64("2020-01-01", unit) + np.arange(n) * step).astype("datetime64[us]")
    wave = np.sin(2 * np.pi * np.arange(n) / 7)
    return {"day": dates, "sales": 200 + 50 * wave + 5 * draw.normal(size=n),
            "visits": 20 + 4 * wave + draw.normal(size=n)}  # fmt: skip


def write(path, columns):
    lines = [",".join(columns)]
    for row in zip(*columns.values(), strict=True):
        day, *values = row
        lines.append(",".join([str(day.astype("datetime64[D]")), *(f"{v:.6f}" for v in values)]))
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.fixture
def saved(tmp_path):
    data = open_data(table(), DataOptions(task="forecast", horizon=H, lookback=L))
    task = tasks.forecast()
    signature = data.signature(task.outputs(data.schema))
    net = models.build("dlinear", signature, seed=0, options={"init": "uniform"})
    save_model_folder(
        tmp_path / "model", model=net, model_name="dlinear", options={"init": "uniform"},
        signature=signature, schema=data.schema, task_spec=task.spec,
    )  # fmt: skip
    return data, net.eval(), load(tmp_path / "model", device="cpu")


def test_the_signature_survives_the_folder(saved):
    data, net, predictor = saved
    assert predictor.folder.signature == data.signature(2)
    x = torch.randn(3, L, 2)
    assert torch.equal(predictor.model(x), net(x))


def test_a_forecast_is_the_models_own_and_continues_the_dates(saved, tmp_path):
    data, net, predictor = saved
    columns = table(40)
    said = predictor.predict(write(tmp_path / "newest.csv", columns))
    assert list(said.rows) == [str(np.datetime64("2020-02-10") + i) for i in range(H)]
    mean, std = (np.array([f.stats[k] for f in data.schema.of("target")]) for k in ("mean", "std"))
    raw = np.stack([columns["sales"], columns["visits"]], 1)[-L:]
    x = torch.from_numpy(((raw - mean) / std).astype(np.float32))[None]
    with torch.no_grad():
        expected = net(x)[0].double().numpy() * std + mean
    np.testing.assert_allclose(said.values["forecast"], expected, rtol=1e-4)
    assert list(said.columns()) == ["day", "sales", "visits"]
    assert said[0] == {"day": "2020-02-10", "sales": pytest.approx(expected[0, 0], rel=1e-4),
                       "visits": pytest.approx(expected[0, 1], rel=1e-4)}  # fmt: skip
    with said.save(tmp_path / "out.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [r["day"] for r in rows] == list(said.rows)
    assert json.loads(said.save(tmp_path / "out.json").read_text())[-1]["day"] == "2020-02-16"


def test_what_was_written_can_be_put_below_the_file_and_forecast_from(saved, tmp_path):
    _, _, predictor = saved
    path = write(tmp_path / "newest.csv", table(40))
    first = predictor.predict(path)
    lines = first.save(tmp_path / "out.csv").read_text().splitlines()[1:]
    path.write_text(path.read_text() + "\n".join(lines) + "\n")
    assert predictor.predict(path).rows[0] == str(np.datetime64("2020-02-10") + H)


def test_without_dates_rows_go_on_counting_and_own_modules_forecast(tmp_path):
    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.map = nn.Linear(L, H)

        def forward(self, x):
            return self.map(x.transpose(1, 2)).transpose(1, 2)

    columns = {"a": np.sin(np.arange(90) / 3), "b": np.cos(np.arange(90) / 4)}
    made = gipi.train(
        columns, task="forecast", model=Own(), steps=2, out=tmp_path / "own", quiet=True,
        settings={"horizon": H, "lookback": L, **FIXED},
    )  # fmt: skip
    said = made.predict(columns)
    assert list(said.rows) == [f"row {i}" for i in range(91, 91 + H)]
    assert list(said.columns()) == ["step", "a", "b"]


def test_too_few_rows_are_named(saved):
    _, _, predictor = saved
    with pytest.raises(DataError, match="looks back 14 steps"):
        predictor.predict({k: v[:10] for k, v in table().items()})


def test_advice_for_a_gap_is_what_can_be_done_now(saved):
    _, _, predictor = saved
    with pytest.raises(DataError, match="1 step is missing") as e:
        predictor.predict({k: np.delete(v, 155) for k, v in table().items()})
    assert "train with --set bad_rows=skip" in e.value.do
    with pytest.raises(DataError, match="of 5,000 characters is no path"):
        predictor.predict("word " * 1000)


def test_floors_equal_a_loop(saved):
    data, _, _ = saved
    task = tasks.forecast()
    ids = data.splits["test"]
    found = floors(data.columns, ids, None, task, data.schema)
    values = data.columns.inputs["series"].values.double().numpy()
    rules = {"the last value goes on": 1, "the last 7 steps come again": 7}
    assert list(found.values) == list(rules)
    for rule, season in rules.items():
        squares = np.array([
            [(values[t + h] - values[t - season + h % season]) ** 2 for h in range(H)] for t in ids
        ])  # fmt: skip
        assert found.values[rule] == pytest.approx(squares.mean(), rel=1e-5)
        np.testing.assert_allclose(found.by_step[rule], squares.mean((0, 2)), rtol=1e-5)
        np.testing.assert_allclose(found.by_series[rule], squares.mean((0, 1)), rtol=1e-5)
    weight = torch.arange(len(ids)).float()
    heavy = floors(data.columns, ids, weight, task, data.schema).values["the last value goes on"]
    rows = np.array([((values[t : t + H] - values[t - 1]) ** 2).mean() for t in ids])
    assert heavy == pytest.approx(np.average(rows, weights=weight.numpy()), rel=1e-5)


def run(tmp_path, name, observers=(), **more):
    return gipi.train(
        table(), task="forecast", steps=12, batch_size=16, seed=0, out=tmp_path / name, quiet=True,
        observers=observers,
        settings={"horizon": H, "lookback": L, "save_every": 5, "eval_every": 0.5, **FIXED, **more},
    )  # fmt: skip


def test_a_run_says_its_floors_and_a_killed_one_ends_with_the_same_weights(tmp_path):
    whole = run(tmp_path, "whole")
    rules = whole.result["baselines"]["test/mse"]
    assert set(rules) == {"the last value goes on", "the last 7 steps come again"}
    summary = json.loads((tmp_path / "whole" / "evaluation" / "summary.json").read_text())
    assert summary["baseline"]["value"] == min(rules.values())
    assert len(summary["by_step"]["the model"]) == H
    assert [w["kind"] for w in summary["windows"]] == ["worst", "median", "best"]
    assert summary["primary"]["method"].startswith("3 blocks of windows")
    config = (tmp_path / "whole" / "config.yaml").read_text()
    assert "season: 7" in config

    def die(step):
        if step.when == "save" and step.step == 5:
            raise KeyError("the process is gone")

    with pytest.raises(KeyError):
        run(tmp_path, "killed", [die])
    resumed = gipi.resume(tmp_path / "killed", data=table(), quiet=True)
    assert resumed.result["weights_sha256"] == whole.result["weights_sha256"]
    assert resumed.metrics == whole.metrics
    assert len(gipi.load(tmp_path / "whole").predict(table(30))) == H


def test_a_few_windows_give_no_interval(tmp_path, capsys):
    found = gipi.train(
        table(70), task="forecast", steps=2, batch_size=16, seed=0, out=tmp_path / "few",
        settings={"horizon": H, "lookback": L, **FIXED},
    )  # fmt: skip
    summary = json.loads((tmp_path / "few" / "evaluation" / "summary.json").read_text())
    primary = summary["primary"]
    assert (primary["low"], primary["high"]) == (None, None)
    assert primary["value"] == pytest.approx(found.metrics["test/mse"])
    said = "".join(capsys.readouterr())
    assert "of windows: too few for an interval" in said
    assert " test rows, " in said
    assert "questions" not in said
    assert "95 % interval" not in said
    assert "too few for an interval" in "\n".join(summary_lines(found.path))
    many = gipi.train(
        table(400), task="forecast", steps=2, batch_size=16, seed=0, out=tmp_path / "many",
        settings={"horizon": H, "lookback": L, **FIXED}, quiet=True,
    )  # fmt: skip
    primary = json.loads((many.path / "evaluation" / "summary.json").read_text())["primary"]
    assert primary["method"] == "bootstrap of 10 blocks"
    assert primary["low"] < primary["value"] < primary["high"]


def test_micro_batches_change_nothing(tmp_path):
    whole = run(tmp_path, "whole", precision="fp32")
    parts = run(tmp_path, "parts", micro_batch=5)
    for name, value in whole.model.state_dict().items():
        torch.testing.assert_close(parts.model.state_dict()[name], value, rtol=1e-4, atol=1e-5)


def test_without_samples_no_window_is_kept(tmp_path):
    found = run(tmp_path, "quiet", samples=False)
    summary = json.loads((tmp_path / "quiet" / "evaluation" / "summary.json").read_text())
    assert "windows" not in summary
    assert summary["baselines"]
    page = found.report(samples=False).read_text()
    assert "error by step ahead" in page
    assert "holds no data rows" in page
