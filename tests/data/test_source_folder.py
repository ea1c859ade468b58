"""Folders of pictures: classes, given splits, and everything that is left out is said."""

from __future__ import annotations

import os

import numpy as np
import pytest
from PIL import Image

from gipi.core.errors import DataError, UnknownName
from gipi.data.source import TEST, TRAIN, VAL
from gipi.data.sources import read_source


def make(root, *names):
    for i, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (i, 0, 0)).save(path)
    return root


def test_classes_with_any_name(tmp_path):
    source = read_source(
        make(tmp_path / "사진", "고양이/1.png", "dog/b.JPG", "dog/a b.webp", "dog/x/2.gif")
    )
    assert source.name == "사진"
    assert source.columns["label"].tolist() == ["dog", "dog", "dog", "고양이"]
    assert list(source.row_names) == ["dog/a b.webp", "dog/b.JPG", "dog/x/2.gif", "고양이/1.png"]
    assert (source.target, source.task, source.given_split) == ("label", "classify", None)
    assert source.notes == ()


@pytest.mark.parametrize("val", ["val", "valid", "Validation"])
def test_given_split(tmp_path, val):
    names = ["train/a/1.png", "train/b/2.png", f"{val}/a/3.png", "test/b/4.png"]
    source = read_source(make(tmp_path, *names))
    found = dict(zip(source.row_names, source.given_split.tolist(), strict=True))
    assert found == dict(zip(names, [TRAIN, TRAIN, VAL, TEST], strict=True))
    assert sorted(source.columns["label"].tolist()) == ["a", "a", "b", "b"]


def test_a_class_called_test_is_no_split(tmp_path):
    source = read_source(make(tmp_path, "test/1.png", "control/2.png"))
    assert source.columns["label"].tolist() == ["control", "test"]
    assert source.given_split is None


def test_what_is_left_out_is_said(tmp_path):
    make(
        tmp_path, "a/1.png", "b/2.png", "loose.png", "a/.hidden.png", ".git/3.png", "__MACOSX/4.png"
    )
    (tmp_path / "a" / "notes.txt").write_text("x")
    (tmp_path / "empty").mkdir()
    source = read_source(tmp_path)
    assert source.rows == 2
    text = " | ".join(source.notes)
    assert "'empty' has no pictures" in text
    assert "1 pictures directly" in text
    assert "notes.txt" in text
    assert "hidden" not in text


def test_pictures_without_labels(tmp_path):
    make(tmp_path, "1.png", "2.png")
    source = read_source(tmp_path)
    assert list(source.columns) == ["image"]
    assert source.target is None
    one = read_source(tmp_path / "2.png")
    assert (one.rows, one.row_name(0)) == (1, "2.png")
    both = read_source([tmp_path / "2.png", str(tmp_path / "1.png")])
    assert list(both.row_names) == ["2.png", "1.png"]


@pytest.mark.skipif(os.name == "nt", reason="links need rights on Windows")
def test_links_are_followed_once(tmp_path):
    make(tmp_path / "real", "1.png")
    make(tmp_path / "set", "b/2.png")
    (tmp_path / "set" / "a").symlink_to(tmp_path / "real")
    (tmp_path / "set" / "b" / "loop").symlink_to(tmp_path / "set" / "b")
    source = read_source(tmp_path / "set")
    assert list(source.row_names) == ["a/1.png", "b/2.png"]


def test_fingerprint_follows_files(tmp_path):
    one = read_source(make(tmp_path, "a/1.png", "b/2.png")).fingerprint
    assert read_source(tmp_path).fingerprint == one
    os.utime(tmp_path / "a" / "1.png", (1, 1))
    assert read_source(tmp_path).fingerprint == one  # of contents: a copy is the same data
    pixels = bytearray((tmp_path / "a" / "1.png").read_bytes())
    pixels[-20] ^= 1
    (tmp_path / "a" / "1.png").write_bytes(pixels)
    os.utime(tmp_path / "a" / "1.png", (1, 1))
    assert read_source(tmp_path).fingerprint != one


def test_fingerprint_of_many_files_is_of_their_times(tmp_path, monkeypatch):
    monkeypatch.setattr("gipi.data.sources.compressed.QUICK_FILES", 1)
    source = read_source(make(tmp_path, "a/1.png", "b/2.png"))
    assert source.fingerprint_of == "paths, sizes and times"
    os.utime(tmp_path / "a" / "1.png", (1, 1))
    assert read_source(tmp_path).fingerprint != source.fingerprint


def test_a_table_of_picture_paths(tmp_path):
    make(tmp_path, "p/1.png", "p/2.png")
    table = tmp_path / "t.csv"
    table.write_text("file,label\np/1.png,a\np/2.png,b\n")
    source = read_source(table)
    assert [p.name for p in source.columns["file"].paths] == ["1.png", "2.png"]
    assert source.schema_hints == {"file": "image"}
    Image.new("RGB", (8, 8), (77, 0, 0)).save(tmp_path / "p/2.png")  # caches go by it
    assert read_source(table).fingerprint != source.fingerprint
    table.write_text("file,label\np/1.png,a\np/3.png,b\n")
    with pytest.raises(DataError, match=r"row 2: the picture 'p/3.png' does not exist"):
        read_source(table)


def test_empty_folder(tmp_path):
    with pytest.raises(DataError, match="has no pictures"):
        read_source(tmp_path)


def test_a_folder_of_tables_names_them(tmp_path):
    (tmp_path / "t.csv").write_text("a\n1\n")
    with pytest.raises(DataError, match=r"name one of its tables: t\.csv"):
        read_source(tmp_path)


def test_a_note_in_an_empty_folder_is_no_table(tmp_path):
    (tmp_path / "readme.txt").write_text("where the pictures went\n")
    with pytest.raises(DataError, match=r"no pictures") as caught:
        read_source(tmp_path)
    assert "readme.txt" not in caught.value.do


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="rights do not bind here")
def test_no_permission(tmp_path):
    tmp_path.chmod(0)
    try:
        with pytest.raises(DataError, match="cannot be read"):
            read_source(tmp_path)
    finally:
        tmp_path.chmod(0o700)


def test_wrong_paths(tmp_path):
    make(tmp_path, "photos/a/1.png")
    with pytest.raises(DataError, match="did you mean 'photos'"):
        read_source(str(tmp_path / "photo"))
    with pytest.raises(UnknownName, match="did you mean 'digits'"):
        read_source("digit")
    with pytest.raises(DataError, match="not all picture files"):
        read_source(["a.png", "b.csv"])
    with pytest.raises(DataError, match="does not exist"):
        read_source([tmp_path / "no.png"])
    with pytest.raises(DataError, match="NoneType"):
        read_source(None)


def test_target_must_exist(tmp_path):
    make(tmp_path, "a/1.png", "b/2.png")
    assert read_source(tmp_path, target="label").task == "classify"
    with pytest.raises(DataError, match="did you mean 'label'"):
        read_source(tmp_path, target="labels")


def test_another_target_than_the_known_one_has_no_known_task():
    source = read_source("iris", target="petal width (cm)")
    assert source.task is None
    assert np.issubdtype(source.columns["petal width (cm)"].dtype, np.floating)
