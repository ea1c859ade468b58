"""Answers on pictures as records, columns and files."""

from __future__ import annotations

import csv
import json

import numpy as np
from PIL import Image

from gipi.deploy.predictions import Predictions, joined

CLASSES = ("cat", "dog")


def objects(*found: tuple[str, float, tuple[float, ...]]) -> dict[str, np.ndarray]:
    values = {k: np.empty(1, dtype=object) for k in ("boxes", "scores", "index", "labels")}
    values["boxes"][0] = np.array([f[2] for f in found], dtype=np.float32).reshape(-1, 4)
    values["scores"][0] = np.array([f[1] for f in found], dtype=np.float32)
    values["index"][0] = np.array([CLASSES.index(f[0]) for f in found], dtype=np.int64)
    values["labels"][0] = np.array([f[0] for f in found], dtype=object)
    return values


def test_boxes_are_objects_and_lines(tmp_path) -> None:
    values = joined([objects(("dog", 0.75, (1, 2, 30.5, 40))), objects()])
    said = Predictions(("a.png", "b.png"), values, CLASSES)
    assert said.records() == [
        {"row": "a.png",
         "objects": [{"label": "dog", "score": 0.75, "box": [1.0, 2.0, 30.5, 40.0]}]},
        {"row": "b.png", "objects": []},
    ]  # fmt: skip
    said.save(tmp_path / "o.csv")
    lines = list(csv.reader((tmp_path / "o.csv").read_text().splitlines()))
    assert lines == [["row", "label", "score", "x0", "y0", "x1", "y1"],
                     ["a.png", "dog", "0.75", "1.0", "2.0", "30.5", "40.0"]]  # fmt: skip


def test_points_have_names() -> None:
    values = {"points": np.array([[[1.234, 5.0, 0.9], [3.0, 4.0, 0.5]]], dtype=np.float32)}
    said = Predictions(("a.png",), values, ("nose", "ear"))
    assert said[0]["points"]["nose"] == {"x": 1.23, "y": 5.0, "confidence": 0.9}
    assert list(said.columns()) == ["row", "nose_x", "nose_y", "nose_confidence",
                                    "ear_x", "ear_y", "ear_confidence"]  # fmt: skip
    unnamed = Predictions(("a.png",), values)
    assert list(unnamed[0]["points"]) == ["point1", "point2"]


def test_masks_go_into_a_folder_at_their_own_sizes(tmp_path) -> None:
    masks = np.empty(3, dtype=object)
    masks[:] = [np.zeros((4, 6), np.uint8), np.ones((5, 3), np.uint8),
                np.array([[0, 255], [1, 1]], np.uint8)]  # fmt: skip
    said = Predictions(("x/1.jpg", "y/1.jpg", "x-1.jpg"), {"mask": masks}, CLASSES)
    said.save(tmp_path / "out")
    stored = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert [r["mask"] for r in stored] == ["x-1.png", "y-1.png", "x-1-2.png"]
    assert stored[2]["shares"] == {"cat": 0.333333, "dog": 0.666667}
    for record, mask in zip(stored, masks, strict=True):
        with Image.open(tmp_path / "out" / record["mask"]) as image:
            found = np.asarray(image)
        assert np.array_equal(found, mask)
        assert (record["height"], record["width"]) == mask.shape
    assert (tmp_path / "out" / "predictions.csv").exists()


def test_several_labels_are_a_list_and_one_cell() -> None:
    labels = np.empty(2, dtype=object)
    labels[0], labels[1] = ["dog", "cat"], []
    values = {"labels": labels, "probabilities": np.array([[0.6, 0.9], [0.1, 0.2]])}
    said = Predictions(("1", "2"), values, CLASSES)
    assert said[0]["labels"] == ["dog", "cat"]
    assert said[1]["labels"] == []
    assert said.columns()["labels"] == ["dog, cat", ""]
    assert said.columns()["p_dog"] == [0.9, 0.2]


def test_a_number_has_the_name_of_its_target() -> None:
    values = {"value": np.array([1.5]), "std": np.array([0.1])}
    assert Predictions(("1",), values, (), "price")[0] == {"row": "1", "price": 1.5, "std": 0.1}
    assert list(Predictions(("1",), values, (), "std").columns()) == ["row", "value", "std"]
    many = Predictions(("1",), {"value": np.array([[1.0, 2.0]])}, (), "y")
    assert many.columns() == {"row": ["1"], "y_0": [1.0], "y_1": [2.0]}
