"""The part of the report about the run itself: how it learned, how fast, and what happened."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from gipi.core.config import Recipe
from gipi.core.page import both, card
from gipi.core.svg import Line, Mark, line_chart, number
from gipi.report.charts import layer_chart
from gipi.report.read import RunData, column, dig, finite, layer_columns
from gipi.train.window import MEASURED_ROWS

if TYPE_CHECKING:
    from collections.abc import Callable

SHARES = (
    "accuracy", "top5", "f1", "balanced_accuracy", "auc", "precision", "recall",
    "mean_iou", "dice", "pixel_accuracy", "ap", "ap50", "ap75", "ar100", "pck", "oks", "nme",
    "label_map", "label_f1_micro", "label_f1_macro", "exact_match",
    "entity_f1", "token_accuracy", "exact_match_text", "answer_f1", "span_f1",
)  # fmt: skip
UPPER = {
    "bleu": "BLEU", "rouge_l": "ROUGE-L",
    "rmse": "RMSE", "mae": "MAE", "r2": "R²", "auc": "AUC", "f1": "F1", "mean_iou": "mean IoU",
    "ap": "AP", "ap50": "AP50", "ap75": "AP75", "ar100": "AR100", "nme": "NME", "pck": "PCK",
    "oks": "OKS", "mse": "MSE", "mase": "MASE", "original_mae": "MAE, original units",
    "label_map": "label mAP", "label_f1_micro": "label F1, micro",
    "label_f1_macro": "label F1, macro", "entity_f1": "entity F1", "answer_f1": "answer F1",
    "span_f1": "span F1",
}  # fmt: skip
MOST_LINES = 5

_RATIO_NOTE = (
    "One step moves a weight by about a thousandth of its size when the learning rate fits; the "
    "shaded band is the usual range."
)


def horizontal(run: RunData) -> tuple[float, str]:
    """Return (steps per unit, name of the unit) of the horizontal axes: epochs where known."""
    per_epoch = steps_per_epoch(run)
    steps = [s for row in run.rows if (s := finite(row.get("step"))) is not None]
    if per_epoch and steps and max(steps) >= per_epoch:
        return per_epoch, "epoch"
    return 1.0, "step"


def steps_per_epoch(run: RunData) -> float | None:
    """Return the optimizer steps of an epoch, from the rows of a split and the batch size."""
    rows = finite(dig(run.about, "rows", "train"))
    size = run.config.get("batch_size", Recipe.model_fields["batch_size"].default)
    if rows is None or not (isinstance(size, int) and size > 0):
        return 1.0 if rows and size == "full" else None
    return float(math.ceil(rows / min(size, rows)))


def best_step(run: RunData) -> tuple[float, float, str] | None:
    """Return (step, value, key) of the best validation score; None without any finite one."""
    name = str(dig(run.evaluation, "primary", "name") or "loss")
    greater = dig(run.evaluation, "primary", "greater_is_better") is True
    for key, up in ((f"val/{name}", greater), ("val/loss", False)):
        kept = [r for r in run.rows if r.get("best") is True and finite(r.get(key)) is not None]
        if kept and (step := finite(kept[-1].get("step"))) is not None:  # what the run restored
            return step, finite(kept[-1].get(key)) or 0.0, key
        steps, values = column(run, key)
        pairs = [(v, s) for s, v in zip(steps, values, strict=True) if math.isfinite(v)]
        if pairs:
            value, step = max(pairs, key=lambda p: (p[0] if up else -p[0], -p[1]))
            return step, value, key
    return None


def _marks(run: RunData, per: float) -> list[Mark]:
    best = best_step(run)
    return [Mark(best[0] / per, "best")] if best else []


def learning_cards(run: RunData) -> list[str]:
    """Return cards of the loss and of every metric, training beside validation."""
    per, unit = horizontal(run)
    found = {
        key.partition("/")[2]
        for row in run.rows
        for key in row
        if key.startswith(("train/", "val/"))
    }
    primary = str(dig(run.evaluation, "primary", "name") or "")
    order = sorted(found, key=lambda n: (n != "loss", n != primary, n))
    return [c for name in order if (c := _metric_card(run, name, per, unit))]


def metric_name(name: str) -> str:
    """Return a metric's name as it is written: RMSE, R², balanced accuracy."""
    return UPPER.get(name, name.replace("_", " "))


