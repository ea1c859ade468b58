"""Texts in files: folders, encodings, and the named sets, real ones where they are at hand."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
from tests.data.texts import reviews, write_folder, write_rows

from gipi.core.errors import DataError
from gipi.data import open_data
from gipi.data.source import TEST, TRAIN
from gipi.data.sources import SOURCES, korean, read_source
from gipi.data.sources.encoding import as_utf8

if TYPE_CHECKING:
    from pathlib import Path

KOREAN = "영화가 정말 재미있어요\n배우들의 연기가 너무 아쉬웠다\n"
JAPANESE = "とても面白い映画でした。\nもう一度見たいと思います。\n"
CHINESE = "这部电影非常好看,演员的表演也很出色。\n我还想再看一次。\n"
FRENCH = "le café était fermé à midi\nun garçon très gentil\n"


# ------------------------------------------------------------------ folders


def test_a_folder_of_classes(tmp_path: Path) -> None:
    source = read_source(str(write_folder(tmp_path / "texts", 10)))
    assert (source.rows, source.target, source.task) == (10, "label", "classify")
    assert source.task_reason == "one folder per class"
    assert source.row_name(0) == "bad/000.txt"
    assert source.columns["text"][0] == reviews(10)[0][0]
    found = open_data(str(write_folder(tmp_path / "more", 40)))
    assert found.schema.field("text").reason == "a text file a row"
    assert found.schema.classes == ("bad", "good")


def test_a_folder_of_parts_with_texts_of_no_class(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "texts", 40, parts=("train", "test"))
    extra = root / "train" / "unsup"
    extra.mkdir()
    (extra / "1.txt").write_text("nobody knows")
    (root / "train" / "loose.txt").write_text("of no class")
    source = read_source(str(root))
    assert source.given_split is not None
    assert np.bincount(source.given_split).tolist() == [20, 0, 20]
    assert any("'train/unsup' has 1 texts of no class" in n for n in source.notes)
    assert any("1 texts directly in 'train' belong to no class" in n for n in source.notes)


def test_loose_texts_are_rows_without_labels(tmp_path: Path) -> None:
    for k in range(3):
        (tmp_path / f"{k}.txt").write_text(f"text number {k}")
    source = read_source(str(tmp_path))
    assert list(source.columns) == ["text"]
    assert source.target is None


def test_a_folder_without_texts_and_pictures_says_so(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(DataError, match="has no pictures"):
        read_source(str(tmp_path))
    (tmp_path / "a" / "1.txt").write_text("  \n")
    with pytest.raises(DataError, match="every text in .* is empty"):
        read_source(str(tmp_path))


def test_a_file_in_another_encoding_is_named(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "texts", 6)
    (root / "bad" / "000.txt").write_bytes(KOREAN.encode("cp949"))
    source = read_source(str(root))
    assert source.columns["text"][0] == KOREAN.strip()
    assert source.notes == ("000.txt: not UTF-8: read as CP949 (Korean)",)
    (root / "bad" / "000.txt").write_bytes(KOREAN.encode() + b"\xff\n")
    with pytest.raises(DataError, match=r"000\.txt: byte 77 \(line 3\) is no UTF-8 \(0xff\)"):
        read_source(str(root))
    (root / "bad" / "000.txt").write_bytes(b"plain text " * 20 + b"\0")
    with pytest.raises(DataError, match=r"000\.txt: byte 221 \(line 1\) is a null byte"):
        read_source(str(root))


# ------------------------------------------------------------------ encodings


@pytest.mark.parametrize(
    ("text", "encoding", "said"),
    [
        (KOREAN, "utf-8", ""),
        (KOREAN, "utf-8-sig", ""),
        (KOREAN, "utf-16", "UTF-16"),
        (KOREAN, "cp949", "CP949"),
        (JAPANESE, "cp932", "Shift-JIS"),
        (CHINESE, "gb18030", "GB18030"),
        (FRENCH, "latin-1", "Latin-1"),
    ],
)
def test_encodings_are_told_apart(tmp_path: Path, text: str, encoding: str, said: str) -> None:
    notes: list[str] = []
    found = as_utf8(text.encode(encoding), tmp_path / "x.txt", notes)
    assert found.decode() == text
    assert (said in notes[0]) if said else not notes


def test_a_table_with_one_damaged_byte_names_the_line(tmp_path: Path) -> None:
    rows: list[list[object]] = [[line, "good"] for line in KOREAN.split("\n") * 10 if line]
    path = write_rows(tmp_path / "a.csv", rows, ("text", "label"))
    data = path.read_bytes()
    at = data.index("연기".encode(), 200)
    path.write_bytes(data[:at] + b"\xc0" + data[at + 1 :])
    line = data.count(b"\n", 0, at) + 1
    with pytest.raises(DataError, match=rf"byte {at + 1:,} \(line {line}\) is no UTF-8 \(0xc0\)"):
        read_source(str(path))


def test_a_null_byte_in_a_table_names_the_line(tmp_path: Path) -> None:
    path = write_rows(tmp_path / "a.csv", [list(r) for r in reviews(30)], ("text", "label"))
    lines = path.read_bytes().split(b"\n")
    lines[7] = lines[7].replace(b"the", b"t\0e", 1) if b"the" in lines[7] else b"\0" + lines[7]
    path.write_bytes(b"\n".join(lines))
    with pytest.raises(DataError, match=r"a\.csv: byte [\d,]+ \(line 8\) is a null byte"):
        read_source(str(path))


# ------------------------------------------------------------------ named sets


def nsmc(root: Path, train: str = "ratings_train.txt") -> Path:
    root.mkdir(parents=True, exist_ok=True)
    head = "id\tdocument\tlabel\n"
    (root / train).write_text(head + '1\t"최고 NA\t1\n2\tNA\t0\n3\t?\t1\n', encoding="utf-8")
    (root / "ratings_test.txt").write_text(head + "4\t\t0\n5\t별로\t0\n", encoding="utf-8")
    return root


def test_reviews_are_read_as_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nsmc(tmp_path / "nsmc")
    monkeypatch.setenv("GIPI_DATA", str(tmp_path))
    source = read_source("nsmc")
    assert source.columns["document"].tolist() == ['"최고 NA', "NA", "?", None, "별로"]
    assert source.columns["label"].tolist() == [
        "positive", "negative", "positive", "negative", "negative"
    ]  # fmt: skip
    assert source.given_split is not None
    assert source.given_split.tolist() == [TRAIN] * 3 + [TEST] * 2
    assert source.row_name(4) == "ratings_test.txt row 2"
    assert (source.target, source.classes["label"]) == ("label", ("negative", "positive"))
    assert source.citation
    assert source.licence == "CC0 1.0"
    assert not source.notes
    drawn = korean.read_nsmc(nsmc(tmp_path / "other", "ratings_train_resampled.txt"))
    assert "not the published ones" in drawn.notes[0]


def test_a_broken_review_is_named(tmp_path: Path) -> None:
    root = nsmc(tmp_path)
    with (root / "ratings_test.txt").open("a", encoding="utf-8") as file:
        file.write("6\tno label\n")
    with pytest.raises(DataError, match=r"ratings_test\.txt row 3: '6 \| no label'"):
        korean.read_nsmc(root)


def test_pairs_of_klue(tmp_path: Path) -> None:
    labels = ("neutral", "entailment", "contradiction")
    rows = [
        {"premise": f"p {i}", "hypothesis": "h", "author": "neutral", "gold_label": labels[i % 3]}
        for i in range(6)
    ]
    (tmp_path / "klue-nli-v1.1_dev.json").write_text(json.dumps(rows))
    source = korean.read_klue_nli(tmp_path)
    assert list(source.columns) == ["premise", "hypothesis", "label"]
    assert source.classes["label"] == ("entailment", "neutral", "contradiction")
    assert source.given_split is None
    (tmp_path / "klue-nli-v1.1_train.json").write_text(json.dumps(rows))
    both = korean.read_klue_nli(tmp_path)
    assert both.given_split is not None
    assert both.given_split.tolist() == [TRAIN] * 6 + [TEST] * 6
    pairs = [{"sentence1": "a b", "sentence2": "c", "labels": {"real-label": 4.5, "label": 4.5}}]
    (tmp_path / "klue-sts-v1.1_dev.json").write_text(json.dumps(pairs * 3))
    found = korean.read_klue_sts(tmp_path)
    assert list(found.columns) == ["sentence1", "sentence2", "similarity"]
    assert (found.task, found.columns["similarity"].tolist()) == ("regress", [4.5] * 3)


def test_sets_of_texts_are_listed_as_such() -> None:
    for name, task in (("nsmc", "classify"), ("klue-nli", "classify"), ("klue-sts", "regress")):
        assert SOURCES.get(name).tags == ("text", task)


@pytest.mark.data
def test_the_real_sets(data_folder: Path) -> None:
    found = read_source("nsmc")
    assert found.given_split is not None
    test = found.given_split == TEST
    assert int(test.sum()) == 50_000
    assert sum(v is None for v in found.columns["document"][test].tolist()) == 3
    labels = found.columns["label"][test].tolist()
    assert labels.count("negative") == 24_827
    assert read_source("klue-nli").rows == 3_000
    assert read_source("klue-sts").rows == 519
