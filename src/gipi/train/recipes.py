"""Default recipes: which model, how fast, how long and with what, decided from the data's shape.

The numbers were found on validation rows split off the training rows of the named data sets, never
on a test set. Everything here ranks below a file and a flag.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from gipi.train import language_recipes, picture_recipes, series_recipes, text_recipes

if TYPE_CHECKING:
    from gipi.core.schema import Schema
    from gipi.train.budget import Plan

FIRST_LR: dict[str, float] = {
    "sgd": 0.1, "momentum": 0.03, "nesterov": 0.03, "adagrad": 0.01, "adadelta": 1.0,
    "rmsprop": 1e-3, "lbfgs": 1.0, "muon": 0.02,
}  # fmt: skip
"""A first learning rate for optimizers whose scale is not that of Adam."""
ADAM_LR, FAST_ADAM_LR = 3e-3, 8e-3
"""Of those with Adam's scale where the recipe has Muon: for texts, and for FastNet at 256 rows."""

EVALUATIONS = 8
"""Evaluations in a run that was planned for a time: under one cycle only the last ones choose."""


@dataclass(frozen=True)
class Suggestion:
    """Values of configuration keys and, for each, the reason in words."""

    values: dict[str, Any] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)


def guess_model(schema: Schema) -> tuple[str, str]:
    """Return the name of the model for this data and the reason, as (name, reason)."""
    if schema.task == "forecast":
        return series_recipes.guess(schema)
    found = picture_recipes.guess(schema) or language_recipes.guess(schema)
    found = found or text_recipes.guess(schema)
    if found is not None:
        return found
    images = [f for f in schema.inputs if f.kind == "image"]
    if images:
        side = "x".join(map(str, images[0].shape[1:]))
        return "lenet5", f"the input is an image of {side} pixels"
    return "mlp", f"the input is a table of {len(schema.inputs)} columns"


def recipe_for(
    task: str,
    model: str,
    schema: Schema,
    rows: int,
    *,
    optimizer: str | None = None,
    loss: str | None = None,
    planned: Plan | None = None,
) -> Suggestion:
    """Return the default recipe for a task, a model and `rows` training rows.

    schema           tells images and texts from tables
    optimizer, loss  what the user has chosen: the recipe then leaves out what does not go with it
    planned          network and batch size of a time budget
    """
    images = any(f.kind == "image" for f in schema.inputs)
    if task == "forecast":
        values = series_recipes.recipe(model, rows)
    elif model == "fastnet":
        values = _fast(task, rows, planned)
    elif images and picture_recipes.is_deep(model, task):
        values = picture_recipes.recipe(task, model, schema, rows)
    elif language_recipes.is_language(schema):
        values = language_recipes.recipe(model, schema, rows)
    elif text_recipes.is_text(schema):
        values = text_recipes.recipe(task, model, schema, rows)
    elif model in ("perceptron", "linear"):
        values = _convex(task, model, rows)
    else:
        values = _images(task, rows) if images else _tables(task, model, rows)
    if optimizer is not None and optimizer != values.get("optimizer", "adamw"):
        muon = values.get("optimizer") == "muon"
        for key in ("optimizer", "weight_decay", "momentum"):
            values.pop(key, None)
        usual = _adam_lr(schema, values["batch_size"]) if muon else values["lr"]
        values["lr"] = FIRST_LR.get(optimizer, usual)
    if loss is not None:
        values.pop("task_options", None)
    size = f"recipe for {rows} training rows"
    reasons = {key: size if key in ("batch_size", "epochs") else "recipe" for key in values}
    return Suggestion(values, reasons)


def _adam_lr(schema: Schema, batch: int) -> float:
    """Return the rate of an optimizer with Adam's scale in place of Muon."""
    if text_recipes.is_text(schema):
        return ADAM_LR
    return round(FAST_ADAM_LR * math.sqrt(batch / 256), 4)


def _images(task: str, rows: int) -> dict[str, Any]:
    """AdamW under one cycle (Smith and Topin 2018): the net sees each picture a few times."""
    batch = _batch(rows, 128)
    values: dict[str, Any] = {
        "optimizer": "adamw", "lr": round(8e-3 * math.sqrt(batch / 128), 4),
        "weight_decay": 0.01, "schedule": "one-cycle",
        "batch_size": batch, "epochs": _epochs(rows, batch, steps=1200, least=10, most=60),
    }  # fmt: skip
    if task == "classify":
        values["task_options"] = {"label_smoothing": 0.05}
    return values


def _fast(task: str, rows: int, planned: Plan | None) -> dict[str, Any]:
    """Muon under one cycle with strong smoothing (Jordan 2024), flips and small shifts.

    After the same passes over CIFAR-10 Muon names more validation rows than AdamW, at any rate
    within a factor of five: benchmarks/quality/fast_recipe.py.
    """
    batch = _batch(rows, 256) if planned is None else planned.batch_size
    values: dict[str, Any] = {
        "optimizer": "muon", "lr": round(0.03 * math.sqrt(batch / 512), 4), "weight_decay": 0.02,
        "schedule": "one-cycle", "batch_size": batch, "epochs": 10.0,
    }  # fmt: skip
    if task == "classify":
        values["task_options"] = {"label_smoothing": 0.1}
    if planned is not None:
        del values["epochs"]
        values["model_options"] = dict(planned.options)
        values["eval_every"] = max(1.0, round(planned.epochs / EVALUATIONS, 1))
    return values


def _tables(task: str, model: str, rows: int) -> dict[str, Any]:
    """AdamW under one cycle with decay and dropout: tables are small and noisy."""
    batch = _batch(rows, 256)
    values: dict[str, Any] = {
        "optimizer": "adamw", "lr": 3e-3, "weight_decay": 0.03, "schedule": "one-cycle",
        "batch_size": batch, "epochs": _epochs(rows, batch, steps=1500, least=10, most=100),
    }  # fmt: skip
    if model == "mlp":
        values["model_options"] = {"dropout": 0.1}
    if task == "regress":
        values["clip_norm"] = 1.0
    return values


def _convex(task: str, model: str, rows: int) -> dict[str, Any]:
    """One layer: a plain descent finds what there is to find."""
    batch = _batch(rows, 128)
    values: dict[str, Any] = {
        "batch_size": batch, "epochs": _epochs(rows, batch, steps=2000, least=10, most=100),
    }  # fmt: skip
    if model == "perceptron" and task == "classify":
        values |= {"optimizer": "sgd", "lr": 0.1, "schedule": "linear"}
        values["task_options"] = {"loss": "perceptron"}
    else:
        values |= {"optimizer": "adamw", "lr": 1e-2, "schedule": "one-cycle"}
    return values


def _batch(rows: int, usual: int) -> int:
    """Return the usual batch, or less where an epoch would have fewer than about ten steps."""
    return max(8, min(usual, 1 << int(math.log2(max(rows / 10, 8)))))


def _epochs(rows: int, batch: int, *, steps: int, least: int, most: int) -> int:
    """Return the passes that come to about `steps` steps, within [least, most]."""
    return min(most, max(least, math.ceil(steps * batch / max(rows, 1))))
