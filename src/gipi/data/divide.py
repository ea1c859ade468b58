"""What the split must know of the rows: which are usable, bound together, rare, or given."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from gipi.core.errors import DataError
from gipi.data import multilabel
from gipi.data.form import Looked
from gipi.data.keys import codes, input_keys
from gipi.data.source import TEST, TRAIN, VAL, ImageFiles, Source, as_labels, is_missing
from gipi.data.split import BY_CLASS, SplitRows

if TYPE_CHECKING:
    from gipi.core.schema import Schema
    from gipi.data.options import DataOptions

_PART_NAMES = {
    "train": TRAIN, "training": TRAIN, "fit": TRAIN, "val": VAL, "valid": VAL, "validation": VAL,
    "dev": VAL, "test": TEST, "testing": TEST, "eval": TEST,
}  # fmt: skip
RAREST = "stratified by the rarest class of each row"


def look_at_rows(source: Source, schema: Schema, _options: DataOptions) -> Looked:
    """Return what the split must know of rows with a plain target."""
    target = schema.target
    assert target is not None
    column = source.columns[target.name]
    usable = ~is_missing(column)
    labels: np.ndarray | None = None
    names: tuple[str, ...] = ()
    rule = BY_CLASS
    if target.multi and isinstance(column, np.ndarray):
        usable = np.ones(source.rows, dtype=bool)
        known = multilabel.presence(target, column, row_name=source.row_name)
        (labels, names), rule = rarest(known, target.classes), RAREST
    elif schema.task == "classify" and isinstance(column, np.ndarray):
        labelled = as_labels(column)
        usable = np.fromiter((v is not None for v in labelled), bool, source.rows)
        distinct, inverse = np.unique(np.where(usable, labelled, ""), return_inverse=True)
        labels, names = inverse.reshape(-1).astype(np.int64), tuple(str(v) for v in distinct)
    rows = rows_to_split(source, schema, usable=usable, labels=labels, classes=names, rule=rule)
    lost = int((~usable).sum())
    said = f"{lost} rows without a value of '{target.name}' take no part"
    return Looked(rows, lost=said if lost else "")


def rows_to_split(
    source: Source, schema: Schema, *, usable: np.ndarray, labels: np.ndarray | None = None,
    classes: tuple[str, ...] = (), rule: str = BY_CLASS, groups: np.ndarray | None = None,
) -> SplitRows:  # fmt: skip
    """Return what the split must know of the rows, with what the columns say of all forms alike.

    groups  None: by the column of groups, or the picture that rows are parts of
    """
    group, moment, part = (schema.of(role) for role in ("group", "time", "split"))
    given = given_parts(source, part[0].name) if part else source.given_split
    if groups is None:
        groups = codes(source.columns[group[0].name]) if group else _same_picture(source)
    return SplitRows(
        usable=usable,
        keys=input_keys(source, schema),
        alike="but for case and spaces" if schema.of("input", "text") else "exactly",
        labels=labels,
        classes=classes,
        groups=groups,
        bound=source.bound,
        bound_by=source.bound_by,
        times=_times(source, moment[0].name, usable) if moment else None,
        given=given,
        rule=rule,
    )


def rarest(presence: np.ndarray, classes: tuple[str, ...]) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return (N,) the code of the rarest class of each row, and names; the last is "nothing".

    A split stratified by it keeps the rare classes in every part.

    >>> rarest(np.array([[1, 1], [1, 0], [0, 0]], bool), ("cell", "virus"))[0].tolist()
    [1, 0, 2]
    """
    rows = presence.sum(0)
    order = np.argsort(rows, kind="stable")
    first = presence[:, order].argmax(1) if presence.shape[1] else np.zeros(len(presence), int)
    codes = order[first] if presence.shape[1] else first
    return np.where(presence.any(1), codes, presence.shape[1]), (*classes, "nothing")


def some_pair(usable: np.ndarray, source: Source, schema: Schema) -> None:
    """Raise `DataError` where no row has both of its texts."""
    if not usable.any():
        names = " and ".join(f"'{f.name}'" for f in (*schema.inputs, *schema.of("target")))
        raise DataError(
            f"no row of {source.name} has both texts ({names})", "rows with two texts",
            "check both columns, or both files",
        )  # fmt: skip


def _same_picture(source: Source) -> np.ndarray | None:
    """Return codes that bind the rows which are parts of one picture, None where none are.

    Two files of the same content are one picture.
    """
    for column in source.columns.values():
        if isinstance(column, ImageFiles) and column.crops is not None:
            return codes(replace(column, crops=None))
    return None


def given_parts(source: Source, name: str) -> np.ndarray:
    """Return (N,) int8 of TRAIN, VAL, TEST, as the split column `name` says it."""
    labels = as_labels(np.asarray(source.columns[name]))
    found = np.empty(len(labels), dtype=np.int8)
    for i, label in enumerate(labels):
        part = _PART_NAMES.get((label or "").strip().lower())
        if part is None:
            raise DataError(
                f"{source.row_name(i)}: the split column '{name}' says {label!r}",
                "train, val or test in every row",
                "correct the value",
            )
        found[i] = part
    return found


def _times(source: Source, name: str, usable: np.ndarray) -> np.ndarray:
    column = source.columns[name]
    lost = np.flatnonzero(is_missing(column) & usable)
    if len(lost):
        raise DataError(
            f"{source.row_name(int(lost[0]))}: the time column '{name}' is empty",
            "a time in every row",
            "fill it in, or remove the row",
        )
    values = np.asarray(column)
    if values.dtype.kind == "O":
        shapes = {re.sub(r"\d", "0", str(v)) for v in values[usable]}
        if len(shapes) > 1 or not next(iter(shapes), "0000").startswith("0000"):
            raise DataError(
                f"the time column '{name}' holds text that has no order in time: {values[0]!r}",
                "dates, numbers, or text that begins with the year, such as 2024-01",
                "write its values as 2024-01-31",
            )
        return np.unique(values.astype(str), return_inverse=True)[1].reshape(-1)
    return values
