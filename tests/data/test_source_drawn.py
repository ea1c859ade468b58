"""Layouts of annotated pictures: where pictures and annotations lie, and what is said."""

from __future__ import annotations

import json
import zipfile

import numpy as np
import pytest
from tests.data import drawn

from gipi.core.errors import DataError
from gipi.data.source import TEST, TRAIN, VAL
from gipi.data.sources import read_source
from gipi.data.sources.coco import mirrored
from gipi.data.sources.unpack import unpacked

ROWS = drawn.squares(6)


def masks_at(root, *places):
    for place, (picture, mask, _) in zip(places, ROWS, strict=False):
        drawn.write(root / place[0], picture)
        drawn.write(root / place[1], mask)
    return root


@pytest.mark.parametrize(
    "places",
    [
        [("images/a.png", "masks/a.png"), ("images/b.jpg", "masks/b.png")],
        [("img/a.png", "labels/a_mask.png"), ("img/x/b.png", "labels/x/b_mask.png")],
        [("JPEGImages/a.jpg", "annotations/a.png"), ("JPEGImages/b.jpg", "annotations/b.png")],
    ],
)
def test_mask_folders(tmp_path, places):
    source = read_source(masks_at(tmp_path / "set", *places))
    assert (source.rows, source.task, source.target) == (2, "segment", "mask")
    assert source.columns["mask"].kind == "mask"
    assert all(item is not None for item in source.columns["mask"].items)
    assert source.given_split is None
    assert source.fingerprint_of == "contents"


@pytest.mark.parametrize(
    "form",
    [
        "{part}/images/{i}.png {part}/masks/{i}.png",
        "images/{part}/{i}.png masks/{part}/{i}.png",
        "{part}/{i}.png {part}annot/{i}.png",
        "{part}/{i}.png {part}_labels/{i}_L.png",
    ],
)
def test_mask_folders_with_parts(tmp_path, form):
    places = [
        form.format(part=part, i=i).split()
        for i, part in enumerate(["train", "train", "val", "test"])
    ]
    source = read_source(masks_at(tmp_path / "set", *places))
    assert sorted(source.given_split.tolist()) == [TRAIN, TRAIN, VAL, TEST]
    assert all(item is not None for item in source.columns["mask"].items)


def test_mask_folders_with_lists(tmp_path):
    root = drawn.mask_folder(tmp_path / "set", ROWS)
    (root / "train.txt").write_text("images/00.png masks/00.png\n01\n02.png\n")
    (root / "val.txt").write_text("03\n")
    source = read_source(root)
    assert source.given_split.tolist() == [TRAIN] * 3 + [VAL]
    assert any("2 pictures are in no list" in n for n in source.notes)


def test_masks_without_pictures_are_said(tmp_path):
    root = drawn.mask_folder(tmp_path / "set", ROWS)
    (root / "images" / "02.png").unlink()
    assert any("1 mask without a picture in masks: 02" in n for n in read_source(root).notes)


def test_a_changed_mask_changes_the_fingerprint(tmp_path):
    root = drawn.mask_folder(tmp_path / "set", ROWS)
    one = read_source(root).fingerprint
    assert read_source(root).fingerprint == one
    drawn.write(root / "masks" / "02.png", ROWS[3][1])
    assert read_source(root).fingerprint != one


def test_voc(tmp_path):
    root = drawn.voc_folder(tmp_path / "parent" / "VOC2007", ROWS)
    source = read_source(tmp_path / "parent")  # the only folder inside
    assert (source.rows, source.task) == (6, "detect")
    boxes = source.columns["boxes"]
    assert boxes.classes == ("blue", "green", "red")
    assert boxes.items[0][:, :4].tolist() == [list(b[:4]) for b in ROWS[0][2]]
    (root / "JPEGImages" / "05.png").unlink()
    with pytest.raises(DataError, match="1 listed picture is not in .*: 05"):
        read_source(root)


@pytest.mark.parametrize("places", [("annotations", "images"), ("xmls", "imgs"), (".", ".")])
def test_voc_in_folders_of_other_names(tmp_path, places):
    root = drawn.voc_folder(tmp_path / "set", ROWS, lists=False)
    wanted = read_source(root)
    other = tmp_path / "other"
    for old, new in zip(("Annotations", "JPEGImages"), places, strict=True):
        (other / new).mkdir(parents=True, exist_ok=True)
        for path in (root / old).iterdir():
            path.rename(other / new / path.name)
    source = read_source(other)
    assert (source.rows, source.task) == (6, "detect")
    found, known = source.columns["boxes"], wanted.columns["boxes"]
    assert all((a == b).all() for a, b in zip(found.items, known.items, strict=True))
    assert found.names[2] == ("02.xml" if places[0] == "." else f"{places[0]}/02.xml")
    (other / places[0] / "02.xml").write_text("<svg></svg>")
    unreadable = read_source(other).columns["boxes"].facts["unreadable"]
    assert "its root is <svg>, not <annotation>" in unreadable[2]


