"""What is wrong with the time of a series is said with file, row and a fix, before any training."""

from __future__ import annotations

import numpy as np
import pytest

from gipi.core.errors import ConfigError, DataError
from gipi.data import DataOptions, audit, open_data, read_rows
from gipi.data.windows import geometry_of

N = 120


def rows(n=N, step="h"):
    """Lines "date,a,b" of a regular series."""
    moments = np.datetime64("2024-03-01T00", step) + np.arange(n)
    texts = [str(m.astype("datetime64[s]")).replace("T", " ") for m in moments]
    wave = [10 + 3 * np.sin(i / 4) + i / 50 for i in range(n)]
    return [
        f"{d},{w:.4f},{2 * w + i % 3:.4f}" for i, (d, w) in enumerate(zip(texts, wave, strict=True))
    ]


def write(tmp_path, lines, header="date,a,b"):
    path = tmp_path / "sales.csv"
    path.write_text("\n".join([header, *lines]) + "\n")
    return path


def options(**more):
    return DataOptions(task="forecast", horizon=6, lookback=12, **more)


def refused(tmp_path, lines, *, header="date,a,b", error=DataError, **more):
    with pytest.raises(error) as caught:
        open_data(write(tmp_path, lines, header), options(**more))
    return caught.value


def cut(lines, *places):
    return [line for i, line in enumerate(lines) if i not in places]


def change(lines, row, column, text):
    parts = lines[row].split(",")
    parts[column] = text
    return [*lines[:row], ",".join(parts), *lines[row + 1 :]]


def test_a_whole_series_is_taken_and_what_was_chosen_is_said(tmp_path):
    data = open_data(write(tmp_path, rows()), DataOptions(task="forecast"))
    assert [f.role for f in data.schema.fields] == ["time", "target", "target"]
    assert geometry_of(data.schema).horizon == 24
    said = " ".join(data.notes)
    for words in ("season 24 (a day, steps of 1 hour)", "horizon 24 (one season", "lookback 30",
                  "look back into earlier steps"):  # fmt: skip
        assert words in said
    assert "the last 24 steps test, the 24 steps before them validate" in data.split_reason


def test_it_is_never_guessed(tmp_path):
    data = open_data(write(tmp_path, rows()), DataOptions(target="b"))
    assert data.schema.task == "regress"
    with pytest.raises(ConfigError, match="horizon=6"):
        open_data(write(tmp_path, rows()), DataOptions(target="b", horizon=6))


def test_a_missing_step_is_named_with_both_sides(tmp_path):
    error = refused(tmp_path, cut(rows(), 40, 41, 42, 80))
    assert "sales.csv row 41" in error.found
    assert "3 steps are missing between 2024-03-02 15:00:00 and 2024-03-02 19:00:00" in error.found
    assert "2 gaps, 4 steps in all" in error.found
    assert "every step of 1 hour" in error.needed
    assert "bad_rows=fill" in error.do


def test_skip_leaves_out_the_windows_that_touch_a_gap(tmp_path):
    whole = open_data(write(tmp_path, rows()), options())
    holed = open_data(write(tmp_path, cut(rows(), 40)), options(bad_rows="skip"))
    lost = set(whole.splits["train"].tolist()) - set(holed.splits["train"].tolist())
    assert lost == set(range(40 - 6 + 1, 40 + 12 + 1))
    assert f"{len(lost)} windows touch a missing step" in " ".join(holed.notes)
    for name in holed.splits:
        for batch in holed.stream(name, batch_size=16).epoch(0):
            assert batch.inputs["series"].isfinite().all()
            assert batch.target.isfinite().all()


def test_fill_lets_the_last_value_go_on(tmp_path):
    data = open_data(write(tmp_path, cut(rows(), 40, 41)), options(bad_rows="fill"))
    values = data.columns.inputs["series"].values
    assert len(values) == N
    assert (values[39] == values[40]).all()
    assert (values[39] == values[41]).all()
    assert (values[39] != values[42]).any()
    assert "4 values filled" in " ".join(data.notes)


def test_an_empty_value_is_named(tmp_path):
    lines = change(rows(), 30, 2, "")
    error = refused(tmp_path, change(lines, 50, 2, "NA"))
    assert "sales.csv row 31: 'b' is missing (and in 1 more rows)" in error.found
    assert "bad_rows=skip" in error.do
    data = open_data(write(tmp_path, lines), options(bad_rows="fill"))
    values = data.columns.inputs["series"].values
    assert values[30, 1] == values[29, 1]
    assert values[30, 0] != values[29, 0]


def test_an_infinite_value_is_named_whatever_is_asked(tmp_path):
    error = refused(tmp_path, change(rows(), 30, 1, "inf"), bad_rows="skip")
    assert "sales.csv row 31: 'a' is infinite" in error.found


