"""Delimited text, Parquet and JSON: typed as a person would, with the row in every error."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import lzma

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gipi.core.errors import DataError
from gipi.data.sources import read_source
from gipi.data.sources.table import read_table
from gipi.data.sources.values import MISSING, looks_like_date


@pytest.fixture
def read(tmp_path):
    def reader(content: str | bytes, name: str = "t.csv"):
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return read_source(path)

    return reader


def values(source, name):
    return [None if v is None or v != v else v for v in source.columns[name].tolist()]


def test_plain(read):
    source = read("a,b,c\n1,x,1.5\n2,y,2\n")
    assert {k: c.dtype.kind for k, c in source.columns.items()} == {"a": "i", "b": "O", "c": "f"}
    assert (source.name, source.rows, source.notes) == ("t", 2, ())
    assert values(source, "b") == ["x", "y"]


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbfa,b\r\n1,\xc3\xa9\r\n",
        "a,b\n1,é\n".encode("utf-16"),
        "a,b\n1,é\n".encode("latin-1"),
        "a;b\n1;é\n".encode(),
        "a\tb\n1\té\n".encode(),
        "a|b\n1|é\n".encode(),
        "a,b\r1,é\r".encode(),
        "a,b\r1,é\n".encode(),
        "# made by a machine\na,b\n1,é\n".encode(),
        'a,b\n 1 ," é "\n'.encode(),
    ],
)
def test_encodings_separators_and_spaces(read, content):
    source = read(content)
    assert list(source.columns) == ["a", "b"]
    assert source.columns["a"].tolist() == [1]
    assert source.columns["b"].tolist() == ["é"]


@pytest.mark.parametrize(
    ("name", "pack"),
    [("t.csv.gz", gzip.compress), ("t.csv.xz", lzma.compress), ("t.csv.bz2", bz2.compress)],
)
def test_compressed(read, name, pack):
    source = read(pack(b"a,b\n1,2\n"), name)
    assert source.columns["a"].tolist() == [1]
    assert source.name == "t"


def test_missing_marks_are_noted(read):
    source = read("a,b,c\n1,NA,?\n,y,2\nnull,z,3\n4,none,.\n")
    assert values(source, "a") == [1, None, None, 4]
    assert values(source, "b") == [None, "y", "z", "none"]
    assert values(source, "c") == [None, 2, 3, None]
    assert any("'b': 'NA' (1 rows) read as missing" in n for n in source.notes)


def test_codes_stay_text(read):
    source = read("zip,card,n\n02139,12345678901234567890,1\n10001,12345678901234567891,2\n")
    assert source.columns["zip"].tolist() == ["02139", "10001"]
    assert source.columns["card"].tolist() == ["12345678901234567890", "12345678901234567891"]
    assert source.columns["n"].dtype == np.int64


def test_whole_numbers_of_64_bits_are_exact(read):
    assert read("n\n9007199254740993\n-5\n").columns["n"].tolist() == [9007199254740993, -5]


def test_thousands_and_decimal_commas(read):
    assert read('a\n"1,234"\n5\n"1,234,567.5"\n').columns["a"].tolist() == [1234, 5, 1234567.5]
    assert read("a;b\n1,5;x\n-2;y\n").columns["a"].tolist() == [1.5, -2]


def test_a_late_word_makes_a_column_text_and_is_named(read):
    source = read("a\n" + "\n".join(map(str, range(99))) + "\noops\n")
    assert source.columns["a"].dtype == object
    assert "'oops' (row 100)" in source.notes[0]


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2020-02-13", "2020-02-13"),
        ("2020-02-13 10:11:12.5", "2020-02-13T10:11:12.5"),
        ("2020-02-13T10:11:12Z", "2020-02-13T10:11:12"),
        ("2020-02-13T10:11:12+02:00", "2020-02-13T08:11:12"),
        ("02/13/2020", "2020-02-13"),
        ("13/02/2020", "2020-02-13"),
        ("13.02.2020", "2020-02-13"),
        ("2020/02/13", "2020-02-13"),
        ("13 Feb 2020", "2020-02-13"),
        ("February 13, 2020", "2020-02-13"),
    ],
)
def test_dates(read, text, moment):
    column = read(f'd,n\n"{text}",1\n,2\n').columns["d"]
    assert column.dtype == "datetime64[us]"
    assert column[0] == np.datetime64(moment)
    assert np.isnat(column[1])


def test_a_date_with_two_readings_says_so(read):
    assert "could be day/month/year" in read("d\n01/02/2020\n03/04/2020\n").notes[0]


def test_impossible_dates_are_labels(read):
    assert read("d\n2020-13-45\n2020-01-01\n").columns["d"].dtype == object


def test_quotes_and_line_breaks(read):
    source = read('a,b\n1,"x, ""y""\nz"\n2,w\n')
    assert source.columns["b"].tolist() == ['x, "y"\nz', "w"]


def test_quotes_in_tab_separated_text_are_text_unless_they_close(read):
    assert read('a\tb\n1\t"x\n2\ty\n', "t.tsv").columns["b"].tolist() == ['"x', "y"]
    assert read('a\tb\n1\t"x y"\n2\ty\n', "t.tsv").columns["b"].tolist() == ["x y", "y"]


@pytest.mark.parametrize(
    ("content", "names"),
    [
        ("a,b\n1,x\n", ["a", "b"]),
        ("39, State-gov, 77\n50, Private, 83\n38, Private, 21\n", None),
        ("5.1,3.5,setosa\n4.9,3.0,setosa\n", None),
        ("p,x\ne,x\np,y\ne,y\np,x\n", None),
        ("name,city\nann,rome\nbob,oslo\n", ["name", "city"]),
        ("0,1,2,label\n5,6,7,cat\n5,6,7,dog\n", ["0", "1", "2", "label"]),
        ("2001-01-01,5\n2001-01-02,6\n", None),
        ("a,a,b\n1,2,3\n", ["a", "a.2", "b"]),
        (",a\n0,5\n1,6\n", ["column 1", "a"]),
        ("a,\n0,5\n1,6\n", ["a", "column 2"]),
    ],
)
def test_header_or_not(read, content, names):
    source = read(content)
    if names is None:
        assert next(iter(source.columns)) == "column 1"
        assert source.rows == content.count("\n")
        assert any("no header" in n for n in source.notes)
    else:
        assert list(source.columns) == names


def test_ragged_rows_are_named(read):
    with pytest.raises(
        DataError, match=r"row 2 has 3 values where 2 belong \(and 1 more such rows\)"
    ):
        read("a,b\n1,x\n2,y,z\n3,f\n4\n")


def test_ragged_rows_without_a_header_are_counted_from_one(read):
    with pytest.raises(DataError, match="row 3 has 1 values where 2 belong"):
        read("1,5\n2,6\n3\n")


@pytest.mark.parametrize(
    ("content", "name", "message"),
    [
        (b"", "t.csv", "is empty"),
        (b"\n \n", "t.csv", "is empty"),
        (b"a,b\n", "t.csv", "has no rows"),
        (b"a,b\n1,2\n", "t.csv.gz", "damaged"),
        (gzip.compress(b"a,b\n1,2\n" * 99)[:-9], "t.csv.gz", "damaged"),
        (bytes(range(256)), "t.csv", "binary"),
        (b"PAR1xx", "t.parquet", "Parquet"),
        (b'{"a":1}\n{"a":', "t.jsonl", "row 2 is not JSON"),
        (b'{"a":1}\n[1]', "t.jsonl", "row 2 is list"),
        (b"a", "t.docx", "unknown suffix"),
        (b"a", "t.zip", "archive"),
    ],
)
def test_unreadable_files(read, content, name, message):
    with pytest.raises(DataError, match=message) as caught:
        read(content, name)
    assert str(caught.value).count("\n") < 12


def test_thousands_of_columns(read):
    head = ",".join(f"c{i}" for i in range(3000))
    source = read(head + "\n" + ("1.5," * 2999 + "x\n") * 3)
    assert len(source.columns) == 3000
    assert source.columns["c2998"].tolist() == [1.5] * 3


def test_json_lines(read):
    source = read(
        '{"a":1,"n":{"z":1.5},"v":[1,2]}\n\n{"a":2,"n":{"z":null},"v":[3,4],"s":"x"}\n', "t.jsonl"
    )
    assert source.columns["a"].tolist() == [1, 2]
    assert values(source, "n.z") == [1.5, None]
    assert source.columns["v"].tolist() == [[1, 2], [3, 4]]
    assert source.columns["s"].tolist() == [None, "x"]
    assert read('[{"a": 1}, {"a": "x"}]', "t.json").columns["a"].tolist() == ["1", "x"]


def test_parquet_keeps_types(tmp_path):
    frame = pd.DataFrame({
        "i": [1, 2], "f": [1.5, None], "s": ["x", None], "b": [True, False],
        "c": pd.Categorical(["u", "v"]), "d": pd.to_datetime(["2020-01-01", None]),
        "n": pd.array([1, None], dtype="Int64"), "v": [[1.0, 2.0], [3.0, 4.0]],
    })  # fmt: skip
    frame.to_parquet(tmp_path / "t.parquet")
    source = read_source(tmp_path / "t.parquet")
    kinds = {k: c.dtype.kind for k, c in source.columns.items()}
    assert kinds == {"i": "i", "f": "f", "s": "O", "b": "b", "c": "O", "d": "M", "n": "f", "v": "f"}
    assert source.columns["v"].shape == (2, 2)
    assert values(source, "n") == [1, None]


def test_names_given_for_a_file_without_a_header(tmp_path):
    path = tmp_path / "t.data"
    path.write_text("1,2\n3,4\n")
    assert list(read_table(path, names=("x", "y")).columns) == ["x", "y"]
    with pytest.raises(DataError, match="has 2 columns"):
        read_table(path, names=("x",))


def test_fingerprint_follows_the_content(read):
    one, same, other = read("a\n1\n"), read("a\n1\n"), read("a\n2\n")
    assert one.fingerprint == same.fingerprint != other.fingerprint
    assert one.fingerprint_of == "contents"


def test_shapes_of_dates():
    assert all(map(looks_like_date, ("2020-01-02", "1.2.2020", "1-Feb-2020", "Jan 1, 2020")))
    assert not any(map(looks_like_date, ("", "7", "1.5", "a/b/c", "2020", "12-34")))


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.sampled_from(["a", "1", '"', ",", ";", "\t", "\n", "\r", "NA", "é", "{", "\0"]))
    | st.binary().map(lambda b: [b.decode("latin-1")]),
    st.sampled_from(["t.csv", "t.tsv", "t.jsonl", "t.json", "t.parquet", "t.npz", "t.csv.gz"]),
)
def test_anything_is_read_or_refused_in_three_parts(tmp_path_factory, pieces, name):
    path = tmp_path_factory.mktemp("any") / name
    path.write_bytes("".join(pieces).encode())
    try:
        source = read_source(path)
    except DataError as error:
        assert all(error.as_dict().values())  # noqa: PT017  some files are fine
    else:
        assert {len(c) for c in source.columns.values()} == {source.rows}


CELL = st.text(st.characters(codec="utf-8", exclude_categories=("Cs", "Cc")), max_size=8)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(CELL, CELL), min_size=1, max_size=12))
def test_any_text_survives_the_way_through_a_csv_file(tmp_path_factory, rows):
    """Written by the standard library and read here, labels are the stripped originals."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, quoting=csv.QUOTE_ALL, lineterminator="\n")
    writer.writerows([("first name", "second name"), *rows, ("a word", "other word")])
    path = tmp_path_factory.mktemp("csv") / "t.csv"
    path.write_text(buffer.getvalue(), encoding="utf-8", newline="")
    source = read_table(path)
    assert source.rows == len(rows) + 1
    for i, name in enumerate(("first name", "second name")):
        for found, row in zip(source.columns[name].tolist(), rows, strict=False):
            text = row[i].strip()
            assert found == (None if text in MISSING else text)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(10**15), 10**15),
                min_size=2, max_size=20))  # fmt: skip
def test_numbers_survive_bit_for_bit(tmp_path_factory, numbers):
    path = tmp_path_factory.mktemp("csv") / "t.csv"
    path.write_text("x\n" + "".join(f"{v!r}\n" for v in numbers))
    assert read_table(path).columns["x"].tolist() == numbers
