"""Default recipes for photographs: nets with a backbone, and targets that lie on the picture.

What is chosen here ranks below a file and a flag, and is printed with its reason.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gipi.core.schema import Field, Schema

LENET_SIDE = 32  # pixels of a side up to which LeNet-5 is a sensible first net
FEW = 2000  # pictures below which a deep net from random weights learns them by heart
MODELS = {
    "segment": ("unet", "each pixel gets a class: a decoder with skips brings fine detail back"),
    "detect": ("fcos", "boxes without anchors, from five scales: nothing to tune to their sizes"),
    "pose": ("heatmap", "one map a point keeps its place to a fraction of a pixel"),
}
USUAL = {"segment": 8, "detect": 8, "pose": 32, "classify": 64, "regress": 64}  # rows of a step
LR = {"segment": 3e-3, "pose": 3e-3}  # both better than 1e-3 on validation rows
STEPS = {"segment": 2500, "detect": 3500, "pose": 3500, "classify": 3000, "regress": 3000}
DEEP = ("alexnet", "googlenet", "resnet", "densenet")


def guess(schema: Schema) -> tuple[str, str] | None:
    """Return (model, reason) for pictures that want more than LeNet-5; None for all other data."""
    picture = picture_of(schema)
    if picture is None:
        return None
    side = "x".join(map(str, picture.shape[1:]))
    if schema.task in MODELS:
        name, why = MODELS[schema.task]
        return name, f"{why}; pictures of {side} pixels"
    if len(picture.shape) == 3 and max(picture.shape[1:]) > LENET_SIDE:
        return "resnet18", f"the input is an image of {side} pixels, more than LeNet-5 was made for"
    return None


def is_deep(model: str, task: str) -> bool:
    """Return whether a model is trained by the recipe of this file."""
    return task in MODELS or model.startswith(DEEP)


def recipe(task: str, model: str, schema: Schema, rows: int) -> dict[str, Any]:
    """Return AdamW under one cycle, sized by the rows; augmentation follows from the passes."""
    usual = USUAL.get(task, 64)
    batch = max(4, min(usual, 1 << int(math.log2(max(rows / 10, 4)))))
    epochs = math.ceil(STEPS.get(task, 3000) * batch / max(rows, 1))
    values: dict[str, Any] = {
        "optimizer": "adamw", "lr": LR.get(task, 1e-3), "weight_decay": 0.02,
        "schedule": "one-cycle",
        "batch_size": batch, "epochs": min(150, max(15, epochs)), "clip_norm": 2.0,
    }  # fmt: skip
    if task == "classify" and not (schema.target is not None and schema.target.multi):
        values["task_options"] = {"label_smoothing": 0.1}
    if model == "retinanet":
        values["task_options"] = {"method": "retinanet"}
    return values


def picture_of(schema: Schema) -> Field | None:
    """Return the column of pictures."""
    return next((f for f in schema.inputs if f.kind == "image"), None)


def honest(model: str, task: str, rows: int) -> str:
    """Return what must be said of few pictures and a deep net; empty where they are enough."""
    if rows >= FEW or not is_deep(model, task) or task in MODELS:
        return ""
    return (
        f"{rows} training pictures are few for {model} from random weights: expect it to learn "
        "them by heart; more pictures, or weights that were trained on others, would help"
    )