def test_xml_that_is_no_annotation_beside_pictures(tmp_path):
    for i, (picture, _, _) in enumerate(ROWS):
        drawn.write(tmp_path / f"{i}.png", picture)
    (tmp_path / "notes.xml").write_text("<annotation/>")
    assert read_source(tmp_path).task is None
    (tmp_path / "0.xml").write_text("<svg/>")
    assert read_source(tmp_path).task is None


def test_voc_pictures_of_one_name_are_said(tmp_path):
    root = drawn.voc_folder(tmp_path / "set", ROWS)
    drawn.write(root / "JPEGImages" / "02.bmp", ROWS[3][0])
    source = read_source(root)
    assert source.columns["image"].paths[2].name == "02.png"
    assert any("1 picture beside another one of the same name left out, such as 02.bmp beside "
               "02.png" in note for note in source.notes)  # fmt: skip


def test_voc_objects_that_are_difficult_are_crowds(tmp_path):
    root = drawn.voc_folder(tmp_path / "set", ROWS)
    path = root / "Annotations" / "00.xml"
    path.write_text(path.read_text().replace("<difficult>0", "<difficult>1"))
    assert read_source(root).columns["boxes"].items[0][:, 5].tolist() == [1]


def test_entities_are_not_expanded(tmp_path):
    root = drawn.voc_folder(tmp_path / "set", ROWS)
    (root / "Annotations" / "00.xml").write_text(
        '<!DOCTYPE a [<!ENTITY b "cccc">]><annotation>&b;</annotation>'
    )
    reasons = read_source(root).columns["boxes"].facts["unreadable"]
    assert "it declares entities" in reasons[0]


def test_voc_masks(tmp_path):
    root = tmp_path / "set"
    for i, (picture, mask, _) in enumerate(ROWS):
        drawn.write(root / "JPEGImages" / f"{i}.jpg", picture)
        drawn.write(root / "SegmentationClass" / f"{i}.png", mask)
    lists = root / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("0\n1\n2\n")
    (lists / "val.txt").write_text("3\n4\n")
    source = read_source(root, task="segment")
    assert source.columns["mask"].classes[1] == "aeroplane"
    assert source.given_split.tolist() == [TRAIN] * 3 + [VAL] * 2


def test_coco_parts(tmp_path):
    for part, rows in (("train2017", ROWS[:4]), ("val2017", ROWS[4:])):
        for i, (picture, _, _) in enumerate(rows):
            drawn.write(tmp_path / part / f"{i:02d}.png", picture)
        (tmp_path / "annotations").mkdir(exist_ok=True)
        (tmp_path / "annotations" / f"instances_{part}.json").write_text(
            json.dumps(drawn.coco_json(rows))
        )
    source = read_source(tmp_path)
    assert source.given_split.tolist() == [TRAIN] * 4 + [VAL] * 2
    assert source.columns["boxes"].classes == drawn.NAMES
    assert source.columns["image"].name(4) == "val2017/00.png"
    one = read_source(tmp_path / "annotations" / "instances_train2017.json")
    assert one.rows == 4


def test_coco_pictures_of_nothing_are_rows(tmp_path):
    data = drawn.coco_json(ROWS)
    data["annotations"] = [a for a in data["annotations"] if a["image_id"] != 2]
    root = drawn.coco_folder(tmp_path / "set", ROWS)
    (root / "annotations.json").write_text(json.dumps(data))
    source = read_source(root)
    assert source.columns["boxes"].items[2].shape == (0, 6)
    (root / "images" / "04.png").unlink()
    with pytest.raises(DataError, match=r"1 picture is not there: annotations\.json: 04\.png"):
        read_source(root)


@pytest.mark.parametrize("text", ['{"images": 3}', '{"images": [1]}', '{"images": [}'])
def test_coco_files_that_are_none(tmp_path, text):
    (tmp_path / "annotations.json").write_text(text)
    with pytest.raises(DataError):
        read_source(tmp_path)


