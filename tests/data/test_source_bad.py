"""Annotated sets with faults in their files: named with file and place before anything is read."""

from __future__ import annotations

import json

import numpy as np
import pyarrow.csv
import pyarrow.parquet
import pytest
from PIL import Image, ImageOps
from tests.data import drawn

from gipi.core.errors import DataError
from gipi.data import DataOptions, open_data, read_rows
from gipi.data.decode import Decoder, decode, header
from gipi.data.source import TEST, TRAIN, Annotations
from gipi.data.sources import read_source
from gipi.data.sources.pictured import person

ROWS = drawn.squares(12)


def coco(root, change, **options):
    drawn.coco_folder(root, **options)
    path = root / "annotations.json"
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))
    return root


def table(root, line, old, new):
    path = drawn.points_table(root)
    lines = path.read_text().split("\n")
    assert old in lines[line]
    lines[line] = lines[line].replace(old, new)
    path.write_text("\n".join(lines))
    return path


# ------------------------------------------------------------------ tables of points


@pytest.mark.parametrize("task", [None, "pose"])
def test_a_word_in_a_coordinate_is_named(tmp_path, task):
    path = drawn.points_table(tmp_path)
    lines = path.read_text().split("\n")
    lines[3] = lines[3].rpartition(",")[0] + ",left"
    path.write_text("\n".join(lines))
    with pytest.raises(DataError, match=r"points\.csv row 3: 'left' in the column 'y1' is no numb"):
        read_source(path, task=task)


def test_an_empty_coordinate_is_a_missing_point(tmp_path):
    path = drawn.points_table(tmp_path)
    lines = path.read_text().split("\n")
    lines[3] = lines[3].rpartition(",")[0] + ","
    path.write_text("\n".join(lines))
    points = read_source(path).columns["keypoints"].items
    assert points[2][:, 2].tolist() == [2.0, 0.0]


def test_a_point_that_lacks_an_axis(tmp_path):
    path = table(tmp_path, 0, "x1,y1", "x1,z1")
    with pytest.raises(DataError, match=r"points\.csv: the column 'x1' has no partner 'y'"):
        read_source(path, task="pose")
    source = read_source(path)
    assert source.task is None
    assert any("not as keypoints: the column 'x1' has no partner" in n for n in source.notes)


def test_visibility_as_true_and_false(tmp_path):
    path = drawn.points_table(tmp_path, marks=True)
    text = path.read_text().replace(",2,1\n", ",true,false\n")
    path.write_text(text)
    with pytest.raises(DataError, match=r"row 1: 'true' in the column 'v0' is no number"):
        read_source(path)  # words in a CSV
    whole = pyarrow.csv.read_csv(path)
    pyarrow.parquet.write_table(whole, tmp_path / "points.parquet")
    points = read_source(tmp_path / "points.parquet").columns["keypoints"].items
    assert points[0][:, 2].tolist() == [2.0, 0.0]


def test_a_row_of_a_picture_table_without_a_picture(tmp_path):
    with pytest.raises(DataError, match="row 3: the picture in the column 'image' is empty"):
        read_source(table(tmp_path / "a", 3, "faces/02.png", ""))
    with pytest.raises(DataError, match=r"row 1: the picture 'faces/x\.png' does not exist"):
        read_source(table(tmp_path / "b", 1, "faces/00.png", "faces/x.png"))


# ------------------------------------------------------------------ folders of masks


def test_pictures_beside_an_empty_folder_of_masks(tmp_path):
    for i, (picture, _, _) in enumerate(ROWS):
        drawn.write(tmp_path / "set" / "images" / f"{i}.png", picture)
    (tmp_path / "set" / "masks").mkdir()
    for task in (None, "segment"):
        with pytest.raises(DataError, match="masks/ has no masks for the 12 pictures in images/"):
            open_data(tmp_path / "set", DataOptions(task=task))


def test_masks_as_jpeg_are_no_classes_of_pictures(tmp_path):
    for i, (picture, mask, _) in enumerate(ROWS):
        drawn.write(tmp_path / "set" / "images" / f"{i}.png", picture)
        drawn.write(tmp_path / "set" / "masks" / f"{i}.jpg", mask)
    with pytest.raises(DataError, match=r"the masks in masks/ are \.jpg: a format that changes"):
        open_data(tmp_path / "set")
    other = tmp_path / "set" / "labels"
    drawn.write(other / "x.png", ROWS[0][0])  # a third folder of pictures: these are classes
    assert open_data(tmp_path / "set", DataOptions(task="classify")).schema.classes == (
        "images", "labels", "masks",
    )  # fmt: skip


def listed(root):
    for part in "ab":
        for i, (picture, mask, _) in enumerate(ROWS[:4]):
            drawn.write(root / "images" / part / f"{i}.x.png", picture)
            drawn.write(root / "masks" / part / f"{i}.x.png", mask)
    return root


