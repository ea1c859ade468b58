"""Predictions: the same answers as CSV, JSON and Parquet."""

import csv
import json

import numpy as np
import pyarrow.parquet as pq
import pytest

from gipi.core.errors import ConfigError
from gipi.deploy.predictions import Predictions, joined

CLASSES = ("a,b", 'say "x"', "깊이")
P = np.array([[0.1, 0.2, 0.7], [1 / 3, 1 / 3, 1 / 3 + 1e-12]])


def labelled():
    values = {
        "label": np.array(["깊이", "깊이"], dtype=object),
        "index": np.array([2, 2]),
        "probability": P.max(1),
        "probabilities": P,
    }
    return Predictions(("row 1", "bad\nname"), values, CLASSES)


def valued():
    values = {"value": np.array([1.5, np.nan]), "std": np.array([0.1, 0.2])}
    return Predictions(("row 1", "row 2"), values)


def test_records_are_one_dictionary_a_row():
    answers = labelled()
    assert len(answers) == 2
    first = {"row": "row 1", "label": "깊이", "probability": 0.7,
             "probabilities": dict(zip(CLASSES, [0.1, 0.2, 0.7], strict=True))}  # fmt: skip
    assert answers[0] == answers.records()[0] == next(iter(answers)) == first
    assert answers.labels == ["깊이", "깊이"]
    assert valued().labels == []


def test_csv_holds_every_digit_and_odd_names(tmp_path):
    labelled().to_csv(tmp_path / "p.csv")
    with (tmp_path / "p.csv").open(encoding="utf-8", newline="") as f:
        rows = list(csv.DictReader(f))
    assert list(rows[0]) == ["row", "label", "probability", *(f"p_{c}" for c in CLASSES)]
    assert rows[1]["row"] == "bad\nname"
    got = np.array([[float(r[f"p_{c}"]) for c in CLASSES] for r in rows])
    assert np.array_equal(got, P)


def test_json_is_the_records_and_nan_is_null(tmp_path):
    labelled().to_json(tmp_path / "p.json")
    assert json.loads((tmp_path / "p.json").read_text("utf-8")) == labelled().records()
    valued().to_json(tmp_path / "v.jsonl")
    lines = (tmp_path / "v.jsonl").read_text().splitlines()
    assert [json.loads(line)["value"] for line in lines] == [1.5, None]


def test_parquet_is_the_columns(tmp_path):
    labelled().to_parquet(tmp_path / "p.parquet")
    table = pq.read_table(tmp_path / "p.parquet")
    assert table.to_pydict() == labelled().columns()


@pytest.mark.parametrize("name", ["p.csv", "p.json", "p.jsonl", "p.parquet", "P.CSV"])
def test_save_follows_the_suffix(tmp_path, name):
    path = valued().save(tmp_path / name)
    assert path.stat().st_size > 0


def test_another_suffix_is_an_error_that_lists_them(tmp_path):
    with pytest.raises(ConfigError, match="xlsx"):
        valued().save(tmp_path / "p.xlsx")
    assert list(tmp_path.iterdir()) == []


def test_several_targets_become_several_columns():
    many = Predictions(("row 1",), {"value": np.array([[1.0, 2.0]])})
    assert many.columns() == {"row": ["row 1"], "value_0": [1.0], "value_1": [2.0]}
    assert many.records() == [{"row": "row 1", "value": [1.0, 2.0]}]


def test_parts_join_in_order():
    got = joined([{"v": np.array([1, 2])}, {"v": np.array([3])}])
    assert got["v"].tolist() == [1, 2, 3]
