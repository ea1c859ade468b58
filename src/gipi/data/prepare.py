"""From raw columns to tensors: fitted on training rows only, the same for prediction.

`fit` writes what it learns into the fields of the schema (class names, means, quantiles), which
travel as JSON in the model folder; `encode_inputs`, `encode_target` and `encode_weight` turn raw
columns into tensors with nothing but the schema. Training, evaluation and prediction call them.

Tables become `numbers` (N, F) float32 and, where there are categories, `categories` (N, K) int64:
    number    standardised; heavy-tailed ones as normal scores instead, others with many rows as
              both; a missing value becomes the mean, and where training rows miss values a 0/1
              column says so
    date      days since the training mean, and the time of year, week and day as cosine and sine
    category  codes 1..n of the training labels; 0 for missing, unseen and rare ones
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from gipi.core.errors import DataError
from gipi.core.schema import Field, Schema, Signature
from gipi.data import multilabel
from gipi.data.source import Annotations, Column, ImageFiles, as_labels, class_order, is_missing
from gipi.data.sources.arrow import looks_like_number
from gipi.data.tokens import width_of
from gipi.data.transforms import (
    as_dates,
    as_numbers,
    date_features,
    fit_dates,
    fit_number,
    number_features,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torch import Tensor

RARE = 5  # training rows below which a label is pooled with the unseen ones (code 0)
FARTHEST = 1e15  # spreads from the mean: beyond it the layers of a net would overflow float32
PER = {"tag": "token", "answer": "span"}
MOST_LABELS = 10_000  # labels of one column that get their own code


def fit(
    schema: Schema,
    columns: Mapping[str, Column],
    train: np.ndarray,
    *,
    classes: Mapping[str, Sequence[str]] | None = None,
) -> Schema:
    """Return the schema with everything in it that encoding needs, fitted on the rows of `train`.

    classes   official order of labels by column, where there is one
    The label set of a categorical target is that of all rows that have one: knowing that a class
    exists is no leak. Pictures are fitted by `fit_pictures`, once their decoder is known.
    """
    known = classes or {}
    fields = []
    for field in schema.fields:
        if field.role not in ("input", "target") or field.name not in columns:
            fields.append(field)
        elif field.role == "target":
            fields.append(_fit_target(field, schema.task, columns[field.name], train, known))
        else:
            fields.append(_fit_input(field, columns[field.name], train))
    return replace(schema, fields=tuple(fields))


def _fit_input(field: Field, column: Column, train: np.ndarray) -> Field:
    if field.kind in ("image", "text"):  # fitted where their pixels and their tokens are made
        return field
    if not isinstance(column, np.ndarray):
        raise _no_encoding(field, "pictures or what is drawn on them")
    values = column[train]
    if field.kind == "category":
        return _fit_category(field, values)
    if field.kind == "date":
        return replace(field, stats=fit_dates(as_dates(values, field.name)))
    if field.kind in ("number", "series"):
        numbers = as_numbers(values, field.name)
        if numbers.ndim == 1:
            return replace(field, stats=fit_number(numbers))
        width = int(np.prod(numbers.shape[1:]))
        return replace(
            field, shape=numbers.shape[1:], stats=_fit_vector(numbers.reshape(-1, width))
        )
    raise _no_encoding(field, f"kind '{field.kind}'")


def _no_encoding(field: Field, found: str) -> DataError:
    return DataError(
        f"the column '{field.name}' ({found}) has no encoding as an input",
        "a column of numbers, categories, dates, texts or pictures",
        f"leave it out with --set schema.{field.name}=ignored",
    )


def _fit_vector(values: np.ndarray) -> dict[str, Any]:
    """Return mean and std of each of F numbers; constant ones get std 1."""
    finite = np.isfinite(values)
    count = np.maximum(finite.sum(0), 1)
    safe = np.where(finite, values, 0.0).astype(np.float64)
    mean = safe.sum(0) / count
    spread = np.sqrt((np.where(finite, safe - mean, 0.0) ** 2).sum(0) / count)
    spread[spread <= 1e-12 * np.maximum(1.0, np.abs(mean))] = 1.0
    return {
        "mean": mean.tolist(), "std": spread.tolist(), "missing": float(1.0 - finite.mean()),
    }  # fmt: skip


def _fit_category(field: Field, values: np.ndarray) -> Field:
    labels = as_labels(values)
    present = [label for label in labels if label is not None]
    names, counts = np.unique(np.array(present, dtype=object), return_counts=True)
    enough = counts >= min(RARE, max(1, len(labels) // 100))
    kept, kept_counts = names[enough], counts[enough]
    if len(kept) > MOST_LABELS:
        kept = kept[np.argsort(-kept_counts, kind="stable")[:MOST_LABELS]]
    stats: dict[str, Any] = {"missing": float(1.0 - len(present) / max(1, len(labels)))}
    if len(kept) < len(names):
        stats["pooled"] = len(names) - len(kept)
    return replace(field, classes=class_order([str(k) for k in kept]), stats=stats)


def _fit_target(
    field: Field, task: str, column: Column, train: np.ndarray, known: Mapping[str, Sequence[str]]
) -> Field:
    if isinstance(column, Annotations) or field.kind == "text":
        return field  # fitted where the pictures are, once their size is known, or the tokens
    if isinstance(column, ImageFiles):
        raise _no_encoding(field, "picture files")
    if field.kind in ("tags", "answers"):
        return field  # fitted where their tokens are made
    if field.multi:
        names = field.classes or tuple(known.get(field.name, ()))
        return replace(field, classes=names, shape=(len(names),))
    if task == "classify":
        labels = as_labels(column)
        found = {label for label in labels if label is not None}
        order = tuple(known.get(field.name) or field.classes)
        if not found <= set(order):
            order = class_order(found)
        if len(found) < 2:
            raise DataError(
                f"the target '{field.name}' has only one class: {next(iter(found), 'none')}",
                "at least two classes to tell apart",
                "check the target column, or name another one with --target",
            )
        return replace(field, classes=order)
    numbers = as_numbers(column[train], field.name).astype(np.float64)
    finite = numbers[np.isfinite(numbers)]
    mean, spread = float(finite.mean()), float(finite.std())
    if not spread > 1e-12 * max(1.0, abs(mean)):
        raise DataError(
            f"the target '{field.name}' is {mean:g} in every training row",
            "a target that varies",
            "check the target column, or name another one with --target",
        )
    return replace(field, stats={**field.stats, "mean": mean, "std": spread})


def encode_inputs(
    schema: Schema, columns: Mapping[str, Column], *, row_name: Callable[[int], str]
) -> dict[str, Tensor]:
    """Return `numbers` (N, F) float32 and, where there are categories, `categories` (N, K) int64.

    Pictures and texts are left to the caller; a data set of them alone gives an empty dict.
    Raises `DataError` for a missing column or a value that is not of its kind.
    """
    numbers: list[np.ndarray] = []
    categories: list[np.ndarray] = []
    tabular = [f for f in schema.inputs if f.kind not in ("image", "text")]
    for field in tabular:
        if field.name not in columns:
            raise DataError(
                f"the column '{field.name}' is missing",
                "every input column that the model was trained on: "
                + ", ".join(f.name for f in schema.inputs),
                "add the column (empty where its values are unknown)",
            )
        column = columns[field.name]
        if not isinstance(column, np.ndarray):
            raise _no_encoding(field, "picture files")
        if field.kind == "category":
            categories.append(_category_codes(field, column))
        elif field.kind == "date":
            numbers.append(
                date_features(as_dates(column, field.name, row_name=row_name), field.stats)
            )
        else:
            numbers.append(
                _number_columns(field, as_numbers(column, field.name, row_name=row_name))
            )
    if not tabular:
        return {}
    rows = len(next(iter(columns.values())))
    joined = np.concatenate(numbers, axis=1) if numbers else np.zeros((rows, 0))
    safe = np.clip(joined, -FARTHEST, FARTHEST)
    inputs = {"numbers": torch.from_numpy(safe.astype(np.float32))}
    if categories:
        inputs["categories"] = torch.from_numpy(np.stack(categories, axis=1))
    return inputs


def _number_columns(field: Field, values: np.ndarray) -> np.ndarray:
    if not field.shape:
        return number_features(values, field.stats)
    if values.shape[1:] != field.shape:
        raise DataError(
            f"the column '{field.name}' has rows of shape {values.shape[1:]}",
            f"rows of shape {field.shape}, as in training",
            "give the same features in the same order",
        )
    flat = values.reshape(len(values), -1)
    scaled = (flat - np.array(field.stats["mean"])) / np.array(field.stats["std"])
    return np.where(np.isfinite(flat), scaled, 0.0)


def _category_codes(field: Field, column: np.ndarray) -> np.ndarray:
    index = {name: i + 1 for i, name in enumerate(field.classes)}
    if column.dtype.kind == "f":  # a file of "1.0" alone is read as numbers, "1.0" and "x" as text
        for name, code in list(index.items()):
            if "." in name and looks_like_number(name):
                index.setdefault(str(as_labels(np.array([float(name)]))[0]), code)
    labels = as_labels(column)
    return np.fromiter((index.get(label, 0) for label in labels), np.int64, len(labels))


def encode_target(
    schema: Schema, column: Column, *, rows: np.ndarray, row_name: Callable[[int], str]
) -> Tensor:
    """Return (N,) targets: int64 class codes from 0, or float32 (y - mean) / std.

    Several labels a row give (N, K) float32 of 0 and 1.

    rows   ids that must have a target; others get class 0 or the mean and are never trained on
    Raises `DataError` naming the row for a class never seen, or a value that is no finite number.
    """
    field = schema.target
    assert field is not None
    if not isinstance(column, np.ndarray):
        raise _no_encoding(field, "pictures or what is drawn on them")
    if field.multi:
        return multilabel.encode(field, column, row_name=row_name)
    if schema.task == "classify":
        index = {name: i for i, name in enumerate(field.classes)}
        labels = as_labels(column)
        found = np.fromiter((index.get(label, -1) for label in labels), np.int64, len(labels))
        bad = rows[found[rows] < 0]
        if len(bad):
            raise DataError(
                f"{row_name(int(bad[0]))}: the class {labels[bad[0]]!r} of '{field.name}'",
                "one of the classes of training: " + ", ".join(field.classes[:20]),
                "correct the label, or train with it",
            )
        return torch.from_numpy(np.maximum(found, 0))
    values = as_numbers(column, field.name, row_name=row_name).astype(np.float64)
    bad = rows[~np.isfinite(values[rows]).reshape(len(rows), -1).all(1)]
    if len(bad):
        raise DataError(
            f"{row_name(int(bad[0]))}: the target '{field.name}' is {values[bad[0]]}",
            "a finite number to predict",
            "remove the row or correct its value",
        )
    scaled = (values - field.stats["mean"]) / field.stats["std"]
    return torch.from_numpy(np.where(np.isfinite(scaled), scaled, 0.0).astype(np.float32))


def encode_weight(name: str, column: Column, *, row_name: Callable[[int], str]) -> Tensor:
    """Return (N,) float32 row weights; `DataError` names a row whose weight cannot be one."""
    values = as_numbers(column, name, row_name=row_name).astype(np.float64)  # type: ignore[arg-type]
    bad = np.flatnonzero(~(np.isfinite(values) & (values >= 0)))
    if len(bad):
        raise DataError(
            f"{row_name(int(bad[0]))}: the weight '{name}' is {values[bad[0]]}",
            "weights that are finite and not negative",
            "correct the weight column",
        )
    return torch.from_numpy(values.astype(np.float32))


def signature(schema: Schema, inputs: Mapping[str, Any], *, outputs: int) -> Signature:
    """Return what a model builder must know of these inputs and the width of its head."""
    image = next((tuple(f.shape) for f in schema.inputs if f.kind == "image"), None)
    numbers = inputs.get("numbers")
    cards = tuple(len(f.classes) + 1 for f in schema.inputs if f.kind == "category")
    width = 0 if numbers is None else int(numbers.shape[1])
    texts = next((f.stats for f in schema.inputs if f.kind == "text"), {})
    longest = [f.stats["length"] for f in (*schema.inputs, *schema.of("target"))
               if f.kind == "text" and "length" in f.stats]  # fmt: skip
    widest = width_of(max(longest)) if longest else 0  # a batch is padded up to this
    return Signature(
        image=image, numbers=width, cardinalities=cards, outputs=outputs,  # type: ignore[arg-type]
        vocab=texts.get("vocab", 0), length=widest, pad=texts.get("pad", 0),
        per=PER.get(schema.task, "row"), parts=tuple(texts.get("parts", ())),
    )  # fmt: skip


def known_target(schema: Schema, columns: Mapping[str, Column]) -> np.ndarray | None:
    """Return (N,) bool: True for rows with a target value; None where the column is absent."""
    field = schema.target
    if field is None or field.name not in columns:
        return None
    return ~is_missing(columns[field.name])
