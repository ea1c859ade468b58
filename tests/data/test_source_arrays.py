"""Arrays, frames, .npz files: the same columns whatever they come in."""

from __future__ import annotations

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import torch

from gipi.core.errors import DataError
from gipi.data.source import TEST, TRAIN
from gipi.data.sources import read_source
from gipi.data.sources.arrays import pictures_of


@pytest.mark.parametrize("shape", [(4, 0, 5), (4, 0, 0, 3), (4, 5, 0, 1)])
def test_pictures_without_pixels(shape):
    with pytest.raises(DataError, match=r"'x' has pictures of \dx\d pixels"):
        read_source({"x": np.zeros(shape, np.uint8), "y": np.arange(4)})


def test_pair_of_matrix_and_target():
    source = read_source((np.ones((5, 3), np.float32), np.arange(5)))
    assert source.columns["x"].shape == (5, 3)
    assert source.columns["x"].dtype == np.float32
    assert source.target == "y"


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((4, 8, 9), (4, 8, 9, 1)),
        ((4, 8, 9, 3), (4, 8, 9, 3)),
        ((4, 3, 8, 9), (4, 8, 9, 3)),
        ((4, 1, 8, 9), (4, 8, 9, 1)),
        ((4, 3, 8, 3), (4, 3, 8, 3)),
    ],
)
def test_pictures_have_their_channels_last(shape, expected):
    array = np.arange(np.prod(shape)).reshape(shape) % 251
    source = read_source((array.astype(np.uint8), np.arange(4)))
    image = source.columns["image"]
    assert image.shape == expected
    assert source.schema_hints["image"] == "image"
    if expected == (4, 8, 9, 3) and shape[1] == 3:
        assert (image[1, 2, 4] == array[1, :, 2, 4]).all()


def test_torch_pictures_have_their_channels_first():
    image = torch.arange(4 * 3 * 8 * 3).reshape(4, 3, 8, 3).float()
    column = read_source((image, torch.arange(4))).columns["image"]
    assert column.shape == (4, 8, 3, 3)
    assert column.dtype == np.float32
    assert column[1, 5, 2, 0] == image[1, 0, 5, 2]


def test_picture_dtypes():
    assert pictures_of(np.full((1, 2, 2), 255, np.int64), "x").dtype == np.uint8
    assert pictures_of(np.full((1, 2, 2), 256, np.int64), "x").dtype == np.float32
    assert pictures_of(np.zeros((1, 2, 2), np.float64), "x").dtype == np.float32


def test_dict_of_columns():
    source = read_source({
        "i": [1, 2], "f": (1.5, None), "s": ["a ", None], "m": [1, "x"],
        "d": np.array(["2020-01-01", "NaT"], dtype="datetime64[D]"),
        "t": ["2020-01-01", "2020-01-02"], "h": torch.ones(2, 1, dtype=torch.bfloat16),
        "u": np.array(["p", "q"]), "b": np.array([True, False]),
    })  # fmt: skip
    kinds = {k: c.dtype.kind for k, c in source.columns.items()}
    assert kinds == dict(zip("ifsmdthub", "ifOOMMfOb", strict=True))
    assert source.columns["s"].tolist() == ["a", None]
    assert source.columns["m"].tolist() == ["1", "x"]
    assert any("mixed values" in n for n in source.notes)


FRAME = {
    "i": [1, 2, 3], "f": [1.5, None, 2.0], "s": ["x", None, "y"], "b": [True, False, True],
    "d": ["2020-01-01", None, "2020-02-01"], "z": ["01.02.2020", "13.02.2020", None],
}  # fmt: skip


@pytest.mark.parametrize(
    "frame",
    [
        pd.DataFrame(FRAME),
        pd.DataFrame(FRAME, index=[7, 8, 9]).convert_dtypes(),
        pl.DataFrame(FRAME),
        pa.table(FRAME),
        [dict(zip(FRAME, row, strict=True)) for row in zip(*FRAME.values(), strict=True)],
    ],
    ids=["pandas", "nullable", "polars", "arrow", "records"],
)
def test_frames_give_the_same_columns(frame):
    source = read_source(frame)
    assert {k: c.dtype.kind for k, c in source.columns.items()} == dict(
        zip("ifsbdz", "ifObMM", strict=True)
    )
    assert source.columns["s"].tolist() == ["x", None, "y"]
    assert source.columns["z"][0] == np.datetime64("2020-02-01")
    assert np.isnan(source.columns["f"][1])