@pytest.mark.parametrize("form", ["{p}/{i}.x.png", "{p}/{i}.x", "images/{p}/{i}.x.png masks/y"])
def test_lists_of_pictures_that_share_stems(tmp_path, form):
    root = listed(tmp_path / "set")
    for name, p in (("train", "a"), ("test", "b")):
        lines = [form.format(p=p, i=i) for i in range(4)]
        (root / f"{name}.txt").write_text("\n".join(lines) + "\n")
    assert read_source(root).given_split.tolist() == [TRAIN] * 4 + [TEST] * 4


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ("a/0.x\nq\n", "train.txt line 2: 'q': no picture is called so"),
        ("a/0.x\n1.x\n", "train.txt line 2: '1.x': several pictures are called so"),
        ("a/0.x\nb/3.x\n", "test.txt line 1: 'b/3.x' is in another list as well"),
    ],
)
def test_lines_of_lists_that_name_no_one_picture(tmp_path, lines, said):
    root = listed(tmp_path / "set")
    (root / "train.txt").write_text(lines)
    (root / "test.txt").write_text("b/3.x\n")
    with pytest.raises(DataError, match=said):
        read_source(root)


def test_black_masks_are_read_as_those_of_training(tmp_path):
    for i, (picture, mask, _) in enumerate(ROWS):
        drawn.write(tmp_path / "a" / "images" / f"{i}.png", picture)
        drawn.write(tmp_path / "a" / "masks" / f"{i}.png", (mask > 0).astype(np.uint8) * 255)
        drawn.write(tmp_path / "b" / "images" / f"{i}.png", picture)
        drawn.write(tmp_path / "b" / "masks" / f"{i}.png", mask * 0)
    data = open_data(tmp_path / "a")
    assert data.schema.classes == ("background", "foreground")
    found = read_rows(tmp_path / "b", data.schema)
    assert len(found.splits["all"]) == 12


def test_voc_lists_a_picture_that_is_not_there(tmp_path):
    for i, (picture, mask, _) in enumerate(ROWS):
        drawn.write(tmp_path / "set" / "JPEGImages" / f"{i}.jpg", picture)
        drawn.write(tmp_path / "set" / "SegmentationClass" / f"{i}.png", mask)
    place = tmp_path / "set" / "ImageSets" / "Segmentation"
    place.mkdir(parents=True)
    (place / "train.txt").write_text("0\n1\n77\n")
    with pytest.raises(DataError, match="1 listed picture is not in .*: 77") as error:
        read_source(tmp_path / "set", task="segment")
    assert "ImageSets/Segmentation" in error.value.do


def test_a_voc_object_without_a_name(tmp_path):
    root = drawn.voc_folder(tmp_path / "set")
    path = root / "Annotations" / "02.xml"
    path.write_text(path.read_text().replace("<name>red</name>", "", 1))
    with pytest.raises(DataError, match=r"02\.png: 02\.xml cannot be read: an object has no name"):
        open_data(root)


# ------------------------------------------------------------------ COCO's JSON


def as_text(data):
    for one in data["annotations"]:
        one["image_id"] = str(one["image_id"])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (as_text, r"json: no annotation belongs to a picture of the list \(image_id '0'\)"),
        (lambda d: d["annotations"][0].update(keypoints=5), "annotation 1 has keypoints=5"),
        (lambda d: d["categories"][0].update(id=[1]), r"category 1 has id=\[1\]"),
        (lambda d: d["categories"][0].update(keypoints=7), "category 1 has keypoints=7"),
        (lambda d: d["images"][1].update(id=[1]), r"image 2 has id=\[1\]"),
        (lambda d: d.pop("annotations"), r"annotations\.json: no boxes, masks or keypoints"),
    ],
)
def test_coco_of_another_form(tmp_path, change, said):
    with pytest.raises(DataError, match=said):
        read_source(coco(tmp_path / "set", change, points=True))


def test_coco_annotations_of_pictures_that_are_not_listed_are_said(tmp_path):
    root = coco(tmp_path / "set", lambda d: d["annotations"][0].update(image_id=99))
    assert any("1 annotations of pictures that are not listed" in n for n in open_data(root).notes)


@pytest.mark.parametrize(("side", "said"), [(0, "has no area"), (1e7, "lies outside the picture")])
@pytest.mark.parametrize("mode", ["resident", "streaming"])
def test_parts_of_pictures_that_cannot_be_cut(tmp_path, side, said, mode):
    def change(data):
        data["annotations"][0]["bbox"][2:] = [side, side]

    root = coco(tmp_path / "set", change, points=True)
    with pytest.raises(DataError, match=rf"images/00\.png#1: its part of the picture .* {said}"):
        open_data(root, DataOptions(mode=mode))
    data = open_data(root, DataOptions(mode=mode, bad_rows="skip"))
    stream = data.stream("train", batch_size=4)
    assert sum(len(batch) for batch in stream.epoch(0)) == len(data.splits["train"])
    stream.close()


