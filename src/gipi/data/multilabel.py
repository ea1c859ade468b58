"""Several labels a row: lists like "cat|dog" in one column, or one column of 0 and 1 a label.

A row without any label is a row with an empty list, or with 0 everywhere: that is an answer, not a
missing one.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from gipi.core.errors import DataError
from gipi.data.source import Column, Source, as_labels, class_order

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from gipi.core.schema import Field

SEPARATORS = ("|", ";")
JOINED = "labels"  # name of the column that is made of columns of 0 and 1
_LISTED = 0.05  # share of rows with a separator from which a column holds lists
_AGAIN = 2.0  # rows a label has on average, below which lists are taken as plain text


def is_labels(column: Column) -> bool:
    """Return whether a column holds any number of labels a row, as (N, K) of true and false."""
    return isinstance(column, np.ndarray) and column.ndim == 2 and column.dtype.kind == "b"


def separator_of(column: Column) -> str | None:
    """Return the sign between the labels of a text column, None where it holds single labels.

    >>> separator_of(np.array(["cat|dog", "dog", "cat", "cat|dog"], object))
    '|'
    """
    if not isinstance(column, np.ndarray) or column.ndim != 1 or column.dtype.kind not in "OU":
        return None
    values = [v for v in column.tolist() if v]
    for sign in SEPARATORS:
        if sum(sign in v for v in values if isinstance(v, str)) < max(1, _LISTED * len(values)):
            continue  # most columns have none: they need not be taken apart
        lists = [_split(v, sign) for v in values if isinstance(v, str)]
        several = sum(len(found) > 1 for found in lists)
        distinct = {label for found in lists for label in found}
        total = sum(map(len, lists))
        if several and several >= _LISTED * len(values) and total >= _AGAIN * len(distinct):
            return sign
    return None


def _split(value: str, sign: str) -> list[str]:
    return [part.strip() for part in value.split(sign) if part.strip()]


def lists_of(column: np.ndarray, sign: str) -> list[list[str]]:
    """Return the labels of every row; an empty cell is a row without labels."""
    return [[] if v is None else _split(str(v), sign) for v in as_labels(column).tolist()]


def classes_of(column: np.ndarray, sign: str | None, known: Sequence[str]) -> tuple[str, ...]:
    """Return the label names: of the 0/1 columns, or all that the lists have."""
    if sign is None:
        return tuple(known)
    return class_order(label for row in lists_of(column, sign) for label in row)


def presence(
    field: Field, column: np.ndarray, *, row_name: Callable[[int], str], strict: bool = True
) -> np.ndarray:
    """Return (N, K) bool: which labels each row has, in the order of the field's classes.

    Raises `DataError` naming the row of a label that is not among them, where `strict`.
    """
    if column.ndim == 2:
        if column.shape[1] != len(field.classes):
            raise DataError(
                f"'{field.name}' has {column.shape[1]} labels a row",
                f"{len(field.classes)}, as in training", "give the same labels in the same order",
            )  # fmt: skip
        return column.astype(bool)
    index = {name: i for i, name in enumerate(field.classes)}
    out = np.zeros((len(column), len(index)), dtype=bool)
    for row, labels in enumerate(lists_of(column, field.stats["separator"])):
        for label in labels:
            if label in index:
                out[row, index[label]] = True
            elif strict:
                raise DataError(
                    f"{row_name(row)}: the label {label!r} of '{field.name}'",
                    "labels of training: " + ", ".join(field.classes[:20]),
                    "correct the label, or train with it",
                )
    return out


def encode(field: Field, column: np.ndarray, *, row_name: Callable[[int], str]) -> Tensor:
    """Return (N, K) float32 of 0 and 1."""
    return torch.from_numpy(presence(field, column, row_name=row_name).astype(np.float32))


def join(source: Source, names: Sequence[str], *, name: str = JOINED) -> Source:
    """Return the source with these columns of 0 and 1 as one target of several labels.

    Raises `DataError` naming the first row that has something else.
    """
    found = np.zeros((source.rows, len(names)), dtype=bool)
    for at, column_name in enumerate(names):
        column = source.columns[column_name]
        values = _zero_one(column)
        if values is None:
            raise DataError(
                f"the column '{column_name}' holds other values than 0 and 1"
                + _first_odd(source, column),
                "0 or 1 in every row of a label's column",
                "correct it, or name another target",
            )
        found[:, at] = values
    columns = {k: v for k, v in source.columns.items() if k not in names}
    columns[name] = found
    return replace(
        source, columns=columns, target=name, task="classify",
        task_reason=f"{len(names)} columns of 0 and 1 are labels of the same row",
        classes={**source.classes, name: tuple(names)},
    )  # fmt: skip


def in_order(source: Source, field: Field) -> Source:
    """Return the source with its labels in the order of the field's classes, matched by name.

    Labels without names (an array) are taken in their order. Raises `DataError` naming a label that
    the field knows and the source lacks.
    """
    column, names = source.columns[field.name], source.classes.get(field.name, ())
    if not isinstance(column, np.ndarray) or not is_labels(column) or not names:
        return source
    lost = [name for name in field.classes if name not in names]
    if lost:
        raise DataError(
            f"{source.name} has no column for the label '{lost[0]}'",
            "the labels of training: " + ", ".join(field.classes[:20]), "add the column",
        )  # fmt: skip
    order = [names.index(name) for name in field.classes]
    return replace(
        source, columns={**source.columns, field.name: column[:, order]},
        classes={**source.classes, field.name: field.classes},
    )  # fmt: skip


def _first_odd(source: Source, column: Column) -> str:
    """Return ": row 3 has 'x'" for the first row that is neither 0 nor 1, where there is one."""
    if not isinstance(column, np.ndarray) or column.ndim != 1:
        return ""
    for row, value in enumerate(column.tolist()):
        if str(value) not in ("0", "1", "0.0", "1.0", "True", "False"):
            return f": {source.row_name(row)} has {value!r}"
    return ""


def _zero_one(column: Column) -> np.ndarray | None:
    if not isinstance(column, np.ndarray) or column.ndim != 1 or column.dtype.kind not in "iufb":
        return None
    return column.astype(bool) if np.isin(column, (0, 1)).all() else None


def label_columns(source: Source) -> tuple[str, ...]:
    """Return the names of all columns of 0 and 1."""
    return tuple(name for name, column in source.columns.items() if _zero_one(column) is not None)
