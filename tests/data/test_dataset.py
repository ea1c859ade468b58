from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from gipi.core.errors import ConfigError, DataError
from gipi.core.schema import Schema
from gipi.data import DataOptions, cache_info, open_data, read_rows
from gipi.data.source import TEST, TRAIN, Source

RNG = np.random.RandomState(0)


def frame(n: int = 200) -> dict[str, np.ndarray]:
    """Return a table with every kind of column."""
    words = RNG.choice(["x", "y", "z"], n).astype(object)
    words[3] = None
    size = RNG.rand(n)
    size[5] = np.nan
    return {
        "size": size, "colour": words,
        "day": np.datetime64("2021-01-01", "us") + RNG.randint(0, 900, n) * np.timedelta64(1, "D"),
        "house": RNG.randint(0, 12, n), "importance": RNG.rand(n),
        "price": RNG.rand(n) * 100 + 5,
    }  # fmt: skip


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """24 pictures of two classes, larger in red or in blue, with odd files among them."""
    for i in range(24):
        place = tmp_path / "photos" / ("blue" if i % 2 else "red")
        place.mkdir(parents=True, exist_ok=True)
        pixels = RNG.randint(0, 90, (10, 8, 3)).astype(np.uint8)
        pixels[..., 2 if i % 2 else 0] += 120
        image = Image.fromarray(pixels)
        image.convert("P" if i == 3 else "RGBA" if i == 4 else "RGB").save(place / f"{i}.png")
    return tmp_path / "photos"


def test_digits_open_without_anything() -> None:
    data = open_data("digits")
    assert data.name == "digits"
    assert data.schema.classes == tuple("0123456789")
    assert data.signature(10).image == (1, 8, 8)
    batch = next(data.stream("train", batch_size=128).epoch(0))
    image = batch.inputs["image"]
    assert image.dtype == torch.float32
    assert image.shape == (128, 1, 8, 8)
    train = data.stream("train", batch_size="full")
    whole = next(train.epoch(0)).inputs["image"]
    assert float(whole.mean()) == pytest.approx(0, abs=1e-3)
    assert float(whole.std()) == pytest.approx(1, abs=1e-3)
    assert data.picture(0).shape == (8, 8, 1)
    assert data.raw([4]) == [{"image": "row 5", "digit": 4}]
    assert data.row_names(np.array([0, 9])) == ["row 1", "row 10"]


def test_a_table_with_group_and_weight() -> None:
    table = frame()
    options = DataOptions(target="price", group="house", weight="importance")
    data = open_data(table, options)
    assert data.schema.task == "regress"
    for a, b in (("train", "val"), ("train", "test"), ("val", "test")):
        houses = [set(table["house"][data.splits[part]]) for part in (a, b)]
        assert not houses[0] & houses[1]
    stream = data.stream("train", batch_size="full")
    batch = next(stream.epoch(0))
    assert batch.weight is not None
    assert batch.ids is not None
    assert batch.target is not None
    assert torch.equal(batch.weight, torch.from_numpy(table["importance"]).float()[batch.ids])
    stats = data.schema.field("price").stats
    values = batch.target.double() * stats["std"] + stats["mean"]
    assert torch.allclose(values, torch.from_numpy(table["price"])[batch.ids], rtol=1e-5)
    assert data.raw([3, 5])[0]["colour"] is None
    assert data.raw([3, 5])[1]["size"] is None
    json.dumps(data.raw(range(9)))


def test_by_time_and_by_column() -> None:
    table = frame()
    data = open_data(table, DataOptions(target="price", time_column="day"))
    assert table["day"][data.splits["train"]].max() < table["day"][data.splits["test"]].min()
    table["part"] = np.array(["train", "Validation", "TEST", "train"] * 50, dtype=object)
    data = open_data(table, DataOptions(target="price", split_column="part"))
    assert data.splits["val"].tolist() == list(range(1, 200, 4))
    assert data.splits["test"].tolist() == list(range(2, 200, 4))
    table["part"][7] = "maybe"
    with pytest.raises(DataError, match="row 8: the split column 'part' says 'maybe'"):
        open_data(table, DataOptions(target="price", split_column="part"))


def test_rows_read_later_are_encoded_as_in_training() -> None:
    table = frame()
    data = open_data(table, DataOptions(target="price"))
    schema = Schema.from_dict(json.loads(json.dumps(data.schema.to_dict())))
    again = read_rows(table, schema)
    for name, values in data.columns.inputs.items():
        assert torch.equal(values, again.columns.inputs[name])  # type: ignore[arg-type]
    assert torch.equal(data.columns.target, again.columns.target)  # type: ignore[arg-type]
    part = {k: v[:7] for k, v in table.items() if k != "price"}
    part["extra"] = np.arange(7)
    few = read_rows(part, schema)
    assert few.splits["all"].tolist() == list(range(7))
    batch = next(few.stream("all", batch_size=3, shuffle=False).epoch(0))
    assert batch.target is None
    assert torch.equal(batch.inputs["numbers"], data.columns.inputs["numbers"][:3])  # type: ignore[index]
    del part["colour"]
    with pytest.raises(DataError, match="the column 'colour' is missing"):
        read_rows(part, schema)