def test_frame_with_categories_zones_and_equal_names():
    frame = pd.DataFrame({
        "c": pd.Categorical(["u", "v"]),
        "d": pd.to_datetime(["2020-01-01 12:00+02:00", "2020-01-02 12:00+02:00"]),
    })  # fmt: skip
    frame.columns = ["a", "a"]
    source = read_source(frame)
    assert source.columns["a"].tolist() == ["u", "v"]
    assert source.columns["a.2"][0] == np.datetime64("2020-01-01T10:00")
    assert "number 2 is read as 'a.2'" in source.notes[0]


@pytest.mark.parametrize(
    "frame",
    [
        pd.DataFrame({"c": pd.Categorical([1, 2, 1]), "n": [1, 2, 1]}),
        pl.DataFrame({"c": pl.Series(["1", "2", "1"], dtype=pl.Categorical), "n": [1, 2, 1]}),
        pa.table({"c": pa.array(["1", "2", "1"]).dictionary_encode(), "n": [1, 2, 1]}),
    ],
    ids=["pandas", "polars", "arrow"],
)
def test_a_category_of_a_frame_stays_one(frame):
    assert read_source(frame).schema_hints == {"c": "category"}


def test_durations_are_seconds():
    source = read_source(pd.DataFrame({"d": pd.to_timedelta(["1 min", None])}))
    assert source.columns["d"][0] == 60
    assert np.isnan(source.columns["d"][1])
    assert "seconds" in source.notes[0]


@pytest.mark.parametrize(
    "names",
    [("x_train", "y_train", "x_test", "y_test"),
     ("train_x", "train_y", "test_x", "test_y")],
)  # fmt: skip
def test_parts_of_an_npz_file_are_a_given_split(tmp_path, names):
    arrays = [
        np.zeros((4, 8, 8), np.uint8),
        np.arange(4),
        np.ones((2, 8, 8), np.uint8),
        np.arange(2),
    ]
    np.savez(tmp_path / "t.npz", **dict(zip(names, arrays, strict=True)))
    source = read_source(tmp_path / "t.npz")
    assert source.given_split.tolist() == [TRAIN] * 4 + [TEST] * 2
    assert source.columns["y"].tolist() == [0, 1, 2, 3, 0, 1]
    assert source.columns["x"].shape == (6, 8, 8, 1)
    assert source.row_name(5) == "test row 2"


def test_npy_files(tmp_path):
    np.save(tmp_path / "t.npy", np.ones((3, 2)))
    assert read_source(tmp_path / "t.npy").columns["x"].shape == (3, 2)
    records = np.array([(1, 2.5), (2, 3.5)], dtype=[("a", "i4"), ("b", "f4")])
    np.save(tmp_path / "r.npy", records)
    assert read_source(tmp_path / "r.npy").columns["b"].tolist() == [2.5, 3.5]
    np.save(tmp_path / "o.npy", np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match="pickled objects are refused"):
        read_source(tmp_path / "o.npy")
    (tmp_path / "bad.npz").write_bytes(b"PK\x03\x04junk")
    with pytest.raises(DataError, match="cannot be read"):
        read_source(tmp_path / "bad.npz")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({}, "without columns"),
        ({"x": [1, 2], "y": [1]}, "'x' has 2, 'y' has 1"),
        ({"x": []}, "without rows"),
        ({"x": np.array(3)}, "single value"),
        ({"x": np.array([1j])}, "dtype complex"),
        ({"x": np.zeros((2, 5, 8, 9))}, r"shape \(2, 5, 8, 9\)"),
        ({"x": np.zeros((2, 3, 4, 5, 6))}, "5 dimensions"),
        (pd.DataFrame({"a": []}), "0 rows"),
        ([], "without rows"),
        (3, "type int"),
    ],
)
def test_what_cannot_be_read(data, message):
    with pytest.raises(DataError, match=message):
        read_source(data)