def _metric_card(run: RunData, name: str, per: float, unit: str) -> str:
    lines, keys = [], []
    for split, label, colour in (("train", "training", 1), ("val", "validation", 2)):
        steps, values = column(run, f"{split}/{name}")
        if steps:
            x = [s / per for s in steps]
            lines.append(Line(label, x, values, colour, dots=split == "val"))
            keys.append((label, colour))
    if not lines:
        return ""
    values = [v for line in lines for v in line.y if math.isfinite(v) and v > 0]
    log = name == "loss" and bool(values) and max(values) / min(values) > 10
    percent = name in SHARES
    note = "Logarithmic scale. " if log else ""
    if name != "loss" and any(line.name == "training" for line in lines):
        note += f"Training: of the last {MEASURED_ROWS:,} rows before each point, at most. "
    lost = sum(not math.isfinite(v) for line in lines for v in line.y)
    if lost:
        note += f"{lost} non-finite value{'s' * (lost > 1)}, marked × at the top. "

    def draw(width: int) -> str:
        return line_chart(
            lines, width=width, height=270 if width > 400 else 220, x_label=unit, log=log,
            percent=percent, marks=_marks(run, per), label=f"{name} over {unit}s",
        )  # fmt: skip

    return card(metric_name(name), both(draw), note + _last(lines, percent=percent), keys=keys)


def _last(lines: list[Line], *, percent: bool) -> str:
    def said(value: float) -> str:
        return f"{value * 100:.2f} %" if percent and math.isfinite(value) else number(value, 4)

    return "At the end: " + ", ".join(f"{line.name} {said(line.y[-1])}" for line in lines) + "."


def speed_cards(run: RunData) -> list[str]:
    """Return cards of the learning rate, throughput, waiting for data, gradient and memory."""
    per, unit = horizontal(run)
    wanted = (
        ("learning rate", "lr", 3, "", False),
        ("gradient norm", "grad_norm", 4, "", True),
        ("throughput, samples per second", "samples_per_s", 5, "", False),
        ("waiting for data, share of the time", "data_wait", 6, "", False),
    )
    out = []
    for title, key, colour, note, log_wanted in wanted:
        steps, values = column(run, key)
        fine = [v for v in values if math.isfinite(v)]
        if not fine:
            continue
        positive = [v for v in fine if v > 0]
        log = log_wanted and bool(positive) and max(positive) / min(positive) > 30
        line = Line(title, [s / per for s in steps], values, colour)
        out.append(
            card(title, both(_drawer(line, unit, log=log, percent=key == "data_wait")), note)
        )
    return out


def _drawer(line: Line, unit: str, *, log: bool, percent: bool) -> Callable[[int], str]:
    def draw(width: int) -> str:
        return line_chart(
            [line], width=width, height=190, x_label=unit, log=log, percent=percent,
            from_zero=not log, label=f"{line.name} over {unit}s",
        )  # fmt: skip

    return draw


def layer_cards(run: RunData) -> list[str]:
    """Return cards of the gradient norm and of the update/weight ratio per layer."""
    out = []
    wanted = (
        ("grad_norm", "gradient norm per layer", "", None),
        (
            "update_ratio",
            "update / weight per layer",
            _RATIO_NOTE,
            (1e-4, 1e-2),
        ),
    )
    per, unit = horizontal(run)
    for key, title, note, band in wanted:
        layers = layer_columns(run, key)
        if not layers:
            continue
        layers = {n: [(s / per, v) for s, v in points] for n, points in layers.items()}
        if len(layers) > MOST_LINES:
            draw = _strips(layers, unit, title)
            shown = note.partition(";")[0] + "." * bool(note)
            out.append(card(title, both(draw), shown))
            continue
        lines = [
            Line(name, [x for x, _ in points], [v for _, v in points], colour)
            for colour, (name, points) in enumerate(layers.items(), 1)
        ]
        keys = [(line.name, line.colour) for line in lines]
        out.append(card(title, both(_layers(lines, unit, title, band)), note, keys=keys))
    return out


def _strips(
    layers: dict[str, list[tuple[float, float]]], unit: str, title: str
) -> Callable[[int], str]:
    def draw(width: int) -> str:
        return layer_chart(layers, width=width, x_label=unit, label=title)

    return draw


def _layers(
    lines: list[Line], unit: str, title: str, band: tuple[float, float] | None
) -> Callable[[int], str]:
    def draw(width: int) -> str:
        return line_chart(
            lines, width=width, height=230, x_label=unit, log=True, band=band, label=title
        )

    return draw


def events(run: RunData) -> list[dict[str, Any]]:
    """Return the rows that tell of something that happened, in order."""
    return [row for row in run.rows if row.get("event")]


def lost_rows(run: RunData) -> int:
    """Return how many training or validation losses were not finite."""
    return sum(
        1
        for key in ("train/loss", "val/loss")
        for value in column(run, key)[1]
        if not math.isfinite(value)
    )