def test_an_object_without_an_outline_is_no_background(tmp_path):
    root = coco(tmp_path / "set", lambda d: d["annotations"][1].update(segmentation=[]))
    with pytest.raises(DataError, match=r"01\.png: annotation 1 of it has no segmentation"):
        open_data(root, DataOptions(task="segment"))


def official(root, **more):
    for i, (picture, _, _) in enumerate(ROWS):
        drawn.write(root / "train2017" / f"{i:02d}.png", picture)
        drawn.write(root / "test2017" / f"t{i:02d}.png", picture)
    data = drawn.coco_json(ROWS)
    for name, change in {"instances_train2017": {}, **more}.items():
        (root / "annotations").mkdir(exist_ok=True)
        kept = {k: v for k, v in {**data, **change}.items() if v is not None}
        (root / "annotations" / f"{name}.json").write_text(json.dumps(kept))
    return root


def test_files_of_captions_and_of_pictures_alone_are_left_out(tmp_path):
    captions = [{"id": i, "image_id": i, "caption": "squares"} for i in range(len(ROWS))]
    bare = [{"id": i, "file_name": f"t{i:02d}.png"} for i in range(len(ROWS))]
    root = official(
        tmp_path / "set",
        captions_train2017={"annotations": captions},
        image_info_test2017={"images": bare, "annotations": None},
    )
    source = read_source(root)
    assert (source.rows, source.given_split) == (len(ROWS), None)
    for name in ("captions_train2017.json", "image_info_test2017.json"):
        assert any(f"{name} holds no boxes, masks or keypoints" in n for n in source.notes)


def test_files_that_give_one_id_to_two_classes(tmp_path):
    names = [{"id": 10, "name": "green"}, {"id": 20, "name": "red"}, {"id": 30, "name": "blue"}]
    root = official(tmp_path / "set", instances_val2017={"categories": names})
    said = r"category 10 is 'red' in instances_train2017\.json and 'green' in instances_val2017"
    with pytest.raises(DataError, match=said):
        read_source(root)


def test_ids_of_categories_may_be_numbers_and_words(tmp_path):
    def change(data):
        data["categories"][0]["id"] = "x"
        for one in data["annotations"]:
            one["category_id"] = "x" if one["category_id"] == 10 else one["category_id"]

    assert read_source(coco(tmp_path / "set", change)).columns["boxes"].classes == (
        "green", "blue", "red",
    )  # fmt: skip


# ------------------------------------------------------------------ sizes, caches, people


@pytest.mark.parametrize("mark", range(10))
def test_the_stated_size_is_that_of_the_decoded_picture(tmp_path, mark):
    exif = Image.Exif()
    exif[0x0112] = mark
    Image.new("RGB", (40, 24)).save(tmp_path / "a.jpg", exif=exif)
    _, height, width = header(tmp_path / "a.jpg", "a.jpg")
    shape = (24, 40) if mark not in (5, 6, 7, 8) else (40, 24)
    assert (height, width) == shape
    whole = Decoder(3, *shape, "stretch")
    picture = np.zeros((24, 40, 3), np.uint8)
    picture[:, :8] = 255
    Image.fromarray(picture).save(tmp_path / "a.jpg", exif=exif, quality=95)
    assert decode(tmp_path / "a.jpg", whole, "a.jpg").shape == (3, *shape)
    lit = (decode(tmp_path / "a.jpg", whole, "a.jpg") > 128).mean()
    assert abs(lit - 0.2) < 0.02  # nothing was stretched out of the picture's shape


def test_rows_in_another_order_are_not_taken_from_the_cache(tmp_path):
    root = drawn.mask_folder(tmp_path / "set", ROWS)
    options = DataOptions(mode="mapped")
    source = read_source(root)
    turned = source.take(np.arange(len(ROWS))[::-1])
    assert source.fingerprint == turned.fingerprint
    first, second = (open_data(one, options) for one in (source, turned))
    held = [np.asarray(d.columns.inputs["image"].fetch(np.arange(12))) for d in (first, second)]
    np.testing.assert_array_equal(held[0], held[1][::-1])
    masks = [d.columns.target.fetch(np.arange(12)) for d in (first, second)]
    np.testing.assert_array_equal(masks[0], masks[1][::-1])


def test_reasons_go_along_with_their_rows():
    found = Annotations("boxes", (None,) * 4, facts={"unreadable": {2: "why"}})
    assert found.take([3, 2]).facts["unreadable"] == {1: "why"}
    assert found.take([0]).facts["unreadable"] == {}