def test_rows_out_of_order_are_named(tmp_path):
    lines = rows()
    lines[20], lines[21] = lines[21], lines[20]
    error = refused(tmp_path, lines)
    assert "sales.csv row 22" in error.found
    assert "before the row above it" in error.found
    assert "sort the table" in error.do
    data = open_data(write(tmp_path, lines), options(bad_rows="skip"))
    plain = open_data(write(tmp_path, rows()), options())
    assert (data.columns.inputs["series"].values == plain.columns.inputs["series"].values).all()
    assert "sorted by 'date'" in " ".join(data.notes)


def test_repeated_dates_are_named(tmp_path):
    lines = [*rows()[:30], rows()[29], *rows()[30:]]
    error = refused(tmp_path, lines)
    assert "sales.csv row 31" in error.found
    assert "as in row 30" in error.found
    assert "one row a date" in error.needed
    data = open_data(write(tmp_path, lines), options(bad_rows="skip"))
    assert len(data.columns.inputs["series"].values) == N
    other = refused(tmp_path, change(lines, 30, 1, "99"), bad_rows="fill")
    assert "as in row 30" in other.found


def test_a_date_between_steps_is_named(tmp_path):
    error = refused(tmp_path, change(rows(), 10, 0, "2024-03-01 10:20:00"))
    assert "sales.csv row 11" in error.found
    assert "between the steps of 1 hour" in error.found


def test_an_unreadable_date_is_named(tmp_path):
    error = refused(tmp_path, change(rows(), 60, 0, "yesterday"))
    assert "sales.csv row 61: the time column 'date' is 'yesterday'" in error.found
    assert "--time-column" in error.do
    error = refused(tmp_path, change(rows(), 60, 0, "2024-13-41 00:00:00"))
    assert "row 61" in error.found
    error = refused(tmp_path, change(rows(), 60, 0, ""))
    assert "row 61: the time column 'date' is empty" in error.found


def test_one_time_zone_among_none_is_named(tmp_path):
    error = refused(tmp_path, change(rows(), 60, 0, "2024-03-03 12:00:00+02:00"))
    assert "sales.csv row 61" in error.found
    assert "with a time zone, unlike the other rows" in error.found
    assert "UTC" in error.do


def test_time_zones_everywhere_are_read_as_utc_and_said(tmp_path):
    lines = [line.replace(":00,", ":00+01:00,", 1) for line in rows()]
    data = open_data(write(tmp_path, lines), options())
    assert data.source.row_name(0) == "2024-02-29 23:00:00"
    assert "read as UTC" in " ".join(data.notes)


@pytest.mark.parametrize("twice", [False, True])
def test_the_change_of_clocks_is_recognised(tmp_path, twice):
    moments = np.datetime64("2024-03-28T00", "h") + np.arange(N)
    local = moments + (moments >= np.datetime64("2024-03-31T02", "h"))
    if twice:
        local = moments - (moments > np.datetime64("2024-03-31T02", "h"))
    lines = [f"{str(m.astype('datetime64[s]')).replace('T', ' ')},{i % 7},{i % 5}"
             for i, m in enumerate(local)]  # fmt: skip
    error = refused(tmp_path, lines)
    assert "UTC" in error.do


def test_years_and_months_without_a_day_are_dates(tmp_path):
    months = [str(m) for m in np.arange("1949-01", "1961-01", dtype="datetime64[M]")]
    lines = [f"{m},{100 + i + 20 * (i % 12)}" for i, m in enumerate(months)]
    path = write(tmp_path, lines, "Month,Passengers")
    data = open_data(path, DataOptions(task="forecast"))
    window = geometry_of(data.schema)
    assert (window.step.words, window.season, window.horizon) == ("1 month", 12, 12)
    ahead = read_rows(path, data.schema, target=False)
    first = int(ahead.splits["all"][0])
    assert ahead.row_names([first, first + 11]) == ["1961-01", "1961-12"]
    error = refused(tmp_path, cut(lines, 40), header="Month,Passengers")
    assert "sales.csv row 41: 1 step is missing" in error.found


def test_whole_numbers_that_count_the_time_are_no_series(tmp_path):
    lines = [f"{1_700_000_000 + 3600 * i},{i % 7},{i % 5}" for i in range(N)]
    data = open_data(write(tmp_path, lines, "timestamp,a,b"), options())
    assert [f.role for f in data.schema.fields] == ["time", "target", "target"]
    assert geometry_of(data.schema).step.size == 3600
    error = refused(tmp_path, cut(lines, 40), header="timestamp,a,b")
    assert "1 step is missing" in error.found
    falling = [f"{N - i},{i % 7}" for i in range(N)]  # a series that is called so
    other = open_data(write(tmp_path, falling, "time,a"), options())
    assert [f.role for f in other.schema.fields] == ["target", "target"]


