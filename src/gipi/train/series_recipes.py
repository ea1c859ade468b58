"""Default recipes of series: which forecaster, how fast, how long.

Chosen on validation windows of ETTh1 and of generated series, never on test windows.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from gipi.core.errors import ModelError
from gipi.data.windows import geometry_of
from gipi.models import MODELS

if TYPE_CHECKING:
    from gipi.core.schema import Schema
    from gipi.data import Dataset

LINEAR = ("dlinear", "nlinear")


def guess(schema: Schema) -> tuple[str, str]:
    """Return the forecaster for a series and why."""
    window = geometry_of(schema)
    count = len(schema.of("target"))
    return "dlinear", (
        f"{count} series, {window.lookback} steps to {window.horizon}: a linear map is hard to beat"
    )


def forecaster(model: str) -> str:
    """Return the name of the forecaster that `model` stands for: lstm is the one made of it.

    Raises `ModelError` where a named model does not forecast.
    """
    model = {"lstm": "lstm-forecaster"}.get(model, model)
    if "forecast" in MODELS.get(model).tags:
        return model
    names = [record.name for record in MODELS if "forecast" in record.tags]
    raise ModelError(
        f"the model '{model}' does not forecast", "one of " + ", ".join(names),
        f"use --model {names[0]}, or another task",
    )  # fmt: skip


def recipe(model: str, windows: int) -> dict[str, Any]:
    """Return AdamW under one cycle; a linear map stays in fp32, where it is fast enough."""
    batch = max(8, min(32 if model in LINEAR else 64, 1 << int(math.log2(max(windows / 10, 8)))))
    steps, most = (2500, 60) if model in LINEAR else (1500, 60)
    epochs = min(most, max(5, math.ceil(steps * batch / max(windows, 1))))
    lr = 2e-3 if model == "lstm-forecaster" else 1e-3
    values: dict[str, Any] = {
        "optimizer": "adamw", "lr": lr, "weight_decay": 0.01, "schedule": "one-cycle",
        "batch_size": batch, "epochs": epochs, "clip_norm": 1.0,
    }  # fmt: skip
    return {**values, "precision": "fp32"} if model in LINEAR else values


def lengths(dataset: Dataset) -> dict[str, int]:
    """Return the configuration keys that say what a window is, as they were settled."""
    if dataset.schema.task != "forecast":
        return {}
    window = geometry_of(dataset.schema)
    return {"horizon": window.horizon, "lookback": window.lookback, "season": window.season}
