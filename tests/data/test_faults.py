"""Rows that cannot be used: named with their reason, refused or left out, in every stream mode."""

from __future__ import annotations

import contextlib
import json

import numpy as np
import pytest
from PIL import Image
from tests.data import drawn

from gipi.core.errors import ConfigError, DataError
from gipi.data import DataOptions, audit, open_data, read_rows
from gipi.data.decode import Decoder, decode, header
from gipi.data.masks import read_mask

MODES = ["resident", "mapped", "streaming"]
SKIP = DataOptions(bad_rows="skip")


def change_xml(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def refused(where, match, **options):
    with pytest.raises(DataError, match=match) as error:
        open_data(where, DataOptions(**options))
    assert "bad_rows=skip" in error.value.do
    return error.value


@pytest.mark.parametrize("mode", MODES)
def test_corrupt_pictures(tmp_path, mode):
    root = drawn.voc_folder(tmp_path / "set")
    (root / "JPEGImages" / "01.png").write_bytes(b"")
    path = root / "JPEGImages" / "05.jpg"
    Image.open(path.with_suffix(".png")).save(path)
    path.with_suffix(".png").unlink()
    path.write_bytes(path.read_bytes()[:-200])  # its header is whole: only decoding finds it
    error = refused(root, r"1 row of 12 in set cannot be used: JPEGImages/01\.png", mode=mode)
    assert "01.png: the picture cannot be decoded (the file is empty)" in error.found
    data = open_data(root, DataOptions(bad_rows="skip", mode=mode))
    kept = sorted(int(i) for ids in data.splits.values() for i in ids)
    assert kept == [0, 2, 3, 4, 6, 7, 8, 9, 10, 11]
    assert sum("left out (bad_rows=skip)" in note for note in data.notes) == 2
    assert any("05.jpg: the picture cannot be decoded" in note for note in data.notes)
    stream = data.stream("train", batch_size=2)
    assert sum(len(b) for b in stream.epoch(0)) == 6
    stream.close()
    again = open_data(root, DataOptions(bad_rows="skip", mode=mode))
    assert again.notes == data.notes


@pytest.mark.parametrize("mode", MODES)
def test_corrupt_pictures_with_a_label_each(tmp_path, mode):
    for i, (picture, _, _) in enumerate(drawn.squares(24)):
        drawn.write(tmp_path / "set" / "ab"[i % 2] / f"{i:02d}.png", picture)
    (tmp_path / "set" / "a" / "04.png").write_bytes(b"\x89PNG\r\n\x1a\n no picture")
    refused(tmp_path / "set", r"a/04\.png: the picture cannot be decoded", mode=mode)
    data = open_data(tmp_path / "set", DataOptions(bad_rows="skip", mode=mode))
    assert sum(len(ids) for ids in data.splits.values()) == 23
    assert data.row_names([2]) == ["a/04.png"]
    assert all(2 not in ids for ids in data.splits.values())


def test_the_picture_of_a_tables_row_is_named(tmp_path):
    path = drawn.points_table(tmp_path)
    (tmp_path / "faces" / "05.png").write_bytes(b"x")
    for task in ("pose", "regress"):
        refused(path, r"row 6 \(faces/05\.png\): the picture cannot be decoded", task=task)
    assert any("row 6 (faces/05.png): the" in f.message for f in audit(path).findings)


def test_pictures_in_memory_with_values_that_are_no_numbers():
    rng = np.random.RandomState(0)
    images = rng.rand(40, 8, 8).astype(np.float32)
    images[3, 2, 2], images[5, 0, 0] = np.nan, np.inf
    data = {"image": images, "y": np.arange(40) % 2}
    refused(data, r"2 rows of 40 .*: row 4: its picture has a value that is no number; row 6: ")
    kept = open_data(data, SKIP)
    assert sum(len(ids) for ids in kept.splits.values()) == 38
    assert np.isfinite(kept.schema.inputs[0].stats["mean"]).all()
    with pytest.raises(DataError, match="row 4: its picture"):
        read_rows(data, kept.schema)


def test_a_decompression_bomb(tmp_path, monkeypatch):
    root = drawn.voc_folder(tmp_path / "set")
    Image.new("L", (400, 400)).save(root / "JPEGImages" / "02.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 4000)
    refused(root, r"02\.png: the picture cannot be decoded .*decompression bomb")
    found = audit(root)
    assert any(f.code == "broken" and "02.png" in f.message for f in found.findings)


@pytest.mark.parametrize("mode", ["CMYK", "LA", "1", "P", "I;16"])
def test_pictures_of_any_mode_are_read(tmp_path, mode):
    root = drawn.voc_folder(tmp_path / "set")
    path = root / "JPEGImages" / "03.png"
    image = Image.open(path).convert("L" if mode == "I;16" else mode)
    if mode == "I;16":
        image = Image.fromarray(np.asarray(image).astype(np.uint16) * 257)
    if mode == "CMYK":
        path.unlink()
        path = path.with_suffix(".jpg")
    image.save(path)
    assert open_data(root).columns.inputs["image"].shape[0] == 3


@pytest.mark.parametrize(
    ("old", "new", "match", "code"),
    [
        ("<xmin>", "<xmin>9", r"box 1 in Annotations/04\.xml .* is inverted", "inverted"),
        ("<xmin>", "<xmin>-9", "lies outside the picture of 60x40", "outside"),
        ("<xmax>", "<xmax>9", "lies outside the picture", "outside"),
        ("<ymin>", "<ymin>nan</ymin><ymin>", "a side that is no number", "unusable-row"),
        ("<width>60", "<width>80", "is for 80x40 pixels, the picture has 60x40", "size"),
        ("</object>", "", r"04\.xml cannot be read", "unusable-row"),
    ],
)  # fmt: skip
def test_boxes(tmp_path, old, new, match, code):
    root = drawn.voc_folder(tmp_path / "set")
    change_xml(root / "Annotations" / "04.xml", old, new)
    error = refused(root, match)
    assert "JPEGImages/04.png: " in error.found
    data = open_data(root, SKIP)
    assert 4 not in data.splits["train"]
    assert len(data.splits["train"]) == 7
    found = next(f for f in audit(root).findings if f.code == code)
    assert found.rows == ("JPEGImages/04.png",)
    assert found.level == "error"


def test_a_box_without_area(tmp_path):
    rows = drawn.squares()
    data = drawn.coco_json(rows)
    data["annotations"][0]["bbox"][2] = 0
    root = drawn.coco_folder(tmp_path / "set")
    (root / "annotations.json").write_text(json.dumps(data))
    refused(root, r"images/00\.png: box 1 in annotations\.json .* has no area")
    data["annotations"][0]["bbox"] = [1, 2, 3]
    (root / "annotations.json").write_text(json.dumps(data))
    refused(root, "a side that is no number")
    data["annotations"][0] |= {"bbox": [1, 2, 3, 4], "category_id": 99}
    (root / "annotations.json").write_text(json.dumps(data))
    refused(root, "has an unknown class")
    refused(root, r"annotation 1 of it has an unknown class \(category_id 99\)", task="segment")
    whole = {"segmentation": [[0, 0, 60, 0, 60, 40, 0, 40]], "category_id": 10}
    data["annotations"].insert(1, data["annotations"][0] | whole)
    (root / "annotations.json").write_text(json.dumps(data))
    refused(root, r"unknown class \(category_id 99\)", task="segment")  # though drawn over


@pytest.mark.parametrize(
    ("drawn_as", "match"),
    [
        ([[1, 2, 3, 4]], "has no segmentation"),
        ("abc", "has no segmentation"),
        ([[1, 2, 9, 2, 9, 8, 4]], "a polygon with an odd number of coordinates"),
        ([[float("nan"), 2, 9, 2, 9, 8]], "a corner that is no number"),
        ([[1, 2, 9, float("inf"), 9, 8]], "a corner that is no number"),
        ([[-1e308, 2, 1e308, 2, 9, 8]], "lies outside the picture of 60x40 pixels"),
        ([[70, 2, 80, 2, 80, 8]], "lies outside the picture of 60x40 pixels"),
        ({"counts": [10**30]}, "runs of 10+ pixels in a picture of 2400"),
        ({"counts": "o" * 30 + "0"}, "runs of .* pixels in a picture of 2400"),
    ],
)
def test_shapes(tmp_path, drawn_as, match):
    data = drawn.coco_json(drawn.squares())
    data["annotations"][0]["segmentation"] = drawn_as
    root = drawn.coco_folder(tmp_path / "set")
    (root / "annotations.json").write_text(json.dumps(data))
    error = refused(root, match, task="segment")
    assert "images/00.png: " in error.found
    kept = open_data(root, DataOptions(bad_rows="skip", task="segment"))
    assert sum(len(ids) for ids in kept.splits.values()) == 11


def test_shapes_on_pictures_of_no_stated_size(tmp_path):
    root = drawn.coco_folder(tmp_path / "set")
    options = DataOptions(task="segment", image_size=(40, 60))
    stated = open_data(root, options).columns.target
    data = drawn.coco_json(drawn.squares())
    for image in data["images"]:
        del image["height"], image["width"]
    (root / "annotations.json").write_text(json.dumps(data))
    rows = np.arange(12)
    assert (open_data(root, options).columns.target.fetch(rows) == stated.fetch(rows)).all()
    (root / "images" / "03.png").write_bytes(b"x")
    refused(root, r"03\.png: the picture cannot be decoded", task="segment")


def change_masks(root, change):
    for path in (root / "masks").iterdir():
        Image.fromarray(change(np.asarray(Image.open(path))).astype(np.uint8)).save(path)


@pytest.mark.parametrize("names", ["ground\nthing\n", "ground 0 0 0\nthing 255 255 255\n"])
def test_black_and_white_masks_of_two_named_classes(tmp_path, names):
    """Label 255 counts nowhere, but nothing would be left to learn without it here."""
    root = drawn.mask_folder(tmp_path / "set", names=names)
    change_masks(root, lambda mask: 255 * (mask > 0))
    data = open_data(root, DataOptions(image_size=(40, 60)))
    assert data.schema.classes == ("ground", "thing")
    wanted = [mask > 0 for _, mask, _ in drawn.squares()]
    assert (data.columns.target.fetch(np.arange(12)) == wanted).all()
    again = read_rows(root, data.schema)
    assert (again.columns.target.fetch(np.arange(12)) == wanted).all()


@pytest.mark.parametrize(
    ("value", "match"),
    [(0, "only one class: background"), (3, "only one class: blue"), (255, "have no class")],
)
def test_masks_that_leave_nothing_to_tell_apart(tmp_path, value, match):
    root = drawn.mask_folder(tmp_path / "set")
    change_masks(root, lambda mask: 0 * mask + value)
    with pytest.raises(DataError, match=match) as error:
        open_data(root)
    assert "the list of classes" in error.value.do


def test_more_classes_than_a_mask_holds(tmp_path):
    names = "".join(f"c{chr(97 + i // 16)}{chr(97 + i % 16)}\n" for i in range(256))
    root = drawn.mask_folder(tmp_path / "set", names=names)
    with pytest.raises(DataError, match="256 classes of masks"):
        open_data(root)


def test_pictures_of_nothing_alone(tmp_path):
    data = drawn.coco_json(drawn.squares()) | {"annotations": []}
    root = drawn.coco_folder(tmp_path / "set")
    (root / "annotations.json").write_text(json.dumps(data))
    with pytest.raises(DataError, match="no picture has a box"):
        open_data(root)


@pytest.mark.parametrize("size", [(0, 0), (40, 9000), 0, [1, 2, 3]])
def test_sizes_that_are_none(tmp_path, size):
    with pytest.raises(ConfigError, match="image_size="):
        open_data(drawn.voc_folder(tmp_path / "set"), DataOptions(image_size=size))


def test_boxes_that_overhang_a_pixel_are_cut(tmp_path):
    root = drawn.voc_folder(tmp_path / "set")
    path = root / "Annotations" / "00.xml"
    path.write_text(drawn.voc_xml([(-1, 30, 61, 41, 0)], (40, 60)))
    data = open_data(root, DataOptions(image_size=(40, 60)))
    assert data.columns.target[0, 0].tolist() == [
        0,
        30,
        60,
        40,
        data.schema.classes.index("red"),
        0,
    ]
    assert any(f.code == "overhang" for f in audit(root).findings)


def test_pictures_without_annotation(tmp_path):
    root = drawn.voc_folder(tmp_path / "set")
    (root / "Annotations" / "06.xml").unlink()
    refused(root, r"06\.png: it has no annotation")
    masks = drawn.mask_folder(tmp_path / "masks")
    (masks / "masks" / "07.png").unlink()
    refused(masks, r"images/07\.png: it has no mask")
    data = open_data(masks, SKIP)
    assert sum(len(ids) for ids in data.splits.values()) == 11
    for where in (root, masks):
        assert any(f.code == "no-annotation" for f in audit(where).findings)


@pytest.mark.parametrize("mode", MODES)
def test_masks(tmp_path, mode):
    root = drawn.mask_folder(tmp_path / "set")
    values = np.asarray(Image.open(root / "masks" / "01.png")).copy()
    Image.fromarray(values[:-1]).save(root / "masks" / "01.png")
    values[3, 4] = 77
    Image.fromarray(values).save(root / "masks" / "02.png")
    (root / "masks" / "03.png").write_bytes(b"none")
    Image.new("RGB", (60, 40), (1, 2, 3)).save(root / "masks" / "04.png")
    error = refused(root, "4 rows of 12", mode=mode)
    assert "images/01.png: the mask 01.png has 60x39 pixels, the picture 60x40" in error.found
    assert "images/02.png: its mask has labels of no class: 77" in error.found
    assert "images/03.png: the mask 03.png cannot be decoded" in error.found
    assert "images/04.png: the mask 04.png is coloured" in error.found
    data = open_data(root, DataOptions(bad_rows="skip", mode=mode))
    assert sum(len(ids) for ids in data.splits.values()) == 8
    for split in data.splits:
        stream = data.stream(split, batch_size=3)
        assert all(int(b.target[b.target != 255].max()) <= 3 for b in stream.epoch(0))
        stream.close()
    codes = {f.code for f in audit(root).findings if f.level == "error"}
    assert codes == {"size", "unknown-class", "broken"}


def test_keypoints(tmp_path):
    path = drawn.points_table(tmp_path)
    lines = path.read_text().split("\n")
    lines[2] = "faces/01.png,500,3,4,5"
    lines[5] = "faces/04.png,,,,"
    path.write_text("\n".join(lines))
    error = refused(path, "2 rows of 12")
    assert "row 2 (faces/01.png): keypoint 0" in error.found
    assert "lies outside the picture of 60x40 pixels" in error.found
    assert "row 5 (faces/04.png): all 2 keypoints" in error.found
    data = open_data(path, SKIP)
    assert sum(len(ids) for ids in data.splits.values()) == 10
    assert {f.code for f in audit(path).findings if f.level == "error"} == {
        "outside", "no-keypoints",
    }  # fmt: skip


def test_all_rows_bad(tmp_path):
    root = drawn.mask_folder(tmp_path / "set")
    for path in (root / "images").iterdir():
        path.write_bytes(b"")
    with pytest.raises(DataError, match="none of the 12 rows"):
        open_data(root, SKIP)


def test_a_policy_that_does_not_exist(tmp_path):
    with pytest.raises(ConfigError, match="bad_rows='drop'"):
        open_data(drawn.mask_folder(tmp_path / "set"), DataOptions(bad_rows="drop"))  # type: ignore[arg-type]


def test_rows_for_prediction(tmp_path):
    root = drawn.mask_folder(tmp_path / "set")
    data = open_data(root)
    (root / "images" / "01.png").write_bytes(b"x")
    with pytest.raises(DataError, match=r"01\.png: the picture cannot be decoded"):
        read_rows(root / "images", data.schema)
    found = read_rows(root / "images", data.schema, options=SKIP)
    assert found.splits["all"].tolist() == [0, *range(2, 12)]


def test_masks_keep_their_files_when_streaming(tmp_path):
    root = drawn.mask_folder(tmp_path / "set")
    data = open_data(root, DataOptions(mode="streaming"))
    stream = data.stream("train", batch_size=4)
    (root / "masks" / data.row_names(data.splits["train"][:1])[0].split("/")[1]).unlink()
    with pytest.raises(DataError, match="the mask is gone"):
        list(stream.epoch(0))
    stream.close()


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".gif", ".tif", ".webp", ".bmp"])
def test_damaged_bytes_give_no_other_error(tmp_path, suffix):
    picture = drawn.squares(1)[0][0]
    path = drawn.write(tmp_path / f"a{suffix}", picture)
    whole = bytearray(path.read_bytes())
    rng = np.random.RandomState(0)
    decoder = Decoder(3, 32, 48, "letterbox")
    for _ in range(40):
        damaged = bytearray(whole)
        for at in rng.randint(0, len(whole), rng.randint(1, 12)):
            damaged[at] = rng.randint(0, 256)
        path.write_bytes(damaged[: rng.randint(1, len(whole) + 1)] if rng.rand() < 0.3 else damaged)
        for look in (lambda: header(path, "a"), lambda: decode(path, decoder, "a")):
            with contextlib.suppress(DataError):
                look()
        with contextlib.suppress(ValueError):
            read_mask(path, {})


@pytest.mark.parametrize(
    "change",
    [
        {"keypoints": "x"}, {"keypoints": [1, 2]}, {"bbox": "abcd"}, {"bbox": [1, 2, "c", 4]},
        {"image_id": [1]}, {"category_id": {}}, {"segmentation": [["a", 1, 2, 3, 4, 5]]},
        {"segmentation": {"counts": "\x00"}}, {"segmentation": {"counts": [1e400]}},
    ],
)  # fmt: skip
@pytest.mark.parametrize("task", ["detect", "segment", "pose"])
def test_annotations_of_another_form_give_no_other_error(tmp_path, change, task):
    data = drawn.coco_json(drawn.squares(), points=True)
    data["annotations"][3] |= change
    root = drawn.coco_folder(tmp_path / "set")
    (root / "annotations.json").write_text(json.dumps(data))
    with contextlib.suppress(DataError):
        open_data(root, DataOptions(task=task))
