"""Segmentation, detection, pose and several labels: from a folder to an answer, by commands."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import gipi
from gipi.cli import main
from gipi.deploy import load_model_folder
from tests import drawn

FIXED = [
    "--steps", "2", "--precision", "fp32", "--set", "threads=1", "--set", "layout=contiguous",
    "--set", "gemm=native", "--image-size", "32", "--quiet",
]  # fmt: skip
SMALL = {
    "segment": ["--set", "model.backbone=resnet20"],
    "detect": ["--set", "model.backbone=resnet18", "--set", "task.score=0.0001"],
    "pose": ["--set", "model.backbone=resnet20"],
}
MODELS = {"segment": "unet", "detect": "fcos", "pose": "heatmap"}
PRIMARY = {"segment": "mean_iou", "detect": "ap50", "pose": "nme"}
MAKE = {"segment": drawn.masks, "detect": drawn.boxes, "pose": drawn.points}
PICTURES = {"segment": "images/002.png", "detect": "images/002.png", "pose": "002.png"}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a trained run of each task, named by it."""
    root = tmp_path_factory.mktemp("drawn")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        patch.setenv("GIPI_CACHE", str(root / "cache"))
        for task, make in MAKE.items():
            data = make(root / f"{task}-data", 16)
            args = ["train", str(data), "--out", task, *SMALL[task], *FIXED]
            assert main(args) == 0
        yield root


def last(capsys) -> dict:
    return json.loads(capsys.readouterr().out.strip().splitlines()[-1])


@pytest.mark.parametrize("task", list(MAKE))
def test_the_task_and_its_model_follow_from_the_data(place, task) -> None:
    run = gipi.load(place / task)
    assert run.result["task"] == task
    assert run.result["model"] == MODELS[task]
    assert f"test/{PRIMARY[task]}" in run.metrics
    summary = json.loads((place / task / "evaluation" / "summary.json").read_text())
    assert summary["primary"]["name"] == PRIMARY[task]
    assert len(summary["worst"]) >= 2
    settings = (place / task / "config.yaml").read_text()
    assert "each picture is seen" in settings  # augmentation follows from the passes
    costs = [row["loss"] for row in summary["worst"]]
    assert costs == sorted(costs, reverse=True)


@pytest.mark.parametrize("task", list(MAKE))
def test_the_model_folder_holds_all_that_prediction_needs(place, task, tmp_path) -> None:
    folder = load_model_folder(place / task / "model")
    assert folder.task is not None
    assert folder.task.name == task
    picture = next(f for f in folder.schema.inputs if f.kind == "image")
    assert picture.shape[0] == 3
    alone = tmp_path / "alone"
    alone.mkdir()
    for file in (place / task / "model").iterdir():
        (alone / file.name).write_bytes(file.read_bytes())
    source = place / f"{task}-data" / PICTURES[task]
    with torch.random.fork_rng():
        one = gipi.load(place / task).predict(str(source))
    from gipi.deploy.predict import load

    two = load(alone).predict(str(source))
    assert one.records() == two.records()


def test_masks_come_back_at_the_original_size(place, tmp_path, capsys) -> None:
    pictures = sorted((place / "segment-data" / "images").glob("*.png"))[:4]
    names = [str(p) for p in pictures]
    assert main(["predict", "segment", *names, "--out", str(tmp_path / "o"), "--json"]) == 0
    assert last(capsys) == {"rows": 4, "out": str(tmp_path / "o")}
    capsys.readouterr()
    assert main(["predict", "segment", names[0]]) == 0
    assert "each mask as a PNG: --out FOLDER" in capsys.readouterr().out
    stored = json.loads((tmp_path / "o" / "predictions.json").read_text())
    for path, record in zip(pictures, stored, strict=True):
        with Image.open(tmp_path / "o" / record["mask"]) as image, Image.open(path) as original:
            mask = np.asarray(image)
            assert mask.shape == original.size[::-1]
        assert set(np.unique(mask)) <= {0, 1, 2}
        assert sum(record["shares"].values()) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("views", [[], ["--tta", "flip"]])
def test_boxes_and_points_are_in_original_pixels(place, capsys, views) -> None:
    source = str(place / "detect-data" / PICTURES["detect"])  # 60 x 80, and the model sees 32
    assert main(["predict", "detect", source, *views, "--json"]) == 0
    objects = last(capsys)["predictions"][0]["objects"]
    assert objects
    corners = np.array([o["box"] for o in objects])
    assert corners.min() >= 0
    assert corners[:, [0, 2]].max() <= 80
    assert corners[:, [1, 3]].max() <= 60
    assert corners.max() > 32
    source = str(place / "pose-data" / PICTURES["pose"])
    if views:
        assert main(["predict", "pose", source, *views, "--json"]) == 2
        assert "no pairs are known" in last(capsys)["error"]["found"]
        views = ["--tta", "shift"]
    assert main(["predict", "pose", source, *views, "--json"]) == 0
    points = last(capsys)["predictions"][0]["points"]
    assert list(points) == ["corner", "middle", "end"]
    assert all(-1 <= p["x"] <= 81 and -1 <= p["y"] <= 61 for p in points.values())


@pytest.mark.parametrize("task", list(MAKE))
def test_an_evaluation_says_the_scores_of_the_run(place, task, capsys) -> None:
    assert main(["evaluate", task, "--json"]) == 0
    found = last(capsys)
    run = json.loads((place / task / "result.json").read_text())
    key = f"test/{PRIMARY[task]}"
    assert found["metrics"][key] == pytest.approx(run["metrics"][key], abs=1e-4, nan_ok=True)
    assert ("ap_from" in found) == (task == "detect")


@pytest.mark.parametrize("task", list(MAKE))
def test_the_report_shows_pictures_and_hides_them_when_asked(place, task) -> None:
    run = gipi.load(place / task)
    page = run.report().read_text()
    assert page.count('class="pictured"') >= 2
    assert "weakest first" in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    hidden = run.report(samples=False).read_text()
    assert 'class="pictured"' not in hidden
    assert "002.png" not in hidden


def test_several_labels_a_row_are_learned_and_said(place, capsys) -> None:
    drawn.labels(place / "labels-data", 60)
    args = ["train", "labels-data/tags.csv", "--target", "tags", "--out", "labels", "--steps", "3",
            "--set", "model.widths=[8]", *FIXED[2:-3], "--quiet", "--json"]  # fmt: skip
    assert main(args) == 0
    assert "test/label_map" in last(capsys)["metrics"]
    assert main(["predict", "labels", "labels-data/tags.csv", "--json"]) == 0
    first = last(capsys)["predictions"][0]
    assert set(first["labels"]) <= {"high", "wide"}
    assert set(first["probabilities"]) == {"high", "wide"}
    assert main(["report", "labels"]) == 0
    assert "label mAP" in Path("labels/report.html").read_text()


def test_no_samples_leaves_no_picture_in_the_run(place) -> None:
    data = str(place / "pose-data" / "points.csv")
    args = ["train", data, "--out", "hidden", "--no-samples", *SMALL["pose"], *FIXED]
    assert main(args) == 0
    assert list(Path("hidden/evaluation").glob("*.png")) == []
    assert "pictured" not in Path("hidden/report.html").read_text().split("</style>")[1]
