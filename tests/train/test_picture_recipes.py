"""What is chosen for pictures, and what it leaves to the user."""

from __future__ import annotations

import pytest

from gipi.core.schema import Field, Schema
from gipi.train import picture_recipes
from gipi.train.recipes import guess_model, recipe_for

KINDS = {"segment": "mask", "detect": "boxes", "pose": "keypoints", "classify": "category"}
SHAPES = {"mask": (64, 64), "boxes": (3, 6), "keypoints": (2, 3), "category": ()}


def schema(task: str, *, side: int = 64, channels: int = 3, **stats: object) -> Schema:
    kind = KINDS[task]
    units = {"mean": [0.5] * channels, "std": [0.2] * channels, "range": 255.0}
    image = Field("image", "image", "input", shape=(channels, side, side), stats=units)
    target = Field("y", kind, "target", shape=SHAPES[kind], classes=("a", "b"), stats=dict(stats))
    return Schema((image, target), task)


@pytest.mark.parametrize(
    ("task", "side", "model"),
    [("segment", 64, "unet"), ("detect", 64, "fcos"), ("pose", 64, "heatmap"),
     ("segment", 16, "unet"), ("classify", 33, "resnet18"), ("classify", 32, "lenet5")],
)  # fmt: skip
def test_the_model_follows_from_the_task_and_the_size_with_a_reason(task, side, model) -> None:
    name, why = guess_model(schema(task, side=side))
    assert name == model
    assert f"{side}x{side}" in why


def test_the_batch_and_the_epochs_follow_from_the_rows() -> None:
    few = recipe_for("segment", "unet", schema("segment"), 40).values
    many = recipe_for("segment", "unet", schema("segment"), 40_000).values
    assert (few["batch_size"], many["batch_size"]) == (4, 8)
    assert few["epochs"] > many["epochs"] == 15


def test_a_detector_with_anchors_gets_its_own_assignment() -> None:
    values = recipe_for("detect", "retinanet", schema("detect"), 400).values
    assert values["task_options"] == {"method": "retinanet"}


def test_few_pictures_are_said_to_be_few() -> None:
    assert "by heart" in picture_recipes.honest("resnet18", "classify", 244)
    assert picture_recipes.honest("resnet18", "classify", 50_000) == ""
    assert picture_recipes.honest("lenet5", "classify", 244) == ""


def test_another_optimizer_than_muon_gets_a_rate_of_its_own_scale() -> None:
    asked = recipe_for("classify", "fastnet", schema("classify"), 50_000, optimizer="adamw")
    usual = recipe_for("classify", "fastnet", schema("classify"), 50_000)
    assert usual.values["optimizer"] == "muon"
    assert asked.values["lr"] == 8e-3  # 256 rows a step
    assert usual.values["lr"] != asked.values["lr"]
