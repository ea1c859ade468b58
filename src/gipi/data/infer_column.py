"""What one column is: its kind, whether the model sees it, and the reason in words."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np

from gipi.core.errors import ConfigError, DataError
from gipi.core.schema import Field
from gipi.data.source import Annotations, Column, ImageFiles, Source, is_missing
from gipi.data.wordy import text_field

if TYPE_CHECKING:
    from gipi.core.schema import Schema
    from gipi.data.options import DataOptions

FEW = 20  # whole numbers with at most this many values are taken as classes of a target
MOSTLY = 0.9  # share of different values from which a column of labels looks like an identifier
_ID_NAME = re.compile(
    r"([a-z](Id|ID)|^ID|(^|[\W_])([iI][dD]|[uUgG][uU][iI][dD]))$|^(index|key|rowid|row_number)$"
)


def field_of(source: Source, name: str, options: DataOptions, roles: dict[str, str]) -> Field:
    """Return what a column is that is no target: its special role, or what it is as an input."""
    column = source.columns[name]
    if name not in roles:
        return infer_column(source, name, column, options)
    kind = {"weight": "number", "time": _time_kind(column)}.get(roles[name], "category")
    return Field(name, kind, roles[name], f"named as the {roles[name]} column")


def special_roles(options: DataOptions) -> dict[str, str]:
    """Return column -> role of the columns that were named for one; none may be named twice."""
    roles: dict[str, str] = {}
    for role, name in (
        ("weight", options.weight), ("group", options.group), ("time", options.time_column),
        ("split", options.split_column),
    ):  # fmt: skip
        if name is not None and name in roles:
            raise ConfigError(
                f"column '{name}' is named as {roles[name]} and as {role}",
                "another column for each",
                "leave one of them out",
            )
        if name is not None:
            roles[name] = role
    if options.target in roles:
        raise ConfigError(
            f"column '{options.target}' is named as target and as {roles[options.target]}",
            "another column for each",
            "leave one of them out",
        )
    return roles


def with_roles(known: Schema, roles: dict[str, str], options: DataOptions) -> Schema:
    """Return a schema of sentences or questions with the roles that were asked for."""
    for name, kind in options.overrides.items():
        if kind != "ignored" or known.field(name).role != "ignored":
            raise ConfigError(
                f"schema.{name}={kind} for {known.task_reason}",
                "no kinds: the form of the data says what its columns are", "remove this setting",
            )  # fmt: skip
    for name, role in roles.items():
        field = known.field(name)
        if field.role != "ignored":
            raise ConfigError(
                f"column '{name}' is named as {role} and is the {field.role} of the task "
                f"{known.task}", "another column", f"leave {role} out",
            )  # fmt: skip
        kind = "number" if role == "weight" else "category"
        known = known.with_field(Field(name, kind, role, f"named as the {role} column"))
    return known


def _time_kind(column: Column) -> str:
    if isinstance(column, np.ndarray) and column.dtype.kind in "iuf":
        return "number"
    return "date"


def infer_column(source: Source, name: str, column: Column, options: DataOptions) -> Field:
    """Return what one column is as an input, or why it is ignored."""
    override = options.overrides.get(name)
    if override is not None:
        return _overridden(name, column, override)
    if isinstance(column, Annotations):
        return Field(name, column.kind, "ignored", "drawn on the pictures, but not the target")
    if isinstance(column, ImageFiles):
        return Field(name, "image", "input", "picture files")
    hint = source.schema_hints.get(name)
    if hint == "image" or column.ndim > 2:
        return Field(name, "image", "input", "pictures", column.shape[1:])
    if column.ndim == 2:
        return Field(name, "number", "input", f"{column.shape[1]} numbers a row", column.shape[1:])
    lost = is_missing(column)
    if hint == "text file":
        return Field(name, "text", "input", "a text file a row")
    if lost.all():
        return Field(name, "category", "ignored", "empty: every value is missing")
    if not lost.any() and _is_constant(column):
        kind = "number" if column.dtype.kind in "iufb" else "category"
        return Field(name, kind, "ignored", f"constant: every row is {_shown(column[0])}")
    if hint in ("number", "category", "date", "text"):
        return Field(name, hint, "input", f"the data says that it is a {hint}")
    if column.dtype.kind in "mM":
        return Field(name, "date", "input", "dates")
    if column.dtype.kind == "b":
        return Field(name, "number", "input", "true or false")
    if column.dtype.kind in "iuf":
        return _number(name, column, lost)
    return _words(name, column[~lost])


def _overridden(name: str, column: Column, kind: str) -> Field:
    if kind == "ignored":
        return Field(name, "category", "ignored", "set to ignored")
    is_image = is_picture(column)
    if (kind == "image") != is_image:
        what = "pictures" if is_image else "no pictures"
        raise DataError(
            f"schema.{name}={kind}, but column '{name}' holds {what}",
            "image or ignored" if is_image else "number, category, date, text or ignored",
            "remove this setting",
        )
    if isinstance(column, ImageFiles):
        return Field(name, "image", "input", "set to image")
    if isinstance(column, Annotations):
        raise DataError(
            f"schema.{name}={kind}, but column '{name}' is drawn on the pictures",
            "ignored, or no setting", "remove this setting",
        )  # fmt: skip
    if column.ndim == 2 and kind != "number":
        raise DataError(
            f"schema.{name}={kind}, but column '{name}' holds {column.shape[1]} numbers a row",
            "number or ignored",
            "remove this setting",
        )
    present = column[~is_missing(column)] if column.ndim == 1 else column
    if kind == "number" and column.dtype.kind in "OU" and len(present):
        bad = next((v for v in present.tolist() if not is_float(v)), None)
        if bad is not None and not any(is_float(v) for v in present.tolist()):
            raise DataError(
                f"schema.{name}=number, but no value of column '{name}' is a number ('{bad}')",
                "a column of numbers",
                f"use schema.{name}=category",
            )
    return Field(name, kind, "input", f"set to {kind}", column.shape[1:])


def is_picture(column: Column) -> bool:
    """Return whether a column holds pictures."""
    return isinstance(column, ImageFiles) or (isinstance(column, np.ndarray) and column.ndim > 2)


def is_float(value: object) -> bool:
    """Return whether a value reads as a number."""
    try:
        float(str(value))
    except ValueError:
        return False
    return True


def _is_constant(column: np.ndarray) -> bool:
    if column.dtype.kind == "O":
        first = column[0]
        return all(value == first for value in column)
    return bool((column == column[0]).all())


def _shown(value: object) -> str:
    text = str(value)
    return f"'{text}'" if len(text) <= 30 else f"'{text[:27]}...'"


def _number(name: str, column: np.ndarray, lost: np.ndarray) -> Field:
    missing = f", {int(lost.sum()):,} missing" if lost.any() else ""
    if column.dtype.kind not in "iu":
        return Field(name, "number", "input", f"numbers{missing}")
    if _ID_NAME.search(name) and len(np.unique(column)) > MOSTLY * len(column):
        return Field(
            name, "number", "ignored", "identifier: by its name, and nearly all values differ"
        )
    return Field(name, "number", "input", f"whole numbers{missing}")


def _words(name: str, present: np.ndarray) -> Field:
    text = text_field(name, present)
    if text is not None:
        return text
    distinct = set(present.tolist())
    if len(present) > FEW and len(distinct) > MOSTLY * len(present):
        return Field(
            name, "category", "ignored",
            f"identifier: {len(distinct):,} different values in {len(present):,} rows",
        )  # fmt: skip
    if _ID_NAME.search(name) and len(present) > 1 and len(distinct) == len(present):
        return Field(name, "category", "ignored", "identifier: by its name, and all values differ")
    count = "1 label" if len(distinct) == 1 else f"{len(distinct):,} different labels"
    return Field(name, "category", "input", count)