def test_rows_with_some_targets_missing_have_none() -> None:
    table = frame()
    data = open_data(table, DataOptions(target="price"))
    table["price"][2] = np.nan
    read = read_rows(table, data.schema)
    assert read.columns.target is None
    assert "1 of 200 rows have no 'price'" in read.notes[-1]
    labelled = {"a": RNG.rand(4), "y": np.array(["p", "q", "p", "q"], dtype=object)}
    fitted = open_data(labelled, DataOptions(target="y", val=0, test=0)).schema
    labelled["y"][0] = "new"
    assert read_rows(labelled, fitted, target=False).columns.target is None
    with pytest.raises(DataError, match="row 1: the class 'new'"):
        read_rows(labelled, fitted)


def test_a_given_test_set_is_there_when_rows_are_read() -> None:
    given = np.repeat([TRAIN, TEST], [80, 20]).astype(np.int8)
    source = Source(
        "made", {"a": RNG.rand(100), "y": np.arange(100) % 2}, 100, given_split=given, target="y"
    )
    data = open_data(source)
    assert data.splits["test"].tolist() == list(range(80, 100))
    read = read_rows(source, data.schema)
    assert read.splits["test"].tolist() == list(range(80, 100))
    assert len(read.splits["all"]) == 100


def test_pictures_of_a_folder_are_cached_once(photos: Path, tmp_path: Path) -> None:
    options = DataOptions(mode="mapped", cache=tmp_path / "cache")
    done: list[tuple[int, int]] = []
    data = open_data(photos, options, progress=lambda i, n: done.append((i, n)))
    assert done[-1] == (24, 24)
    assert data.signature(2).image == (3, 10, 8)
    assert len(cache_info(tmp_path / "cache")) == 1
    done.clear()
    again = open_data(photos, options, progress=lambda i, n: done.append((i, n)))
    assert done == []
    a, b = (next(d.stream("train", batch_size=99).epoch(0)) for d in (data, again))
    assert torch.equal(a.inputs["image"], b.inputs["image"])
    path = next((tmp_path / "cache").glob("*/columns.bin"))
    path.write_bytes(path.read_bytes()[:-1] + b"\x07")
    repaired = open_data(photos, options)
    assert any("damaged" in note for note in repaired.notes)
    assert data.picture(0).shape == (10, 8, 3)
    assert data.row_names([0])[0].endswith(".png")
    larger = open_data(photos, DataOptions(image_size=(6, 5), cache=tmp_path / "cache"))
    assert larger.signature(2).image == (3, 6, 5)


def test_a_cache_without_room_streams(photos: Path, tmp_path: Path) -> None:
    options = DataOptions(mode="mapped", cache=tmp_path / "cache", cache_budget_bytes=10)
    data = open_data(photos, options)
    assert any("exceed the cache's budget" in note for note in data.notes)
    assert next(data.stream("train", batch_size=4).epoch(0)).inputs["image"].shape == (4, 3, 10, 8)