def test_a_word_among_numbers_is_named(tmp_path):
    error = refused(tmp_path, change(rows(), 77, 2, "closed"))
    assert "sales.csv row 78: 'b' is 'closed'" in error.found
    assert "schema.b=ignored" in error.do
    data = open_data(write(tmp_path, change(rows(), 77, 2, "closed")),
                     options(overrides={"b": "ignored"}))  # fmt: skip
    assert [f.name for f in data.schema.of("target")] == ["a"]


def test_columns_that_are_no_series_are_said_to_be_left_out(tmp_path):
    lines = [f"{line},north,5" for line in rows()]
    data = open_data(write(tmp_path, lines, "date,a,b,shop,floor"), options())
    reasons = {f.name: f.reason for f in data.schema.of("ignored")}
    assert "text" in reasons["shop"]
    assert "constant" in reasons["floor"]


def test_numbers_written_as_text_are_numbers_and_dates_can_be_left_out(tmp_path):
    wave = [f"{10 + 3 * np.sin(i / 4):.4f}" for i in range(N)]
    days = (np.datetime64("2024-01-01") + np.arange(N)).astype("datetime64[us]")
    table = {"day": days, "a": np.array(wave, object)}
    data = open_data(table, options())
    assert [f.role for f in data.schema.fields] == ["time", "target"]
    assert data.schema.field("a").stats["mean"] == pytest.approx(
        np.array(wave[:84], float).mean(), rel=1e-6
    )
    bare = open_data(table, options(overrides={"day": "ignored"}))
    assert [f.role for f in bare.schema.fields] == ["ignored", "target"]
    assert bare.source.row_name(0) == "row 1"


def test_values_that_no_scale_holds_are_named(tmp_path):
    wave = np.sin(np.arange(N) / 4)
    with pytest.raises(DataError, match=r"row 2: 'a' is [\d.]+e\+299"):
        open_data({"a": np.round(wave * 1e2) * 1e298}, options())
    when = np.where(np.arange(N) == 5, np.inf, np.arange(N))
    with pytest.raises(DataError, match="holds numbers with fractions"):
        open_data({"t": when, "a": wave}, options(time_column="t"))
    with pytest.raises(DataError, match="none of the given parts is for training"):
        open_data({"a": wave, "p": np.array(["test"] * N, object)}, options(split_column="p"))


def test_a_series_that_does_not_vary_in_training_is_named(tmp_path):
    lines = rows()
    for i in range(90):
        lines = change(lines, i, 2, "4")
    error = refused(tmp_path, lines)
    assert "the series 'b' is 4 in every training step" in error.found


def test_too_short_says_what_would_fit(tmp_path):
    error = refused(tmp_path, rows(20))
    assert "20 steps" in error.found or "to train on" in error.found
    assert "need 18" in error.found
    assert "lookback=" in error.do


@pytest.mark.parametrize(
    ("more", "error", "words"),
    [
        ({"val": 0.01}, ConfigError, "val=0.01 gives 1 of 120 steps"),
        ({"target": "c"}, DataError, "no column is called 'c'"),
        ({"target": "date"}, ConfigError, "is the time column"),
        ({"group": "a"}, ConfigError, "group=a with a series"),
        ({"time_column": "day"}, DataError, "time column"),
        ({"overrides": {"a": "category"}}, ConfigError, "schema.a=category"),
        ({"weight": "date"}, ConfigError, "'date' is named as weight and is the time column"),
        ({"val": 0.9}, ConfigError, "108 steps that validate and 24 that test leave none of 120"),
    ],
)
def test_wrong_settings_are_named(tmp_path, more, error, words):
    assert words in str(refused(tmp_path, rows(), error=error, **more))


def test_without_dates_rows_are_counted_and_the_season_is_heard(tmp_path):
    wave = np.sin(2 * np.pi * np.arange(300) / 12) + np.random.default_rng(0).normal(0, 0.1, 300)
    data = open_data({"a": wave}, DataOptions(task="forecast"))
    assert geometry_of(data.schema).season == 12
    assert "no column of dates" in " ".join(data.notes)
    noise = np.random.default_rng(1).normal(size=300)
    assert geometry_of(open_data({"a": noise}, options()).schema).season == 1


def test_the_audit_says_the_same(tmp_path):
    found = audit(write(tmp_path, cut(rows(), 40)), options())
    assert any("1 step is missing" in f.message for f in found.findings if f.level == "error")
    fine = audit(write(tmp_path, rows()), options())
    assert fine.task == "forecast"
    assert not [f for f in fine.findings if f.level == "error"]
