"""Masks: polygons, runs, palettes, colours, class lists, and the place of every label."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from gipi.core.errors import DataError
from gipi.data.masks import Drawing, Shape, draw, fill, read_mask
from gipi.data.placement import FITS, move_boxes, move_points, place, place_mask
from gipi.data.sources.classlist import read_list


def pack(lengths):
    """Return COCO's text form of run lengths (the inverse, written for this test)."""
    out = []
    for i, length in enumerate(lengths):
        x = length - (lengths[i - 2] if i > 2 else 0)
        more = True
        while more:
            c = x & 0x1F
            x >>= 5
            more = (x != -1) if c & 0x10 else (x != 0)
            out.append(chr((c | 0x20 if more else c) + 48))
    return "".join(out)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**32 - 1))
def test_runs_in_both_forms(height, width, seed):
    mask = np.random.RandomState(seed).rand(height, width) < 0.5
    flat = mask.T.reshape(-1).astype(int)
    lengths, value = [0], 0
    for v in flat:
        if v != value:
            lengths.append(0)
            value = v
        lengths[-1] += 1
    for runs in (tuple(lengths), pack(lengths)):
        assert np.array_equal(draw(Drawing(height, width, (Shape(1, runs=runs),))) == 1, mask)


def test_long_runs_in_text():
    lengths = (1000, 3, 100000, 7, 98990)
    found = draw(Drawing(400, 500, (Shape(1, runs=pack(lengths)),)))
    assert found.sum() == 10


@pytest.mark.parametrize("runs", [(3, 3), "0", (9, -3), "m"])
def test_runs_of_another_size(runs):
    with pytest.raises(ValueError, match="runs"):
        draw(Drawing(3, 3, (Shape(1, runs=runs),)))


def test_polygons_cover_the_pixels_whose_centre_they_hold():
    square = fill(np.array([[1, 2], [4, 2], [4, 5], [1, 5]], dtype=float), 8, 7)
    expected = np.zeros((8, 7), dtype=bool)
    expected[2:5, 1:4] = True
    assert np.array_equal(square, expected)
    y, x = np.mgrid[0:64, 0:64] + 0.5
    angle = np.linspace(0, 2 * np.pi, 400, endpoint=False)
    circle = np.stack([32 + 20 * np.cos(angle), 30 + 20 * np.sin(angle)], 1)
    inside = (x - 32) ** 2 + (y - 30) ** 2 < 400
    assert (fill(circle, 64, 64) != inside).sum() <= 8
    beyond = fill(np.array([[-5, -5], [30, -5], [30, 30], [-5, 30]], dtype=float), 10, 12)
    assert beyond.all()


@pytest.mark.parametrize("how", FITS)
@pytest.mark.parametrize("crop", [None, (3.0, -2.0, 25.0, 18.0)])
def test_a_mask_lies_where_the_matrix_says(how, crop):
    rng = np.random.RandomState(0)
    mask = rng.randint(0, 5, (21, 34)).astype(np.uint8)
    placed = place((21, 34), (16, 40), how, crop=crop)
    found = place_mask(mask, placed, (16, 40), 255)
    back = np.linalg.inv(placed.matrix)
    for i in range(16):
        for j in range(40):
            x, y, _ = back @ [j + 0.5, i + 0.5, 1]
            x0, y0, x1, y1 = placed.part
            inside = x0 <= x < x1 and y0 <= y < y1 and 0 <= x < 34 and 0 <= y < 21
            assert found[i, j] == (mask[int(y), int(x)] if inside else 255)


def test_points_and_boxes_move_alike():
    matrix = place((30, 50), (64, 64), "letterbox").matrix
    boxes = np.array([[1.0, 2.0, 11.0, 12.0]])
    assert np.allclose(move_boxes(boxes, matrix)[0, :2], move_points(boxes[:, :2], matrix)[0])


@pytest.mark.parametrize("mode", ["P", "L", "1", "I;16", "RGB"])
def test_labels_of_every_mode(tmp_path, mode):
    values = np.array([[0, 1], [1, 0]], dtype=np.uint8)
    if mode == "I;16":
        image = Image.fromarray(values.astype(np.uint16))
    elif mode == "RGB":
        image = Image.fromarray(np.repeat(values[..., None], 3, axis=2))
    elif mode == "1":
        image = Image.fromarray(values * 255).convert("1")
    else:
        image = Image.fromarray(values)
        if mode == "P":
            image = Image.frombytes("P", (2, 2), values.tobytes())
            image.putpalette([0, 0, 0, 200, 10, 10])
    image.save(tmp_path / "m.png")
    assert read_mask(tmp_path / "m.png", {}).tolist() == values.tolist()


def test_labels_above_255(tmp_path):
    Image.fromarray(np.full((2, 2), 300, dtype=np.uint16)).save(tmp_path / "m.png")
    with pytest.raises(ValueError, match="the label 300: labels are whole numbers, .* above 255"):
        read_mask(tmp_path / "m.png", {})