def test_one_picture_is_read_as_in_training(photos: Path) -> None:
    data = open_data(photos)
    path = data.source.columns["image"].paths[0]  # type: ignore[union-attr]
    one = read_rows(str(path), data.schema)
    batch = next(one.stream("all", batch_size=1).epoch(0))
    trained = data.stream("train", batch_size=1).epoch(0)
    split = next(name for name, ids in data.splits.items() if 0 in ids)
    for found in data.stream(split, batch_size=1, shuffle=False).epoch(0):
        if found.ids is not None and int(found.ids) == 0:
            assert torch.equal(found.inputs["image"], batch.inputs["image"])
            break
    else:
        pytest.fail("row 0 is in no batch")
    assert next(trained).inputs["image"].shape == batch.inputs["image"].shape
    (photos / "red" / "0.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"red/0\.png"):
        open_data(photos)


def test_normalisation_by_name(photos: Path) -> None:
    data = open_data(photos, DataOptions(normalise="imagenet"))
    assert data.schema.inputs[0].stats["mean"] == [0.485, 0.456, 0.406]
    raw = open_data(photos, DataOptions(normalise="none"))
    values = next(raw.stream("train", batch_size="full").epoch(0)).inputs["image"]
    assert 0 <= float(values.min()) < float(values.max()) <= 1
    with pytest.raises(ConfigError, match="normalise='imagenett'"):
        open_data(photos, DataOptions(normalise="imagenett"))
    with pytest.raises(ConfigError, match="grey"):
        open_data("digits", DataOptions(normalise="imagenet"))
    with pytest.raises(ConfigError, match="image_size"):
        open_data(photos, DataOptions(image_size=0))


def test_float_pictures_and_matrices() -> None:
    images, labels = RNG.rand(40, 6, 5, 1).astype(np.float32), np.arange(40) % 2
    data = open_data((images, labels))
    batch = next(data.stream("train", batch_size=8).epoch(0))
    assert batch.inputs["image"].shape == (8, 1, 6, 5)
    assert data.picture(0).dtype == np.uint8
    read = read_rows(images, data.schema)
    assert next(read.stream("all", batch_size=2).epoch(0)).inputs["image"].shape == (2, 1, 6, 5)
    with pytest.raises(DataError, match="another number type"):
        read_rows((images * 255).astype(np.uint8), data.schema)
    matrix = RNG.rand(40, 7)
    data = open_data((matrix, labels))
    assert data.signature(2).numbers == 7
    read = read_rows(matrix[:3], data.schema)
    assert torch.equal(read.columns.inputs["numbers"], data.columns.inputs["numbers"][:3])  # type: ignore[index]


def test_wrong_requests() -> None:
    data = open_data("iris")
    with pytest.raises(DataError, match="did you mean 'train'"):
        data.stream("trian", batch_size=8)
    with pytest.raises(DataError, match="no pictures"):
        data.picture(0)
    with pytest.raises(DataError, match="only one class"):
        open_data({"a": RNG.rand(9), "y": np.array(["k"] * 9, dtype=object)})


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "test_rows"),
    [
        ("adult", 16_281), ("fashion-mnist", 10_000), ("cifar10", 10_000), ("bccd", 72),
        ("camvid", 47), ("face-keypoints", 200),
    ],
)  # fmt: skip
def test_official_test_rows_stay_as_they_are(data_folder: Path, name: str, test_rows: int) -> None:
    del data_folder
    data = open_data(name)
    assert len(data.splits["test"]) == test_rows
    assert data.source.given_split is not None
    assert np.array_equal(data.splits["test"], np.flatnonzero(data.source.given_split == TEST))


@pytest.mark.parametrize("form", ["%d/%m/%Y", "%m/%d/%Y"])
def test_one_date_is_read_in_the_form_of_training(tmp_path: Path, form: str) -> None:
    days = np.datetime64("2020-01-01", "D") + 5 * np.arange(60)
    texts = [day.item().strftime(form) for day in days]
    table = tmp_path / "t.csv"
    lines = (f"{text},{i % 7},{i % 2}" for i, text in enumerate(texts))
    table.write_text("day,x,y\n" + "\n".join(lines) + "\n")
    data = open_data(table, DataOptions(target="y"))
    schema = Schema.from_dict(json.loads(json.dumps(data.schema.to_dict())))
    place = texts.index(np.datetime64("2020-01-06").item().strftime(form))  # 6 January, or 1 June?
    few = tmp_path / "few.csv"
    few.write_text(f"day,x\n{texts[place]},{place % 7}\n")
    for rows in (few, {"day": [texts[place]], "x": [place % 7]}):
        again = read_rows(rows, schema, target=False).columns.inputs["numbers"]
        assert torch.equal(again[0], data.columns.inputs["numbers"][place])


def test_a_date_in_another_form_than_in_training_is_named() -> None:
    days = [f"{1 + i % 12:02}/{13 + i % 15}/2020" for i in range(60)]
    data = open_data({"day": days, "x": RNG.rand(60), "y": ["a", "b"] * 30})
    with pytest.raises(DataError, match=r"row 1: 'day' is no date in the form month/day/year"):
        read_rows({"day": ["25/12/2020"], "x": [0.5]}, data.schema)


def test_prediction_needs_no_weights() -> None:
    data = open_data(
        {"x": RNG.rand(40), "w": np.ones(40), "y": ["a", "b"] * 20}, DataOptions(weight="w")
    )
    few = {"x": [0.5], "w": [None]}
    assert read_rows(few, data.schema, target=False).columns.weight is None
    with pytest.raises(DataError, match="weight 'w'"):
        read_rows({**few, "y": ["a"]}, data.schema)


def test_weights_that_are_all_zero_are_refused() -> None:
    table = {"x": RNG.rand(40), "w": np.zeros(40), "y": ["a", "b"] * 20}
    with pytest.raises(DataError, match="every weight of the train rows in 'w' is 0"):
        open_data(table, DataOptions(weight="w"))


@pytest.mark.parametrize(("form", "fine"), [("week {}", False), ("{:02}/2020", False),
                                            ("2020-{:02}", True)])  # fmt: skip
def test_text_without_an_order_in_time_is_refused(form: str, fine: bool) -> None:
    moments = [form.format(1 + i // 5) for i in range(60)]
    table = {"x": RNG.rand(60), "t": moments, "y": ["a", "b"] * 30}
    if fine:
        found = open_data(table, DataOptions(target="y", time_column="t"))
        assert found.splits["test"].tolist() == [*range(45, 60)]
    else:
        with pytest.raises(DataError, match="no order in time"):
            open_data(table, DataOptions(target="y", time_column="t"))
