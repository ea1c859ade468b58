"""What the columns are: kinds, roles, the target and the task, each with the reason in words.

Nothing is decided silently: a column that the model will not see has the role "ignored" and a
reason, and every decision can be overridden (``schema.age=category``). Statistics and class names
are not fitted here: preparation does that on training rows.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from gipi.core.errors import ConfigError, DataError, did_you_mean
from gipi.core.schema import TASK_KINDS
from gipi.data.infer_table import infer_table
from gipi.data.row_forms import ROW_FORMS
from gipi.data.source import Source, column_called

if TYPE_CHECKING:
    from gipi.core.schema import Schema
    from gipi.data.options import DataOptions

OVERRIDES = ("number", "category", "date", "text", "image", "ignored")
TASKS = TASK_KINDS


def infer_schema(source: Source, options: DataOptions) -> Schema:
    """Return fields (kind, role, reason, shape) and the task of rows.

    Raises `DataError` where a named column does not exist, the target has missing or impossible
    values or only one class, or no input column is left; `ConfigError` for a kind or task that does
    not exist.
    """
    if options.target is not None:
        options = replace(options, target=column_called(source, options.target))
    _check_names(source, options)
    for form in ROW_FORMS:
        schema = None if form.infer is None else form.infer(source, options)
        if schema is not None:
            return schema
    return infer_table(source, options)


def _check_names(source: Source, options: DataOptions) -> None:
    asked = {
        "target": options.target, "group": options.group, "time column": options.time_column,
        "weight": options.weight, "split column": options.split_column,
    }  # fmt: skip
    for what, name in asked.items():
        if name is not None and name not in source.columns:
            raise DataError(
                f"{what} '{name}' is no column of {source.name}",
                "the name of a column",
                did_you_mean(name, source.columns),
            )
    for name, kind in options.overrides.items():
        if name not in source.columns:
            raise DataError(
                f"schema.{name}: {source.name} has no column '{name}'",
                "the name of a column",
                did_you_mean(name, source.columns),
            )
        if kind not in OVERRIDES:
            raise ConfigError(
                f"schema.{name}={kind}: there is no kind '{kind}'",
                "one of " + ", ".join(OVERRIDES),
                did_you_mean(kind, OVERRIDES),
            )
    if options.task is not None and options.task not in TASKS:
        raise ConfigError(
            f"there is no task '{options.task}'",
            "one of " + ", ".join(TASKS),
            did_you_mean(options.task, TASKS),
        )