@pytest.mark.parametrize("value", [-3, 0.5, float("nan")])
def test_labels_that_are_none(tmp_path, value):
    values = np.array([[0, 3], [2, value]])
    path = tmp_path / "m.tif"
    Image.fromarray(values.astype(np.float32)).save(path)
    with pytest.raises(ValueError, match=f"the mask m.tif has the label {value}"):
        read_mask(path, {})
    Image.fromarray(np.array([[0, 3], [2, 1]], dtype=np.float32)).save(path)
    assert read_mask(path, {}).tolist() == [[0, 3], [2, 1]]


def test_runs_beyond_64_bits_are_runs_of_another_size():
    for runs in ("o" * 30 + "0", (10**30,), (2**63, -(2**63) + 4)):
        with pytest.raises(ValueError, match="pixels in a picture of 4|a negative length"):
            draw(Drawing(2, 2, (Shape(1, runs=runs),)))


@pytest.mark.parametrize(
    "text",
    [
        "road 128 64 128\nsky 70 130 180\nvoid 0 0 0\n",
        "128 64 128 road\n70 130 180\tsky\n0 0 0 Void\n",
        "name,r,g,b\nroad,128,64,128\nsky,70,130,180\nunlabelled,0,0,0\n",
        "# label:color_rgb:parts:actions\nroad:128,64,128::\nsky:70,130,180::\nvoid:0,0,0::\n",
    ],
)
def test_colours_of_classes(tmp_path, text):
    (tmp_path / "labels.txt").write_text(text)
    classes, facts = read_list(tmp_path / "labels.txt")
    assert classes == ("road", "sky")
    assert facts["values"] == [0, 1]
    assert facts["ignored"] == [2, 255]
    values = np.array([[[70, 130, 180], [128, 64, 128]], [[0, 0, 0], [0, 0, 0]]], dtype=np.uint8)
    Image.fromarray(values).save(tmp_path / "m.png")
    assert read_mask(tmp_path / "m.png", facts).tolist() == [[1, 0], [2, 2]]
    image = Image.fromarray(values).convert("P", palette=Image.Palette.ADAPTIVE, colors=3)
    image.save(tmp_path / "p.png")  # as tools that save pictures write them: in any order
    assert image.mode == "P"
    assert read_mask(tmp_path / "p.png", facts).tolist() == [[1, 0], [2, 2]]
    labels = Image.frombytes("P", (2, 2), bytes([0, 1, 2, 2]))
    labels.putpalette([5, 5, 5, 6, 6, 6, 7, 7, 7])  # none of the list: labels as they are
    labels.save(tmp_path / "p.png")
    assert read_mask(tmp_path / "p.png", facts).tolist() == [[0, 1], [2, 2]]
    Image.fromarray(np.array([[0, 1], [2, 2]], dtype=np.uint8)).save(tmp_path / "l.png")
    assert read_mask(tmp_path / "l.png", facts).tolist() == [[0, 1], [2, 2]]
    values[0, 0] = 9
    Image.fromarray(values).save(tmp_path / "m.png")
    with pytest.raises(ValueError, match=r"a colour of no class: \[9, 9, 9\]"):
        read_mask(tmp_path / "m.png", facts)


@pytest.mark.parametrize("mode", ["L", "1", "P", "RGB"])
def test_grey_colours_of_classes(tmp_path, mode):
    (tmp_path / "labels.txt").write_text("ground 0 0 0\nthing 255 255 255\n")
    _, facts = read_list(tmp_path / "labels.txt")
    image = Image.fromarray(np.array([[0, 255], [255, 0]], dtype=np.uint8))
    image.convert(mode).save(tmp_path / "m.png")
    assert read_mask(tmp_path / "m.png", facts).tolist() == [[0, 1], [1, 0]]
    Image.fromarray(np.array([[0, 1], [1, 0]], dtype=np.uint8)).save(tmp_path / "m.png")
    assert read_mask(tmp_path / "m.png", facts).tolist() == [[0, 1], [1, 0]]


@pytest.mark.parametrize("line", ["pavement 128 64 128", "pavement 128 64 300"])
def test_colours_that_tell_no_class(tmp_path, line):
    (tmp_path / "labels.txt").write_text(f"road 128 64 128\n{line}\n")
    with pytest.raises(DataError, match="two classes one colour, or one above 255"):
        read_list(tmp_path / "labels.txt")


def test_class_lists(tmp_path):
    path = tmp_path / "classes.txt"
    path.write_text("\ufefftraffic light\nvoid\nfire truck\n")
    assert read_list(path) == (
        ("traffic light", "fire truck"),
        {"values": [0, 2], "ignored": [1, 255]},
    )
    path.write_text("0 background\n7 road\n")
    assert read_list(path)[1]["values"] == [0, 7]
    for text, match in (("a\na\n", "line 2"), ("", "has no class"), ("1 a\n1 b\n", "one label")):
        path.write_text(text)
        with pytest.raises(DataError, match=match):
            read_list(path)