@pytest.mark.data
def test_validation_faces_are_of_other_people(data_folder):
    assert data_folder
    data = open_data("face-keypoints")
    who = {
        part: {person(name.rpartition("/")[2][:-4]) for name in data.row_names(ids)}
        for part, ids in data.splits.items()
    }
    assert not who["train"] & who["val"]
    assert len(data.splits["test"]) == 200
    assert len(data.splits["train"]) + len(data.splits["val"]) == 800
    assert "rows of one person together" in data.split_reason
    both = sum(
        person(n.rpartition("/")[2][:-4]) in who["train"] | who["val"]
        for n in data.row_names(data.splits["test"])
    )
    assert any(f"{both} of 200 test pictures" in note for note in data.notes)


def exif_voc(root, mark, form, *, near=()):
    """Write VOC pictures stored 60x24, shown as `mark` says; boxes as stored or as shown."""
    rng = np.random.RandomState(0)
    exif = Image.Exif()
    exif[0x0112] = mark
    (root / "Annotations").mkdir(parents=True)
    (root / "JPEGImages").mkdir()
    for i in range(12):
        x0, y0 = (2, 3) if i in near else (rng.randint(34, 48), rng.randint(2, 12))
        stored = np.zeros((24, 60, 3), np.uint8)
        stored[y0 : y0 + 9, x0 : x0 + 7] = 255
        path = root / "JPEGImages" / f"{i:02d}.png"
        Image.fromarray(stored).save(path, exif=exif)
        ys, xs = np.nonzero(decode(path, Decoder(1, 60, 24, "stretch"), "p")[0])
        shown = (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1, i % 2)
        box = (x0, y0, x0 + 7, y0 + 9, i % 2) if form == "stored" else shown
        (root / "Annotations" / f"{i:02d}.xml").write_text(drawn.voc_xml([box], (24, 60)))
    return root


@pytest.mark.parametrize("mark", [5, 6, 7, 8])
@pytest.mark.parametrize("form", ["stored", "shown"])
def test_boxes_of_pictures_that_exif_turns(tmp_path, mark, form):
    data = open_data(exif_voc(tmp_path / "set", mark, form, near=(0, 1)))
    said = [n for n in data.notes if "12 annotations are of pictures that EXIF turns" in n]
    assert len(said) == 1
    assert f"the pictures as {form}" in said[0]
    pixels = np.asarray(data.columns.inputs["image"].fetch(np.arange(12)))
    for row in range(12):
        ys, xs = np.nonzero(pixels[row, 0] > 127)
        box = data.columns.target[row, 0, :4].numpy()
        np.testing.assert_allclose(box, [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1], atol=1.01)


def test_boxes_that_fit_the_picture_both_ways_are_refused(tmp_path):
    with pytest.raises(DataError, match="shown turned, by its EXIF mark"):
        open_data(exif_voc(tmp_path / "set", 6, "stored", near=range(12)))


def test_people_on_copies_of_a_picture_stay_together(tmp_path):
    rows = [(p, m, b[:1] * 2) for p, m, b in drawn.squares(20)]
    root = drawn.coco_folder(tmp_path / "set", rows, points=True)
    for i in range(10):  # the second half shows the same pictures, with other boxes around people
        copy = (root / "images" / f"{i:02d}.png").read_bytes()
        (root / "images" / f"{i + 10:02d}.png").write_bytes(copy)
    data = json.loads((root / "annotations.json").read_text())
    for one in data["annotations"]:
        if one["image_id"] >= 10:
            one["keypoints"] = data["annotations"][2 * (one["image_id"] - 10)]["keypoints"]
            one["bbox"] = [0, 0, 30 + one["id"], 30]
    (root / "annotations.json").write_text(json.dumps(data))
    found = open_data(root)
    side = {}
    for part, ids in found.splits.items():
        for name in found.row_names(ids):
            side.setdefault(int(name[7:9]) % 10, set()).add(part)
    assert len(found.splits) == 3
    assert all(len(parts) == 1 for parts in side.values())


@pytest.mark.parametrize("mode", ["resident", "mapped", "streaming"])
def test_a_picture_that_opens_but_cannot_be_converted(tmp_path, mode, monkeypatch):
    root = drawn.voc_folder(tmp_path / "set")
    Image.new("CMYK", (60, 40)).save(root / "JPEGImages" / "05.jpg")
    (root / "JPEGImages" / "05.png").unlink()
    upright = ImageOps.exif_transpose

    def broken(image):
        if image.mode == "CMYK":
            raise ValueError("a damaged block")
        return upright(image)

    monkeypatch.setattr(ImageOps, "exif_transpose", broken)
    with pytest.raises(
        DataError, match=r"05\.jpg: the picture cannot be decoded \(a damaged block"
    ):
        open_data(root, DataOptions(mode=mode))
