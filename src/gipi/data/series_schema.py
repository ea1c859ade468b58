"""What the columns of a series are: its time, the series to forecast, and those that only help."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from gipi.core.errors import ConfigError, DataError, did_you_mean
from gipi.core.schema import Field, Schema
from gipi.data.source import Annotations, ImageFiles, Source, column_called, is_missing
from gipi.data.sources.arrow import looks_like_number
from gipi.data.timeline import Timeline, read_timeline, where

if TYPE_CHECKING:
    from gipi.data.options import DataOptions
    from gipi.data.source import Column

MOSTLY = 0.5  # share of numbers from which a column of text is a series with slips in it
KINDS = ("number", "ignored")


def infer_series(source: Source, options: DataOptions) -> Schema:
    """Return the fields of a series, as `infer_schema` does for tables.

    Without a named target every column of numbers is forecast; with one (or several, with commas
    between) the other columns are inputs.

    Raises `DataError` where the time is not regular, a column is no series or none is left,
    `ConfigError` for settings that a series cannot have.
    """
    source = spread(source)
    return fields_of(source, options, read_timeline(source, options))


def fields_of(source: Source, options: DataOptions, line: Timeline) -> Schema:
    """Return the schema of a series whose timeline is known."""
    _check_options(source, options, line.name)
    targets = _targets(source, options, line.name)
    fields = []
    for name, column in source.columns.items():
        if name == line.name:
            why = "named as the time column" if options.time_column else "the dates of the rows"
            reason = f"{why}: every {line.step.words.removeprefix('1 ')}"
            fields.append(Field(name, "date", "time", reason))
        elif name == options.weight:
            fields.append(Field(name, "number", "weight", "named as the weight column"))
        elif name in targets:
            _check_numbers(source, name, column)
            fields.append(Field(name, "series", "target", "named as the target"))
        else:
            fields.append(_other(source, name, column, options, named=bool(targets)))
    schema = Schema(tuple(fields), "forecast", _reason(source, options))
    if schema.target is None:
        raise DataError(
            f"{source.name} has no column of numbers to forecast",
            "at least one column whose values are numbers that vary",
            "check the columns: " + ", ".join(f"'{f.name}' ({f.reason})" for f in fields[:6]),
        )
    return schema


def spread(source: Source) -> Source:
    """Return the source with a column of its own for each number of a column of F numbers."""
    columns: dict[str, Column] = {}
    for name, column in source.columns.items():
        if isinstance(column, np.ndarray) and column.ndim == 2 and column.dtype.kind in "iufb":
            columns |= {f"{name}_{k + 1}": column[:, k] for k in range(column.shape[1])}
        else:
            columns[name] = column
    return source if len(columns) == len(source.columns) else replace(source, columns=columns)


def _reason(source: Source, options: DataOptions) -> str:
    if options.task == "forecast":
        return "asked for"
    return source.task_reason or f"the known task of {source.name}"


def _check_options(source: Source, options: DataOptions, time: str | None) -> None:
    if options.group is not None:
        raise ConfigError(
            f"group={options.group} with a series",
            "one series a column: rows are split by time, not by groups",
            "give the series of each group a column of its own, or train on one group",
        )
    asked = {"weight": options.weight, "time column": options.time_column,
             "split column": options.split_column}  # fmt: skip
    for what, name in [*asked.items(), *((f"schema.{n}", n) for n in options.overrides)]:
        if name is not None and name not in source.columns:
            raise DataError(
                f"{what} '{name}' is no column of {source.name}",
                "the name of a column",
                did_you_mean(name, source.columns),
            )
    named = [(role, name) for role, name in (("time", time), ("weight", options.weight),
                                             ("split", options.split_column)) if name]  # fmt: skip
    for k, (role, name) in enumerate(named):
        for other, same in named[:k]:
            if name == same:
                raise ConfigError(
                    f"column '{name}' is named as {role} and is the {other} column",
                    "another column for each", "leave one of them out",
                )  # fmt: skip
    for name, kind in options.overrides.items():
        if kind not in KINDS and name != time:
            raise ConfigError(
                f"schema.{name}={kind} in a series", "number or ignored", "remove this setting"
            )


def _targets(source: Source, options: DataOptions, time: str | None) -> tuple[str, ...]:
    """Return the named targets; none: every series is one."""
    if options.target is None:
        return () if source.target is None else (source.target,)
    names: tuple[str, ...] = (options.target,)
    if options.target not in source.columns:
        names = tuple(part.strip() for part in options.target.split(","))
    found = tuple(column_called(source, name) for name in names)
    for name in found:
        if name not in source.columns:
            raise DataError(
                f"no column is called '{name}' in {source.name}",
                "the names of columns, with commas between",
                did_you_mean(name, source.columns),
            )
        if name in (time, options.weight):
            raise ConfigError(
                f"the target '{name}' is the {'time' if name == time else 'weight'} column",
                "a column of numbers to forecast",
                "name another target",
            )
    return found


def _other(
    source: Source, name: str, column: Column, options: DataOptions, *, named: bool
) -> Field:
    """Return what a column is that is neither named as target nor as time."""
    if options.overrides.get(name) == "ignored" or name == options.split_column:
        why = "set to ignored" if name in options.overrides else "named as the split column"
        return Field(name, "category", "ignored", why)
    if isinstance(column, (ImageFiles, Annotations)) or column.ndim > 1:
        return Field(name, "image", "ignored", "pictures: a series holds numbers")
    lost = is_missing(column)
    if lost.all():
        return Field(name, "category", "ignored", "empty: every value is missing")
    if column.dtype.kind in "OU":
        text = [str(v) for v in column[~lost].tolist()]
        share = sum(map(looks_like_number, text)) / len(text)
        if not (share > MOSTLY or options.overrides.get(name) == "number"):
            return Field(name, "category", "ignored", "text: a series holds numbers")
        _check_numbers(source, name, column)
    if column.dtype.kind in "mM":
        return Field(name, "date", "ignored", "a further column of dates")
    known = column[~lost]
    if (known == known[0]).all():
        return Field(name, "series", "ignored", f"constant: every row is {known[0]}")
    if named:
        return Field(name, "series", "input", "a series that helps; it is not forecast")
    return Field(name, "series", "target", "a column of numbers: each is forecast")


def _check_numbers(source: Source, name: str, column: Column) -> None:
    """Raise `DataError` where a column holds anything but numbers, naming its first such row."""
    if not isinstance(column, np.ndarray) or column.ndim > 1 or column.dtype.kind in "mM":
        raise DataError(
            f"the column '{name}' holds no numbers", "a series of numbers", "name another target"
        )
    lost = is_missing(column)
    if lost.all():
        raise DataError(
            f"the column '{name}' is empty", "a series of numbers", "name another target"
        )
    if column.dtype.kind in "OU":
        values = column.tolist()
        bad = [i for i, v in enumerate(values) if v is not None and not looks_like_number(str(v))]
        if not bad:  # numbers that are written as text
            return
        at = bad[0]
        more = f" (and {len(bad) - 1:,} more such rows)" if len(bad) > 1 else ""
        raise DataError(
            f"{where(source, at)}: '{name}' is {str(values[at])[:40]!r}{more}",
            "a number in every row of a series",
            f"correct it or leave it empty; or leave the column out: --set schema.{name}=ignored",
        )