@pytest.mark.parametrize("names", [["a", "a", "b"], ["a"]])
def test_coco_points_that_names_do_not_tell_apart_are_numbered(tmp_path, names):
    data = drawn.coco_json(ROWS, points=True)
    for category in data["categories"]:
        category["keypoints"] = names
    root = drawn.coco_folder(tmp_path / "set", ROWS)
    (root / "annotations.json").write_text(json.dumps(data))
    assert read_source(root).columns["keypoints"].classes == ("point 0", "point 1", "point 2")


def test_names_that_no_file_can_have(tmp_path):
    data = drawn.coco_json(ROWS)
    data["images"][1]["file_name"] = "a" * 5000 + ".png"
    root = drawn.coco_folder(tmp_path / "set", ROWS)
    (root / "annotations.json").write_text(json.dumps(data))
    with pytest.raises(DataError, match="1 picture is not there: annotations.json: aaaa"):
        read_source(root)
    path = drawn.points_table(tmp_path / "table", ROWS)
    path.write_text(path.read_text().replace("faces/02.png", "a" * 5000 + ".png"))
    with pytest.raises(DataError, match="row 3: the picture 'aaaa.*' does not exist"):
        read_source(path)
    path.write_text(path.read_text().replace("faces/00.png", "b" * 5000 + ".png"))
    with pytest.raises(DataError, match="row 1: the picture 'bbbb.*' does not exist"):
        read_source(path)


def test_coco_pictures_of_one_id_are_refused(tmp_path):
    """Each of them would get the annotations of both."""
    data = drawn.coco_json(ROWS)
    data["images"][1]["id"] = 0
    root = drawn.coco_folder(tmp_path / "set", ROWS)
    (root / "annotations.json").write_text(json.dumps(data))
    with pytest.raises(DataError, match=r"two images have the id 0, the second is '01\.png'"):
        read_source(root)


@pytest.mark.parametrize("make", [drawn.mask_folder, drawn.voc_folder])
def test_lists_that_are_no_utf8_are_named(tmp_path, make):
    root = make(tmp_path / "set", ROWS)
    path = root / "train.txt" if make is drawn.mask_folder else root / "ImageSets/Main/train.txt"
    path.write_bytes(b"00\n\xff\xe9\n")
    with pytest.raises(DataError, match=r"train\.txt: byte 0xFF at position 3 \(line 2\)"):
        read_source(root)


def test_tables_whose_pictures_are_all_gone(tmp_path):
    path = drawn.points_table(tmp_path, ROWS)
    (tmp_path / "faces").rename(tmp_path / "elsewhere")
    with pytest.raises(DataError, match=r"points\.csv row 1: the picture 'faces/00\.png' does not"):
        read_source(path)
    assert read_source(path, task="regress").task is None
    (tmp_path / "t.csv").write_text("image,label\n" + "a.png,x\nb.png,y\n" * 9)
    with pytest.raises(DataError, match=r"t\.csv row 1: the picture 'a\.png' does not exist"):
        read_source(tmp_path / "t.csv")
    (tmp_path / "t.csv").write_text("image,size,label\n" + "a.png,3,x\nb.png,4,y\n" * 9)
    notes = read_source(tmp_path / "t.csv").notes
    assert any("column 'image' names pictures ('a.png'), but none of them" in n for n in notes)


def test_keypoints_by_the_names_of_points(tmp_path):
    lines = ["file,left_eye_x,left_eye_y,left_eye_v,right_eye_x,right_eye_y,right_eye_v"]
    for i, (picture, _, _) in enumerate(ROWS):
        drawn.write(tmp_path / f"{i}.png", picture)
        lines.append(f"{i}.png,1,2,2,3,4,{i % 3}")
    (tmp_path / "t.csv").write_text("\n".join(lines))
    points = read_source(tmp_path / "t.csv").columns["keypoints"]
    assert points.classes == ("left_eye", "right_eye")
    assert points.facts["flip"] == [[0, 1]]
    assert [item[1, 2] for item in points.items] == [0, 1, 2, 0, 1, 2]
    assert mirrored(("a", "b")) == []


