"""What the columns are: kinds, roles, the target and the task, each with the reason in words.

Nothing is decided silently: a column that the model will not see has the role "ignored" and a
reason, and every decision can be overridden (``schema.age=category``). Statistics and class names
are not fitted here: preparation does that on training rows.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from gipi.core.errors import ConfigError, DataError, did_you_mean
from gipi.core.schema import TASK_KINDS, Field, Schema
from gipi.data import multilabel
from gipi.data.partners import is_paired, paired_schema
from gipi.data.sequences import sequence_schema
from gipi.data.series_schema import infer_series, is_series
from gipi.data.source import (
    Annotations,
    Column,
    ImageFiles,
    Source,
    as_labels,
    column_called,
    is_missing,
)
from gipi.data.wordy import looks_like_text, settle_texts, text_field
from gipi.data.written import check_written, is_written, last_text, settle_source

if TYPE_CHECKING:
    from gipi.data.options import DataOptions

TARGET_NAMES = ("target", "label", "class", "y", "labels", "classes", "outcome")
OVERRIDES = ("number", "category", "date", "text", "image", "ignored")
TASKS = TASK_KINDS
OF_KIND = {"mask": "segment", "boxes": "detect", "keypoints": "pose"}
OF_TEXT = {
    "tag": "sentences with a tag for each token, as a .conll file holds them",
    "answer": "questions with contexts and answers, as SQuAD's JSON holds them",
}
FEW = 20  # whole numbers with at most this many values are taken as classes of a target
MOSTLY = 0.9  # share of different values from which a column of labels looks like an identifier
_ID_NAME = re.compile(
    r"([a-z](Id|ID)|^ID|(^|[\W_])([iI][dD]|[uUgG][uU][iI][dD]))$|^(index|key|rowid|row_number)$"
)


def infer_schema(source: Source, options: DataOptions) -> Schema:
    """Return fields (kind, role, reason, shape) and the task of `source`.

    Raises `DataError` where a named column does not exist, the target has missing or impossible
    values or only one class, or no input column is left; `ConfigError` for a kind or task that does
    not exist.
    """
    if is_series(source, options):
        return infer_series(source, options)
    if options.target is not None:
        options = replace(options, target=column_called(source, options.target))
    _check_names(source, options)
    roles = _special_roles(options)
    known = sequence_schema(source, options)
    if known is not None:
        return _with_roles(known, roles, options)
    if is_paired(options.task):
        return _pairs(source, options, roles)
    target, why_target = _target(source, options, roles)
    task, why_task = _task(source, target, options)
    if is_written(task):
        check_written(source, target, task)
    else:
        check_target(source, target, task)
    fields = []
    for name, column in source.columns.items():
        if name == target:
            fields.append(_target_field(name, column, task, why_target, source))
        elif name in roles:
            role = roles[name]
            kind = {"weight": "number", "time": _time_kind(column)}.get(role, "category")
            fields.append(Field(name, kind, role, f"named as the {role} column"))
        else:
            fields.append(infer_column(source, name, column, options))
    fields = _without_row_numbers(source, fields, options)
    if is_written(task):
        fields = settle_source(source, fields, options, task)
    else:
        fields = settle_texts(source, fields, options)
    if not any(f.role == "input" for f in fields):
        reasons = "; ".join(f"'{f.name}': {f.reason}" for f in fields if f.role == "ignored")
        raise DataError(
            f"{source.name} has no input column" + (f" ({reasons})" if reasons else ""),
            "at least one column to predict the target from",
            "set the kind of a column, for instance schema."
            + next((f.name for f in fields if f.role == "ignored"), "NAME") + "=category",
        )  # fmt: skip
    return Schema(tuple(fields), task, why_task)


def _pairs(source: Source, options: DataOptions, roles: dict[str, str]) -> Schema:
    """Return the schema of two texts that belong together."""
    fields = []
    for name, column in source.columns.items():
        if name in roles:
            kind = {"weight": "number", "time": _time_kind(column)}.get(roles[name], "category")
            fields.append(Field(name, kind, roles[name], f"named as the {roles[name]} column"))
        else:
            fields.append(infer_column(source, name, column, options))
    return paired_schema(source, settle_texts(source, fields, options), str(options.task))


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


def _special_roles(options: DataOptions) -> dict[str, str]:
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


def _with_roles(known: Schema, roles: dict[str, str], options: DataOptions) -> Schema:
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


# ------------------------------------------------------------------ target and task


def _target(source: Source, options: DataOptions, roles: dict[str, str]) -> tuple[str, str]:
    if options.target is not None:
        return options.target, "named as the target"
    if source.target is not None:
        famous = not source.task_reason  # a format knows why, a named set is known for it
        name = source.name
        return (
            source.target,
            f"the known target of {name}" if famous else f"what {name} is marked with",
        )
    if is_written(options.task):
        return last_text(source, roles, options)
    free = [n for n in source.columns if n not in roles and options.overrides.get(n) != "ignored"]
    for known in TARGET_NAMES:
        for name in free:
            if name.lower() == known and not _is_picture(source.columns[name]):
                return name, f"taken as target because it is called '{name}'"
    possible = [n for n in free if not _is_picture(source.columns[n])]
    if possible and len(free) > 1:
        labels = [n for n in possible if not looks_like_text(source, n)]
        if labels and labels[-1] != possible[-1]:
            return labels[-1], "taken as target because it is the last column that is no text"
        return possible[-1], "taken as target because it is the last column"
    raise DataError(
        f"{source.name} has nothing to predict: "
        + (f"its only column is '{free[0]}'" if free else "it has no columns"),
        "a target column, or one folder per class for pictures and texts",
        "name it with --target, or sort the pictures or texts into class folders",
    )


def _target_field(name: str, column: Column, task: str, why: str, source: Source) -> Field:
    if isinstance(column, Annotations):
        return Field(name, column.kind, "target", why, classes=column.classes)
    if is_written(task):
        return Field(name, "text", "target", why)
    sign = multilabel.separator_of(column) if task == "classify" else None
    if isinstance(column, np.ndarray) and (sign is not None or _is_labels(column)):
        classes = multilabel.classes_of(column, sign, source.classes.get(name, ()))
        stats: dict[str, object] = {"multi": True}
        if sign is not None:
            stats["separator"] = sign
        return Field(name, "category", "target", why, (len(classes),), classes, stats)
    kind = "category" if task == "classify" else "number"
    shape = column.shape[1:] if isinstance(column, np.ndarray) and column.ndim > 1 else ()
    return Field(name, kind, "target", why, shape)


def _is_labels(column: Column) -> bool:
    """Return whether a column holds any number of labels a row, as (N, K) of true and false."""
    return isinstance(column, np.ndarray) and column.ndim == 2 and column.dtype.kind == "b"


def _is_picture(column: Column) -> bool:
    return isinstance(column, ImageFiles) or (isinstance(column, np.ndarray) and column.ndim > 2)


def _task(source: Source, target: str, options: DataOptions) -> tuple[str, str]:
    column = source.columns[target]
    if _is_picture(column):
        raise DataError(
            f"target '{target}' holds pictures", "labels or numbers", "name another target"
        )
    if isinstance(column, Annotations):
        known = OF_KIND[column.kind]
        if options.task not in (None, known):
            raise ConfigError(
                f"task={options.task} for a target of {column.kind}",
                f"task={known}, or data with another target",
                f"leave --task out, or use --task {known}",
            )
        return known, "asked for" if options.task else source.task_reason
    if options.task in OF_TEXT:
        raise DataError(
            f"{source.name} has nothing to {options.task}", OF_TEXT[options.task],
            "see the forms of files in docs/data.md, or use another task",
        )  # fmt: skip
    if options.task in OF_KIND.values():
        raise DataError(
            f"{source.name} has nothing to {options.task}",
            "masks, boxes or keypoints beside the pictures",
            "see the layouts in docs/data.md, or use another task",
        )
    override = options.overrides.get(target)
    if is_written(options.task) and override in (None, "text"):
        return str(options.task), "asked for"
    if override in ("ignored", "date", "text", "image"):
        raise ConfigError(
            f"schema.{target}={override}, but '{target}' is the target",
            "number (regress) or category (classify) for a target",
            "remove this setting or name another target",
        )
    if options.task is not None:
        return options.task, "asked for"
    if override is not None:
        task = "classify" if override == "category" else "regress"
        return task, f"the target is set to {override}"
    if source.task is not None and target == source.target:
        return source.task, source.task_reason or f"the known task of {source.name}"
    sign = multilabel.separator_of(column)
    if sign is not None:
        return "classify", f"the target lists several labels a row, with '{sign}' between them"
    if _is_labels(column):
        return "classify", "the target has any number of labels a row"
    return _task_of(np.asarray(column))


def _task_of(column: np.ndarray) -> tuple[str, str]:
    if column.ndim == 2:
        return "regress", f"the target has {column.shape[1]} numbers a row"
    kind = column.dtype.kind
    if kind in "OU":
        return "classify", "the target is text"
    if kind == "b":
        return "classify", "the target is true or false"
    if kind in "mM":
        return "regress", "the target is a date"
    present = column[~is_missing(column)]
    distinct = np.unique(present)
    whole = kind in "iu" or bool(np.all(np.isfinite(present)) and np.all(present % 1 == 0))
    if whole and len(distinct) <= FEW and (kind in "iu" or len(distinct) <= FEW // 2):
        return "classify", f"the target has {len(distinct)} different whole numbers"
    if kind in "iu" and len(distinct) * 10 <= len(present) and (
        distinct[0] in (0, 1) and distinct[-1] - distinct[0] == len(distinct) - 1
    ) and len(distinct) <= 1000:  # fmt: skip
        return "classify", f"the target has the labels {distinct[0]}..{distinct[-1]}"
    what = "whole numbers" if whole else "numbers"
    return "regress", f"the target has {len(distinct):,} different {what}"


def check_target(source: Source, target: str, task: str) -> None:
    """Raise `DataError` where the target cannot be learned: see the message of each case."""
    found = source.columns[target]
    if isinstance(found, Annotations) or _is_labels(found):
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
        bad = np.array([not _is_float(v) for v in column.tolist()])
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


def _is_float(value: object) -> bool:
    try:
        float(str(value))
    except ValueError:
        return False
    return True


def _rows(source: Source, which: np.ndarray) -> str:
    rows = np.flatnonzero(which)
    shown = ", ".join(source.row_name(int(i)) for i in rows[:5])
    return shown + (", ..." if len(rows) > 5 else "")


# ------------------------------------------------------------------ inputs


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
    is_image = _is_picture(column)
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
        bad = next((v for v in present.tolist() if not _is_float(v)), None)
        if bad is not None and not any(_is_float(v) for v in present.tolist()):
            raise DataError(
                f"schema.{name}=number, but no value of column '{name}' is a number ('{bad}')",
                "a column of numbers",
                f"use schema.{name}=category",
            )
    return Field(name, kind, "input", f"set to {kind}", column.shape[1:])


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


def _without_row_numbers(source: Source, fields: list[Field], options: DataOptions) -> list[Field]:
    """Ignore a first column that only counts the rows, where there are other inputs."""
    first = fields[0]
    if first.role != "input" or first.kind != "number" or first.name in options.overrides:
        return fields
    if sum(f.role == "input" for f in fields) < 2:
        return fields
    column = source.columns[first.name]
    if not isinstance(column, np.ndarray) or column.ndim > 1 or column.dtype.kind not in "iu":
        return fields
    if source.rows > 2 and (np.diff(column) == 1).all() and column[0] in (0, 1):
        reason = f"identifier: it counts the rows from {column[0]}"
        return [Field(first.name, "number", "ignored", reason), *fields[1:]]
    return fields


def _time_kind(column: Column) -> str:
    if isinstance(column, np.ndarray) and column.dtype.kind in "iuf":
        return "number"
    return "date"
