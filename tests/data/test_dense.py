"""From annotated files to batches: what was drawn is found again in the prepared pixels."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image
from tests.data import drawn

from gipi.core.errors import ConfigError, DataError
from gipi.core.schema import IGNORED, Schema
from gipi.data import DataOptions, open_data, read_rows
from gipi.data.source import TEST, TRAIN, VAL

MANY = ((40, 60), (60, 40), (50, 50), (31, 77))


def batch_of(data, split="train", **options):
    return next(data.stream(split, batch_size="full", shuffle=False, **options).epoch(0))


def raw_pixels(data, batch):
    """Return the pictures (B, C, H, W) of a batch in 0..255 again."""
    stats = data.schema.field("image").stats
    mean, std = (torch.tensor(stats[k]).view(1, -1, 1, 1) for k in ("mean", "std"))
    return (batch.inputs["image"] * std + mean) * 255


def test_masks(tmp_path):
    data = open_data(drawn.mask_folder(tmp_path / "set"), DataOptions(image_size=(80, 120)))
    assert data.schema.task == "segment"
    assert data.schema.task_reason == "masks/ holds masks of the pictures in images/"
    field = data.schema.target
    assert (field.kind, field.shape) == ("mask", (80, 120))
    assert field.classes == ("background", "red", "green", "blue")
    batch = batch_of(data)
    assert batch.target.dtype == torch.uint8
    pixels = raw_pixels(data, batch)
    for code, colour in enumerate(drawn.COLOURS, 1):
        inside = (pixels - torch.tensor(colour).view(1, 3, 1, 1)).abs().amax(1) < 2
        assert inside.any()
        assert (batch.target[inside] == code).all()
    assert "stratified by the rarest class of each row" in data.split_reason


@pytest.mark.parametrize("size", [None, 64, (50, 90)])
def test_boxes_move_exactly_with_pictures_of_many_sizes(tmp_path, size):
    rows = drawn.squares(16, sizes=MANY)
    root = drawn.voc_folder(tmp_path / "set", rows, lists=False)
    data = open_data(root, DataOptions(image_size=size))
    assert data.schema.task == "detect"
    assert data.schema.classes == ("blue", "green", "red")  # VOC has no order: alphabetical
    for split in data.splits:
        batch = batch_of(data, split)
        pixels = raw_pixels(data, batch)
        assert batch.target.shape[1:] == data.schema.target.shape
        for i, row in enumerate(batch.ids.tolist()):
            found = batch.target[i][batch.target[i, :, 4] >= 0]
            assert len(found) == len(rows[row][2])
            x0, y0, x1, y1, code, crowd = found[-1].tolist()  # the last one is on top
            assert crowd == 0
            name = data.schema.classes[int(code)]
            colour = torch.tensor(drawn.COLOURS[drawn.NAMES.index(name)]).view(3, 1, 1)
            inside = (pixels[i] - colour).abs().amax(0) < 60
            ys, xs = torch.nonzero(inside, as_tuple=True)
            assert abs(float(xs.min()) - x0) <= 1
            assert abs(float(xs.max()) + 1 - x1) <= 1
            assert abs(float(ys.min()) - y0) <= 1
            assert abs(float(ys.max()) + 1 - y1) <= 1


def test_placement_takes_predictions_back(tmp_path):
    rows = drawn.squares(8, sizes=MANY)
    data = open_data(drawn.voc_folder(tmp_path / "set", rows, lists=False))
    ids = np.arange(8)
    sizes, matrices = data.original_size(ids), data.placement(ids)
    assert sizes.tolist() == [list(r[0].shape[:2]) for r in rows]
    assert matrices.shape == (8, 3, 3)
    assert matrices.dtype == np.float64
    for row, matrix in zip(rows, matrices, strict=True):
        h, w = row[0].shape[:2]
        corners = np.array([[0, 0, 1], [w, h, 1]]) @ matrix.T
        assert (corners >= -1e-9).all()
        assert (corners[:, :2] <= np.array(data.schema.field("image").shape[:0:-1]) + 1e-9).all()
    boxes = data.columns.target.numpy().astype(np.float64)
    for i, row in enumerate(rows):
        ones = np.ones((len(row[2]), 1))
        back = np.linalg.inv(matrices[i])
        found = boxes[i, : len(row[2])]
        low = np.concatenate([found[:, :2], ones], 1) @ back.T
        assert np.abs(low[:, :2] - np.array(row[2])[:, :2]).max() < 1e-4


def test_letterboxed_masks_are_ignored_beyond_the_picture(tmp_path):
    root = drawn.mask_folder(tmp_path / "set", drawn.squares(10, sizes=MANY))
    data = open_data(root, DataOptions(image_size=(64, 64)))
    assert data.schema.field("image").stats["fit"] == "letterbox"
    batch = batch_of(data)
    for i, row in enumerate(batch.ids.tolist()):
        h, w = data.original_size([row])[0]
        sx, _, left = data.placement([row])[0][0]
        beyond = batch.target[i, :, : int(left)]
        assert (beyond == IGNORED).all()
        assert (batch.target[i] != IGNORED).sum() == round(w * sx) * round(h * sx)


def test_keypoints(tmp_path):
    rows = drawn.squares(12, sizes=MANY)
    data = open_data(drawn.points_table(tmp_path, rows, marks=True))
    assert data.schema.task == "pose"
    assert "x and y of 2 points" in data.schema.task_reason
    batch = batch_of(data)
    assert batch.target.shape[1:] == (2, 3)
    assert batch.target[:, :, 2].unique(dim=0).tolist() == [[2, 1]]
    for i, row in enumerate(batch.ids.tolist()):
        x0, y0, x1, y1, _ = rows[row][2][0]
        moved = np.array([[x0, y0, 1], [x1, y1, 1]]) @ data.placement([row])[0].T
        assert np.allclose(batch.target[i, :, :2], moved[:, :2], atol=1e-4)


def test_an_empty_cell_is_a_missing_point(tmp_path):
    path = drawn.points_table(tmp_path)
    lines = path.read_text().split("\n")
    cells = lines[3].split(",")
    lines[3] = ",".join([cells[0], "", "", *cells[3:]])
    path.write_text("\n".join(lines))
    data = open_data(path)
    assert data.columns.target[2].tolist()[0] == [0, 0, 0]
    assert data.columns.target[2].tolist()[1][2] == 2


@pytest.mark.parametrize("mode", ["resident", "mapped", "streaming"])
@pytest.mark.parametrize("kind", ["mask", "boxes", "keypoints"])
def test_all_modes_give_the_same_batches(tmp_path, kind, mode):
    rows = drawn.squares(12, sizes=MANY)
    make = {"mask": drawn.mask_folder, "boxes": drawn.voc_folder, "keypoints": drawn.points_table}
    where = make[kind](tmp_path / "set" if kind != "keypoints" else tmp_path, rows)
    first = open_data(where, DataOptions(val=0.2, test=0.2))
    other = open_data(where, DataOptions(val=0.2, test=0.2, mode=mode))
    assert first.schema == other.schema
    one = first.stream("train", batch_size=3, seed=1, mode="resident")
    two = other.stream("train", batch_size=3, seed=1)
    assert two.mode == mode
    for epoch in range(2):
        for a, b in zip(one.epoch(epoch), two.epoch(epoch), strict=True):
            assert a.target.dtype == b.target.dtype
            assert torch.equal(a.target, b.target)
            assert torch.equal(a.inputs["image"], b.inputs["image"])
            assert torch.equal(a.ids, b.ids)
    two.close()


def test_ranks_share_masks(tmp_path):
    data = open_data(drawn.mask_folder(tmp_path / "set"), DataOptions(mode="mapped"))
    whole = list(data.stream("train", batch_size=4, seed=2).epoch(0))
    shares = [
        list(data.stream("train", batch_size=4, seed=2, rank=r, world=2).epoch(0)) for r in (0, 1)
    ]
    for at, batch in enumerate(whole):
        parts = [s[at].target for s in shares]
        assert torch.equal(torch.cat(parts)[: len(batch)], batch.target)


def test_given_lists_are_the_split(tmp_path):
    data = open_data(drawn.voc_folder(tmp_path / "set"))
    assert data.splits["val"].tolist() == [8, 9]
    assert data.splits["test"].tolist() == [10, 11]
    assert np.bincount(data.source.given_split).tolist() == [8, 2, 2]
    assert (TRAIN, VAL, TEST) == (0, 1, 2)


def test_copies_of_a_picture_stay_on_one_side(tmp_path):
    rows = drawn.squares(20)
    rows = [*rows, *rows[:10]]
    data = open_data(drawn.mask_folder(tmp_path / "set", rows))
    side = {int(i): name for name, ids in data.splits.items() for i in ids}
    assert all(side[i] == side[20 + i] for i in range(10))


def test_the_rarest_class_is_in_every_part(tmp_path):
    rows = drawn.squares(60, seed=3)
    rare = [i for i, r in enumerate(rows) if len(r[2]) == 3]
    rows = [r if i not in rare[6:] else rows[0] for i, r in enumerate(rows)]
    for seed in range(3):
        data = open_data(
            drawn.mask_folder(tmp_path / f"set{seed}", rows), DataOptions(seed=seed, test=0.2)
        )
        for ids in data.splits.values():
            assert any(int(i) in rare[:6] for i in ids)


def test_rows_for_prediction_need_no_annotation(tmp_path):
    rows = drawn.squares(10, sizes=MANY)
    data = open_data(drawn.mask_folder(tmp_path / "set", rows))
    schema = Schema.from_dict(json.loads(json.dumps(data.schema.to_dict())))
    one = read_rows(tmp_path / "set" / "images" / "03.png", schema)
    assert one.columns.target is None
    batch = next(one.stream("all", batch_size=1, shuffle=False).epoch(0))
    assert batch.target is None
    whole = next(data.stream("train", batch_size="full", shuffle=False).epoch(0))
    at = whole.ids.tolist().index(3) if 3 in whole.ids else None
    if at is not None:
        assert torch.equal(batch.inputs["image"][0], whole.inputs["image"][at])
    assert one.original_size([0]).tolist() == [list(rows[3][0].shape[:2])]
    assert np.array_equal(one.placement([0])[0], data.placement([3])[0])
    folder = read_rows(tmp_path / "set" / "images", schema)
    assert len(folder.splits["all"]) == 10
    again = read_rows(tmp_path / "set", schema)
    assert torch.equal(
        torch.from_numpy(again.columns.target.fetch(np.arange(10))),
        torch.from_numpy(data.columns.target.fetch(np.arange(10))),
    )


def test_classes_are_matched_by_name_in_other_data(tmp_path):
    rows = drawn.squares(12)
    data = open_data(drawn.voc_folder(tmp_path / "a", rows))
    other = tmp_path / "b"
    drawn.voc_folder(other, [(r[0], r[1], [b for b in r[2] if b[4] == 0]) for r in rows])
    found = read_rows(other, data.schema)
    codes = found.columns.target[:, :, 4]
    assert set(codes[codes >= 0].tolist()) == {data.schema.classes.index("red")}
    text = (other / "Annotations" / "05.xml").read_text()
    (other / "Annotations" / "05.xml").write_text(text.replace("red", "violet"))
    with pytest.raises(DataError, match=r"05\.png: the class 'violet' was not known in training"):
        read_rows(other, data.schema)


def test_points_are_matched_by_name_in_other_data(tmp_path):
    path = drawn.points_table(tmp_path)
    lines = [line.split(",") for line in path.read_text().split()[1:]]

    def table(name, header, order=(1, 2, 3, 4)):
        text = "\n".join(",".join([row[0], *(row[k] for k in order)]) for row in lines)
        (tmp_path / name).write_text(f"image,{header}\n{text}\n")
        return tmp_path / name

    named = table("named.csv", "low_x,low_y,high_x,high_y")
    data = open_data(named)
    wanted = data.columns.target
    turned = table("turned.csv", "high_x,high_y,low_x,low_y", (3, 4, 1, 2))
    assert torch.equal(read_rows(turned, data.schema).columns.target, wanted)
    assert torch.equal(read_rows(path, data.schema).columns.target, wanted), "unnamed: by place"
    with pytest.raises(DataError, match="no keypoint is called 'low'"):
        read_rows(table("other.csv", "left_x,left_y,high_x,high_y"), data.schema)


def test_the_task_can_be_overridden(tmp_path):
    root = drawn.coco_folder(tmp_path / "set")
    assert open_data(root).schema.task == "detect"
    masks = open_data(root, DataOptions(task="segment", image_size=(40, 60)))
    assert masks.schema.classes == ("background", "red", "green", "blue")
    expected = np.stack([r[1] for r in drawn.squares()])
    assert np.array_equal(masks.columns.target.fetch(np.arange(12)), expected)
    plain = open_data(drawn.mask_folder(tmp_path / "folder"), DataOptions(task="classify"))
    assert plain.schema.classes == ("images", "masks")
    with pytest.raises(DataError, match="has no keypoints"):
        open_data(root, DataOptions(task="pose"))
    with pytest.raises(ConfigError, match="there is no task 'segmnt'"):
        open_data(root, DataOptions(task="segmnt"))  # type: ignore[arg-type]


def test_several_people_in_a_picture_are_rows_of_their_own(tmp_path):
    rows = drawn.squares(9, sizes=MANY)
    data = open_data(drawn.coco_folder(tmp_path / "set", rows, points=True))
    assert data.schema.task == "pose"
    assert data.schema.target.classes == ("left_top", "right_bottom", "right_top")
    assert len(data.source.columns["image"]) == sum(len(r[2]) for r in rows)
    assert data.row_names([1]) == ["images/01.png#1"]
    side = {data.row_names([i])[0]: name for name, ids in data.splits.items() for i in ids}
    assert side["images/02.png#1"] == side["images/02.png#3"]
    row = data.source.row_names.index("images/02.png#3")
    point = data.columns.target[row, 0].tolist()
    x0, y0, *_ = rows[2][2][2]
    moved = data.placement([row])[0] @ np.array([x0, y0, 1.0])
    assert np.allclose(point[:2], moved[:2], atol=1e-4)
    assert data.columns.target[row, 2].tolist() == [0, 0, 0]
    batch = batch_of(data, next(s for s, ids in data.splits.items() if row in ids))
    at = batch.ids.tolist().index(row)
    x, y = (round(v) for v in point[:2])
    colour = raw_pixels(data, batch)[at, :, y + 1, x + 1]
    assert float((colour - torch.tensor(drawn.COLOURS[2])).abs().max()) < 90


def test_raw_rows_can_be_written(tmp_path):
    data = open_data(drawn.voc_folder(tmp_path / "set"))
    row = data.raw([0])[0]
    assert row["boxes"][0]["class"] == "red"
    json.dumps(data.raw(range(3)))
    assert data.picture(0).shape == (40, 60, 3)


def test_cached_targets_are_not_read_again(tmp_path, monkeypatch):
    root = drawn.mask_folder(tmp_path / "set")
    options = DataOptions(mode="mapped", cache=tmp_path / "cache")
    first = open_data(root, options)
    monkeypatch.setattr("gipi.data.masks.read_mask", None)
    monkeypatch.setattr("gipi.data.survey.read_mask", None)
    second = open_data(root, options)
    rows = np.arange(12)
    assert np.array_equal(first.columns.target.fetch(rows), second.columns.target.fetch(rows))


def test_grey_masks_without_names(tmp_path):
    root = drawn.mask_folder(tmp_path / "set", names="")
    data = open_data(root)
    assert data.schema.classes == ("class 0", "class 1", "class 2", "class 3")
    assert any("labels 0 to 3 are called class 0" in n for n in data.notes)
    stray = np.asarray(Image.open(root / "masks" / "00.png")).copy()
    stray[0, 0] = 9
    Image.fromarray(stray).save(root / "masks" / "00.png")
    assert any("5 of them are in no mask: is 9 one?" in n for n in open_data(root).notes)
    for path in (root / "masks").iterdir():
        values = np.asarray(Image.open(path))
        Image.fromarray(np.where(values > 0, 255, 0).astype(np.uint8)).save(path)
    binary = open_data(root, DataOptions(image_size=(40, 60)))
    assert binary.schema.classes == ("background", "foreground")
    assert set(np.unique(binary.columns.target.fetch(np.arange(12)))) == {0, 1}


@pytest.mark.data
@pytest.mark.parametrize("name", ["bccd", "camvid", "face-keypoints"])
def test_real_sets_in_prepared_pixels(data_folder, name):
    data = open_data(name, DataOptions(image_size=96, mode="mapped"))
    assert not any("left out" in note for note in data.notes)
    batch = next(data.stream("train", batch_size=16).epoch(0))
    _, high, wide = data.schema.field("image").shape
    target = batch.target
    if name == "camvid":
        assert target.dtype == torch.uint8
        assert set(target.unique().tolist()) <= {*range(11), IGNORED}
        road = data.schema.classes.index("road")
        low, top = (target[:, high // 2 :] == road).sum(), (target[:, : high // 2] == road).sum()
        assert low > 5 * top  # the road lies below
    elif name == "bccd":
        boxes = target[target[..., 4] >= 0]
        assert (boxes[:, :2] >= 0).all()
        assert (boxes[:, 2] <= wide + 1e-3).all()
        assert (boxes[:, 3] <= high + 1e-3).all()
        assert (boxes[:, 2:4] > boxes[:, :2]).all()
    else:
        eyes, mouth = target[:, 36:48, 1].mean(1), target[:, 48:, 1].mean(1)
        assert (eyes < mouth).all()