def test_a_folder_with_one_table_of_keypoints_is_that_table(tmp_path):
    lines = ["image,x0,y0,x1,y1"]
    for i, (picture, _, _) in enumerate(ROWS):
        drawn.write(tmp_path / "faces" / f"{i}.png", picture)
        lines.append(f"{i}.png,1,2,3,4")
    table = tmp_path / "faces" / "points.csv"
    table.write_text("\n".join(lines))
    found = read_source(tmp_path / "faces")
    assert (found.task, found.target, found.rows) == ("pose", "keypoints", len(ROWS))
    assert found.row_name(1) == "1.png"
    assert read_source(tmp_path / "faces", task="classify").target is None
    (tmp_path / "faces" / "more.csv").write_text("\n".join(lines))
    assert read_source(tmp_path / "faces").target is None  # which of them is not said
    (tmp_path / "faces" / "more.csv").unlink()
    table.write_text("image,x0,y0,x1\n0.png,1,2,3\n")
    assert read_source(tmp_path / "faces").target is None  # half a point
    table.write_text("\n".join(lines))
    for name in ("cat", "dog"):
        drawn.write(tmp_path / "faces" / name / "a.png", ROWS[0][0])
    assert read_source(tmp_path / "faces").task != "pose"  # pictures in folders of classes


def test_a_table_of_pictures_and_numbers_stays_a_table(tmp_path):
    lines = ["file,x,y,price"]
    for i, (picture, _, _) in enumerate(ROWS):
        drawn.write(tmp_path / f"{i}.png", picture)
        lines.append(f"{i}.png,1,2,{i}.5")
    (tmp_path / "t.csv").write_text("\n".join(lines))
    assert list(read_source(tmp_path / "t.csv").columns) == ["file", "x", "y", "price"]


def test_zips_are_unpacked_once(tmp_path, monkeypatch):
    monkeypatch.setenv("GIPI_CACHE", str(tmp_path / "cache"))
    root = drawn.mask_folder(tmp_path / "set", ROWS)
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as packed:
        for path in sorted(root.rglob("*")):
            packed.write(path, path.relative_to(root).as_posix())
    folder = unpacked(tmp_path / "set.zip")
    assert read_source(folder).fingerprint == read_source(root).fingerprint
    assert unpacked(tmp_path / "set.zip") == folder
    assert [p.name for p in folder.parent.iterdir()] == [folder.name]


def test_zips_that_are_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("GIPI_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "a.zip"
    path.write_bytes(b"PK\x03\x04 nothing")
    with pytest.raises(DataError, match="is damaged or no zip"):
        unpacked(path)
    with zipfile.ZipFile(path, "w") as packed:
        packed.writestr("../out.txt", "x")
    with pytest.raises(DataError, match="leads out of its folder"):
        unpacked(path)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("big", np.zeros(300 << 20, np.uint8).tobytes())
    with pytest.raises(DataError, match="would become 0.3 GB"):
        unpacked(path)
    assert not (tmp_path / "out.txt").exists()


# ------------------------------------------------------------------ the real files


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "task", "split", "classes"),
    [
        ("bccd", "detect", [205, 87, 72], 3),
        ("camvid", "segment", [92, 26, 47], 11),
        ("face-keypoints", "pose", [800, 0, 200], 68),
        ("hymenoptera", "classify", [244, 153], 2),
    ],
)
def test_named_sets(data_folder, name, task, split, classes):
    source = read_source(name)
    assert (source.name, source.task) == (name, task)
    assert np.bincount(source.given_split).tolist() == split
    target = source.columns[source.target]
    if name == "hymenoptera":
        assert sorted(set(target.tolist())) == ["ants", "bees"]
    else:
        assert len(target.classes) == classes
    if name == "bccd":
        counts = np.zeros(3, dtype=int)
        for item in target.items:
            counts += np.bincount(item[:, 4].astype(int), minlength=3)
        assert dict(zip(target.classes, counts.tolist(), strict=True)) == {
            "Platelets": 361, "RBC": 4155, "WBC": 372,
        }  # fmt: skip
    if name == "face-keypoints":
        faces = np.stack(target.items)
        assert faces[..., 2].min() == 2
        mirrored_pairs = dict(map(tuple, target.facts["flip"]))
        left, right = faces[:, list(mirrored_pairs), 0], faces[:, list(mirrored_pairs.values()), 0]
        assert ((left < right).mean(0) > 0.7).all()  # the first is on the picture's left


def test_sets_that_cannot_be_fetched_say_where_they_are(monkeypatch, tmp_path):
    monkeypatch.delenv("GIPI_DATA", raising=False)
    monkeypatch.setenv("GIPI_CACHE", str(tmp_path))
    with pytest.raises(DataError, match="is not downloaded") as error:
        read_source("bccd")
    assert "https://github.com/Shenggan/BCCD_Dataset" in error.value.needed
    assert "GIPI_DATA" in error.value.do
