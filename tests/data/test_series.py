"""Windows of a series: what a naive loop gives, nothing from beyond a border, in every mode."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gipi.core.errors import ConfigError, DataError
from gipi.data import DataOptions, open_data, read_rows, series
from gipi.data.calendar import Step
from gipi.data.stream import RowStream
from gipi.data.windows import Geometry, Windows, geometry_of, naive

N, L, H = 200, 12, 5
PARTS = ("train", "val", "test")


def table(n=N, seed=0):
    draw = np.random.default_rng(seed)
    days = np.datetime64("2021-01-01") + np.arange(n)
    return {
        "day": days.astype("datetime64[us]"),
        "a": 50 + 9 * np.sin(np.arange(n) / 5) + draw.normal(size=n),
        "b": 3 * draw.normal(size=n),
        "w": draw.integers(0, 3, n).astype(np.float64),
    }


def opened(columns=None, **more):
    chosen = {"task": "forecast", "horizon": H, "lookback": L, "overrides": {"w": "ignored"}}
    return open_data(table() if columns is None else columns, DataOptions(**{**chosen, **more}))


def batches(data, split, **more):
    return list(data.stream(split, batch_size=7, **more).epoch(0))


def everything(data, split):
    """Inputs, targets and ids of a split, in the order of its rows."""
    found = batches(data, split, shuffle=False)
    return (torch.cat([b.inputs["series"] for b in found]), torch.cat([b.target for b in found]),
            torch.cat([b.ids for b in found]))  # fmt: skip


@pytest.mark.parametrize("split", PARTS)
@pytest.mark.parametrize("shuffle", [False, True])
def test_windows_equal_a_naive_loop(split, shuffle):
    columns, data = table(), opened()
    train = N - round(0.1 * N) - round(0.2 * N)
    raw = np.stack([columns["a"], columns["b"]], 1)
    scaled = (raw - raw[:train].mean(0)) / raw[:train].std(0)
    seen = 0
    for batch in batches(data, split, shuffle=shuffle):
        for row, x, y in zip(batch.ids.tolist(), batch.inputs["series"], batch.target, strict=True):
            np.testing.assert_allclose(x.numpy(), scaled[row - L : row], rtol=1e-5, atol=1e-6)
            np.testing.assert_allclose(y.numpy(), scaled[row : row + H], rtol=1e-5, atol=1e-6)
            seen += 1
    assert seen == len(data.splits[split])


def test_the_last_batch_is_kept_though_it_is_not_full():
    data = opened()
    sizes = [len(b) for b in batches(data, "test", shuffle=False)]
    assert len(data.splits["test"]) % 7 != 0
    assert sizes == [7] * (len(data.splits["test"]) // 7) + [len(data.splits["test"]) % 7]


def test_borders_and_counts():
    data = opened()
    train, val = 140, 160
    assert data.splits["train"].tolist() == list(range(L, train - H + 1))
    assert data.splits["val"].tolist() == list(range(train, val - H + 1))
    assert data.splits["test"].tolist() == list(range(val, N - H + 1))
    assert "the last 40 steps test, the 20 steps before them validate" in data.split_reason


def leaks(border, split, *, opening=opened):
    """Whether any number of the windows of `split` depends on a step from `border` on."""
    columns = table()
    other = {k: v.copy() for k, v in columns.items()}
    for name in ("a", "b"):
        other[name][border:] += 1000.0
    first, second = (everything(opening(c), split) for c in (columns, other))
    return any(not torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize(("border", "split"), [(140, "train"), (160, "val")])
def test_no_window_depends_on_a_step_beyond_its_part(border, split):
    assert not leaks(border, split)
    assert leaks(border - 1, split)  # the check sees what changes within the part


def test_a_planted_leak_across_the_border_is_found(monkeypatch):
    plain = series._windows
    monkeypatch.setattr(
        series, "_windows", lambda ends, *rest: plain((ends[0] + 1, *ends[1:]), *rest)
    )
    assert leaks(140, "train")


def test_a_planted_leak_through_the_scale_is_found(monkeypatch):
    plain = series._fit
    monkeypatch.setattr(series, "_fit", lambda s, v, train, *rest: plain(s, v, len(v), *rest))
    assert leaks(140, "train")


def test_statistics_are_those_of_the_training_steps():
    columns, data = table(), opened(season=7)
    known = columns["a"][:140]
    stats = data.schema.field("a").stats
    assert stats["mean"] == pytest.approx(known.mean())
    assert stats["std"] == pytest.approx(known.std())
    assert stats["naive"] == pytest.approx(np.abs(known[7:] - known[:-7]).mean())


def test_values_lie_in_memory_once():
    data = opened()
    values = data.columns.inputs["series"].values
    stream = data.stream("train", batch_size=7)
    assert stream._gathers["series"].table.data_ptr() == values.data_ptr()
    assert (stream.mode, stream.can_store) == ("resident", False)


@pytest.mark.parametrize("mode", ["mapped", "streaming"])
def test_every_mode_gives_the_same_bits(mode):
    data = opened()
    pairs = zip(batches(data, "train"), batches(data, "train", mode=mode), strict=True)
    for a, b in pairs:
        assert torch.equal(a.inputs["series"], b.inputs["series"])
        assert torch.equal(a.target, b.target)


def test_ranks_share_a_batch_and_an_epoch_can_begin_in_the_middle():
    data = opened()
    whole = batches(data, "train", seed=3)
    parts = [batches(data, "train", seed=3, rank=r, world=2) for r in (0, 1)]
    for batch, a, b in zip(whole, *parts, strict=True):
        assert torch.equal(
            batch.inputs["series"], torch.cat([a.inputs["series"], b.inputs["series"]])
        )
        assert torch.equal(batch.target, torch.cat([a.target, b.target]))
    late = list(data.stream("train", batch_size=7, seed=3).epoch(0, 4))
    assert [b.ids.tolist() for b in late] == [b.ids.tolist() for b in whole[4:]]


def test_one_target_and_a_series_that_helps():
    data = opened(target="b")
    assert [(f.name, f.role) for f in data.schema.fields][1:3] == [("a", "input"), ("b", "target")]
    x, y, ids = everything(data, "train")
    assert (x.shape[2], y.shape[2]) == (2, 1)
    assert torch.equal(x[H:, -1, 0], data.columns.target.values[ids[H:] - 1, 0])
    signature = data.signature(1)
    assert (signature.numbers, signature.length, signature.horizon, signature.outputs) == (
        2,
        L,
        H,
        1,
    )
    both = opened(target="b,a")
    assert len(both.schema.of("target")) == 2


def test_the_weight_of_a_window_is_the_mean_over_the_steps_it_forecasts():
    columns = table()
    data = opened(weight="w", overrides={})
    for batch in batches(data, "train"):
        expected = [columns["w"][t : t + H].mean() for t in batch.ids.tolist()]
        np.testing.assert_allclose(batch.weight.numpy(), expected, rtol=1e-6)
    zero = {**columns, "w": np.where(np.arange(N) >= 140, 0.0, 1.0)}
    with pytest.raises(DataError, match="every weight of the val windows"):
        opened(zero, weight="w", overrides={})


@pytest.mark.parametrize("policy", ["skip", "fill"])
def test_a_step_that_no_row_has_weighs_nothing(policy):
    columns = {k: np.delete(v, 40) for k, v in table().items()} | {"w": np.ones(N - 1)}
    data = opened(columns, weight="w", overrides={}, bad_rows=policy)
    known = {int(i): float(data.columns.weight[i]) for i in data.splits["train"]}
    assert known[20] == 1.0
    assert (40 in known) is (policy == "fill")
    assert known.get(40, 0.8) == pytest.approx(0.8)  # four of five steps


def test_filled_values_that_are_scored_are_said():
    late = opened({k: np.delete(v, 150) for k, v in table().items()}, bad_rows="fill")
    assert any("1 of the steps that are scored hold filled values" in n for n in late.notes)
    early = opened({k: np.delete(v, 40) for k, v in table().items()}, bad_rows="fill")
    assert not any("scored" in n for n in early.notes)


def test_a_given_part_without_room_for_a_forecast_is_named():
    columns = table() | {"part": np.array(["train"] * 150 + ["val"] * 46 + ["test"] * 4, object)}
    with pytest.raises(DataError, match="the test part of .* has 4 steps, and horizon=5") as e:
        opened(columns, split_column="part")
    assert "horizon=4 or less" in e.value.do
    assert "test" not in opened(columns, split_column="part", test=0.0).splits


def test_a_split_column_and_parts_that_are_left_out():
    columns = table() | {"part": np.array(["train"] * 100 + ["val"] * 50 + ["test"] * 50, object)}
    data = opened(columns, split_column="part")
    assert [len(data.splits[p]) for p in PARTS] == [100 - L - H + 1, 50 - H + 1, 50 - H + 1]
    assert "100 train, 50 val, 50 test" in data.split_reason
    assert set(opened(columns, split_column="part", test=0.0).splits) == {"train", "val"}
    assert set(opened(val=0.0, test=0.0).splits) == {"train"}
    mixed = columns | {"part": columns["part"][::-1].copy()}
    with pytest.raises(DataError, match="not in the order of time"):
        opened(mixed, split_column="part")


def test_columns_of_several_numbers_are_several_series():
    data = open_data({"x": np.random.default_rng(0).normal(size=(90, 3))},
                     DataOptions(task="forecast", horizon=4, lookback=8))  # fmt: skip
    assert [f.name for f in data.schema.of("target")] == ["x_1", "x_2", "x_3"]


def test_other_rows_are_read_with_the_scale_of_training():
    columns, data = table(), opened()
    later = {k: v[:40] for k, v in table(seed=5).items()}
    found = read_rows(later, data.schema)
    assert found.splits["all"].tolist() == list(range(L, 40 - H + 1))
    x, y, _ = everything(found, "all")
    mean, std = (data.schema.field("a").stats[k] for k in ("mean", "std"))
    np.testing.assert_allclose(x[0, :, 0].numpy(), (later["a"][:L] - mean) / std, rtol=1e-5)
    np.testing.assert_allclose(y[-1, :, 0].numpy(), (later["a"][-H:] - mean) / std, rtol=1e-5)
    (batch,) = list(
        read_rows(columns, data.schema, target=False).stream("all", batch_size=1).epoch(0)
    )
    assert batch.target is None
    last = (columns["a"][-L:] - mean) / std
    np.testing.assert_allclose(batch.inputs["series"][0, :, 0].numpy(), last, rtol=1e-5)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: {k: v for k, v in c.items() if k != "b"}, "the column 'b' is missing"),
        (lambda c: {k: v for k, v in c.items() if k != "day"}, "the column 'day' is missing"),
        (lambda c: {k: v[: L - 1] for k, v in c.items()}, f"at least {L}"),
        (lambda c: {**c, "day": c["day"][0] + np.arange(N).astype("timedelta64[h]")},
         "steps of 1 day, as in training"),
        (lambda c: {**c, "a": np.where(np.arange(N) == N - 3, np.nan, c["a"])}, "'a' is missing"),
        (lambda c: {k: np.delete(v, N - 4) for k, v in c.items()}, "1 step is missing"),
    ],
)  # fmt: skip
def test_rows_that_cannot_be_forecast_from_are_named(change, words):
    with pytest.raises(DataError, match=words):
        read_rows(change(table()), opened().schema, target=False)


def test_an_old_gap_does_not_matter_to_what_comes_next():
    data = opened()
    columns = {k: np.delete(v, 20) for k, v in table().items()}
    assert read_rows(columns, data.schema, target=False).splits["all"].tolist() == [L]
    filled = opened({k: np.delete(v, N - 4) for k, v in table().items()}, bad_rows="fill")
    late = read_rows(
        {k: np.delete(v, N - 4) for k, v in table().items()}, filled.schema, target=False
    )
    x = next(iter(late.stream("all", batch_size=1).epoch(0))).inputs["series"][0]
    assert torch.equal(x[-4], x[-5])


def test_rows_that_are_there_twice_are_no_steps_to_look_back_on():
    data = opened(bad_rows="skip")
    twice = {k: np.append(v, v[-1:]) for k, v in table().items()}
    plain = read_rows(table(), data.schema, target=False)
    found = read_rows(twice, data.schema, target=False)
    rows = [next(iter(d.stream("all", batch_size=1).epoch(0))) for d in (plain, found)]
    assert torch.equal(rows[0].inputs["series"], rows[1].inputs["series"])
    short = {k: np.repeat(v[:8], 2) for k, v in table().items()}
    with pytest.raises(DataError, match="8 different steps in 16 rows"):
        read_rows(short, data.schema, target=False)


def test_months_in_any_order_are_forecast_from_the_last_ones():
    months = [str(m) for m in np.arange("1999-01", "2015-01", dtype="datetime64[M]")]
    columns = {"month": np.array(months, object), "a": np.sin(np.arange(len(months)) / 3)}
    data = opened(columns, overrides={}, bad_rows="skip")
    back = {k: v[::-1].copy() for k, v in columns.items()}
    found = read_rows(back, data.schema, target=False)
    assert found.row_names(found.splits["all"]) == ["2015-01"]


def test_naive_forecasts_equal_a_loop():
    values = np.random.default_rng(0).normal(size=(60, 2))
    rows = np.array([20, 31, 55])
    for season in (1, 4, 9):
        expected = [[values[t - season + h % season] for h in range(7)] for t in rows]
        np.testing.assert_array_equal(naive(values, rows, horizon=7, season=season), expected)
    assert (naive(values, np.array([3]), horizon=2, season=9) == values[2]).all()


def test_the_geometry_travels_as_json():
    window = Geometry(96, 24, 12, Step("month", 1), "skip")
    schema = opened().schema
    field = schema.target
    field.stats["windows"] = window.to_dict()
    assert geometry_of(type(schema).from_dict(schema.to_dict())) == window


def test_a_stream_of_windows_needs_rows():
    values = torch.zeros(30, 2)
    assert Windows(values, -4, 4).fetch(np.array([4, 30])).shape == (2, 4, 2)
    with pytest.raises(DataError, match="no rows"):
        RowStream(opened().columns, np.array([], dtype=np.int64), batch_size=4)


def test_pictures_and_series_do_not_mix():
    with pytest.raises(ConfigError, match="augment=mixup on a series"):
        opened().stream("train", batch_size=4, augment=["mixup"])


@pytest.mark.data
@pytest.mark.parametrize(("lookback", "train"), [(96, 8449), (336, 8209)])
def test_etth1_has_the_windows_of_the_literature(data_folder, lookback, train):
    data = open_data("etth1", DataOptions(lookback=lookback))
    assert {k: len(v) for k, v in data.splits.items()} == {
        "train": train,
        "val": 2785,
        "test": 2785,
    }
    assert data.splits["val"][0] == 8640
    assert data.splits["test"][0] == 11520
    assert geometry_of(data.schema).horizon == 96
    assert len(data.schema.of("target")) == 7
    assert data.source.row_name(8640) == "2017-06-26 00:00:00"
    one = open_data("etth1", DataOptions(lookback=lookback, target="OT"))
    assert [f.name for f in one.schema.of("target")] == ["OT"]
