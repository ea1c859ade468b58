"""Whether a target can be learned: in every row, a number or a class, and not always the same."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from gipi.core.errors import DataError
from gipi.data import multilabel
from gipi.data.infer_column import FEW, is_float
from gipi.data.source import Annotations, as_labels, is_missing

if TYPE_CHECKING:
    from gipi.data.source import Source


def check_target(source: Source, target: str, task: str) -> None:
    """Raise `DataError` where the target cannot be learned: see the message of each case."""
    found = source.columns[target]
    if isinstance(found, Annotations) or multilabel.is_labels(found):
        return  # rows without an annotation are found and named by the survey
    if task == "classify" and multilabel.separator_of(found) is not None:
        return
    column = np.asarray(found)
    lost = is_missing(column)
    if lost.any():
        where = _rows(source, lost)
        raise DataError(
            f"target '{target}' is missing in {int(lost.sum()):,} of {source.rows:,} rows: {where}",
            "a target in every row",
            "fill in or delete these rows (rows without a target can be predicted later)",
        )
    if task == "classify":
        _check_classes(source, target, column)
        return
    if column.dtype.kind in "OUmM":
        bad = np.array([not is_float(v) for v in column.tolist()])
        if bad.any():
            value = column[int(bad.argmax())]
            raise DataError(
                f"target '{target}' is not a number in {int(bad.sum()):,} rows: "
                f"'{value}' ({_rows(source, bad)})",
                "numbers, for regression",
                "use --set task=classify, or correct these values",
            )
        column = column.astype(np.float64)
    finite = np.isfinite(column.reshape(len(column), -1).astype(np.float64))
    wild = np.asarray(~finite.all(1))
    if wild.any():
        raise DataError(
            f"target '{target}' is infinite in {int(wild.sum()):,} rows: {_rows(source, wild)}",
            "finite numbers",
            "correct or delete these rows",
        )
    if (column == column[:1]).all():
        raise DataError(
            f"target '{target}' is {column[0]} in every row",
            "a target that varies",
            "name another target",
        )


def _check_classes(source: Source, target: str, column: np.ndarray) -> None:
    if column.ndim > 1:
        raise DataError(
            f"target '{target}' has {column.shape[1]} numbers a row",
            "one label a row, for classification",
            "pass labels instead of one-hot rows, or use --set task=regress",
        )
    labels = as_labels(column)
    distinct = sorted({str(v) for v in labels})
    if len(distinct) < 2:
        raise DataError(
            f"target '{target}' has only one class: '{distinct[0]}'",
            "at least two classes",
            "add pictures or rows of another class, or name another target",
        )
    if len(distinct) > FEW and len(distinct) > source.rows / 2:
        hint = "use --set task=regress" if column.dtype.kind in "iuf" else "name another target"
        raise DataError(
            f"target '{target}' has {len(distinct):,} different values in {source.rows:,} rows",
            "classes with several rows each",
            hint,
        )


def _rows(source: Source, which: np.ndarray) -> str:
    rows = np.flatnonzero(which)
    shown = ", ".join(source.row_name(int(i)) for i in rows[:5])
    return shown + (", ..." if len(rows) > 5 else "")
