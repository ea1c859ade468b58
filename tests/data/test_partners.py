"""Pairs of texts: what is a pair, which rows are bound, and how a row of two texts is laid out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.data.texts import reviews, write_rows

from gipi.core.errors import DataError
from gipi.data import DataOptions, open_data, read_rows


def table(path: Path, rows: list[list[object]], names: tuple[str, ...]) -> str:
    return str(write_rows(path / "pairs.csv", rows, names))


def many(rows: int = 60) -> list[list[object]]:
    return [[text, f"what was said on day {i} in town: {text[:12]}"] for i, (text, _) in
            enumerate(reviews(rows))]  # fmt: skip


def test_two_texts_are_inputs_and_rows_that_share_one_stay_together(tmp_path: Path) -> None:
    rows = many()
    rows += [[rows[0][0], "another text for the first query here"],
             ["a new query about the thing", rows[1][1]]]  # fmt: skip
    data = open_data(table(tmp_path, rows, ("query", "answer")), DataOptions(task="rank"))
    assert data.schema.task == "rank"
    assert data.schema.target is None
    assert [f.name for f in data.schema.inputs] == ["query", "answer"]
    groups = data.columns.target
    assert groups is not None
    assert groups[60] == groups[0]
    assert groups[61] == groups[1]
    side = {int(i): name for name, ids in data.splits.items() for i in ids}
    assert side[60] == side[0]
    assert side[61] == side[1]


def test_each_text_has_marks_of_its_own(tmp_path: Path) -> None:
    data = open_data(table(tmp_path, many(), ("query", "answer")), DataOptions(task="embed"))
    tokens, segments = data.columns.inputs["tokens"], data.columns.inputs["segments"]
    row, part = tokens.row(0), segments.row(0)
    first, second = row[part == 0], row[part == 1]
    assert first[0] == second[0]
    assert first[-1] == second[-1]
    assert first[0] != first[-1]
    assert np.array_equal(np.sort(part), part)
    again = read_rows(table(tmp_path, many()[:3], ("query", "answer")), data.schema)
    assert np.array_equal(again.columns.inputs["tokens"].row(0), row)
    assert again.columns.target is not None


def test_rows_without_both_texts_take_no_part(tmp_path: Path) -> None:
    rows = [*many(), ["a query without its answer here", ""]]
    data = open_data(table(tmp_path, rows, ("query", "answer")), DataOptions(task="embed"))
    assert "1 rows without both texts take no part" in data.notes
    assert all(60 not in ids for ids in data.splits.values())


def test_rows_without_a_text_share_none(tmp_path: Path) -> None:
    rows = many()
    rows += [[rows[0][0], ""], [rows[1][0], ""]]
    data = open_data(table(tmp_path, rows, ("query", "answer")), DataOptions(task="rank"))
    groups = data.columns.target
    assert groups is not None
    assert groups[0] != groups[1]


def test_two_columns_of_words_are_texts_however_short_they_are(tmp_path: Path) -> None:
    rows: list[list[object]] = [[f"city{i}", f"land{i % 9}"] for i in range(60)]
    data = open_data(table(tmp_path, rows, ("city", "land")), DataOptions(task="embed"))
    assert [(f.name, f.kind) for f in data.schema.inputs] == [("city", "text"), ("land", "text")]
    asked = DataOptions(task="embed", overrides={"land": "ignored"})
    with pytest.raises(DataError, match="has no columns of text"):
        open_data(table(tmp_path, rows, ("city", "land")), asked)


def test_one_text_alone_is_refused(tmp_path: Path) -> None:
    rows = [[text, i % 3] for i, (text, _) in enumerate(reviews(40))]
    with pytest.raises(DataError) as error:
        open_data(table(tmp_path, rows, ("text", "number")), DataOptions(task="embed"))
    assert "has 1 column of text: 'text'" in error.value.found
    assert error.value.needed == "two texts a row that belong together, to embed them"
