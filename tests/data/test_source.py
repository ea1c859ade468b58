"""The raw container: labels, missing values, names of rows, fingerprints."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gipi.data.source import (
    ImageFiles,
    Source,
    as_labels,
    class_order,
    column_called,
    hash_columns,
    is_missing,
)


def objects(*values: object) -> np.ndarray:
    column = np.empty(len(values), dtype=object)
    column[:] = values
    return column


@pytest.mark.parametrize(
    ("column", "labels"),
    [
        (np.array([3, 1]), ["3", "1"]),
        (np.array([3.0, 1.5]), ["3", "1.5"]),
        (np.array([3.0, np.nan]), ["3", None]),
        (objects("3", None), ["3", None]),
        (np.array([True, False]), ["True", "False"]),
        (np.array(["2020-01-02", "NaT"], dtype="datetime64[D]"), ["2020-01-02", None]),
        (np.array([1e300]), ["1e+300"]),
        (np.array([], dtype=np.int64), []),
    ],
)
def test_labels(column, labels):
    assert as_labels(column).tolist() == labels


def test_class_order_is_by_value_where_all_are_numbers():
    assert class_order(["10", "9", None, "-1"]) == ("-1", "9", "10")
    assert class_order(["b", "10", "a"]) == ("10", "a", "b")


def test_missing():
    assert is_missing(objects("a", None)).tolist() == [False, True]
    assert is_missing(np.array([1.0, np.nan])).tolist() == [False, True]
    assert is_missing(np.array([[1.0, np.nan], [1.0, 2.0]])).tolist() == [True, False]
    assert is_missing(np.array(["NaT"], dtype="datetime64[us]")).tolist() == [True]
    assert is_missing(np.array([1, 2])).tolist() == [False, False]
    assert is_missing(ImageFiles((Path("a.png"),))).tolist() == [False]


def test_rows_are_named_by_file_part_or_number():
    column = np.arange(5)
    plain = Source("t", {"x": column}, 5)
    assert plain.row_name(0) == "row 1"
    parts = Source("t", {"x": column}, 5, parts=(("a.csv", 3), ("b.csv", 2)))
    assert [parts.row_name(i) for i in (0, 2, 3, 4)] == [
        "a.csv row 1", "a.csv row 3", "b.csv row 1", "b.csv row 2",
    ]  # fmt: skip
    files = ImageFiles((Path("/p/cat/1.png"), Path("/q/2.png")), Path("/p"))
    assert (files.name(0), files.name(1)) == ("cat/1.png", "/q/2.png")


def test_taken_rows_keep_names_and_split():
    source = Source(
        "t", {"x": np.arange(4), "image": ImageFiles(tuple(map(Path, "abcd")))}, 4,
        given_split=np.array([0, 0, 1, 2], np.int8),
    )  # fmt: skip
    taken = source.take(np.array([3, 1]))
    assert taken.rows == 2
    assert taken.columns["x"].tolist() == [3, 1]
    assert taken.columns["image"].paths == (Path("d"), Path("b"))
    assert taken.given_split.tolist() == [2, 0]
    assert [taken.row_name(i) for i in range(2)] == ["row 4", "row 2"]


def test_columns_by_number_where_no_name_fits():
    source = Source("t", {"a": np.arange(2), "1": np.arange(2)}, 2)
    assert [column_called(source, n) for n in ("1", "2", "-1", "-2")] == ["1", "1", "1", "a"]
    assert [column_called(source, n) for n in ("0", "3", "-3", "b")] == ["0", "3", "-3", "b"]


@pytest.mark.parametrize(
    "other",
    [
        {"x": np.array([1, 3])},
        {"z": np.array([1, 2])},
        {"x": np.array([1.0, 2.0])},
        {"x": np.array([[1, 2]])},
        {"x": objects("1", "2")},
        {"x": objects("12", "")},
    ],
)
def test_fingerprint_sees_every_difference(other):
    assert hash_columns({"x": np.array([1, 2])}) == hash_columns({"x": np.array([1, 2])})
    assert hash_columns({"x": np.array([1, 2])}) != hash_columns(other)


def test_fingerprint_tells_missing_from_empty():
    assert hash_columns({"x": objects(None)}) != hash_columns({"x": objects("")})
