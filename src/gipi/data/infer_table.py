"""What the columns of rows are: which is the target, which task it calls for, what the rest is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from gipi.core.errors import ConfigError, DataError
from gipi.core.schema import Field, Schema
from gipi.data import multilabel
from gipi.data.check_target import check_target
from gipi.data.infer_column import FEW, field_of, is_picture, special_roles
from gipi.data.source import Annotations, Column, Source, is_missing
from gipi.data.wordy import looks_like_text, settle_texts

if TYPE_CHECKING:
    from gipi.data.options import DataOptions

TARGET_NAMES = ("target", "label", "class", "y", "labels", "classes", "outcome")
OF_KIND = {"mask": "segment", "boxes": "detect", "keypoints": "pose"}
OF_TEXT = {
    "tag": "sentences with a tag for each token, as a .conll file holds them",
    "answer": "questions with contexts and answers, as SQuAD's JSON holds them",
}


def infer_table(source: Source, options: DataOptions) -> Schema:
    """Return the schema of rows with one target: a plain column, or what is drawn on pictures.

    Raises `DataError` where the target has missing or impossible values or only one class, or no
    input column is left.
    """
    roles = special_roles(options)
    target, why_target = _target(source, options, roles)
    task, why_task = choose_task(source, target, options)
    check_target(source, target, task)
    fields = []
    for name, column in source.columns.items():
        if name == target:
            fields.append(_target_field(name, column, task, why_target, source))
        else:
            fields.append(field_of(source, name, options, roles))
    fields = settle_texts(source, _without_row_numbers(source, fields, options), options)
    if not any(f.role == "input" for f in fields):
        reasons = "; ".join(f"'{f.name}': {f.reason}" for f in fields if f.role == "ignored")
        raise DataError(
            f"{source.name} has no input column" + (f" ({reasons})" if reasons else ""),
            "at least one column to predict the target from",
            "set the kind of a column, for instance schema."
            + next((f.name for f in fields if f.role == "ignored"), "NAME") + "=category",
        )  # fmt: skip
    return Schema(tuple(fields), task, why_task)


def named_target(source: Source, options: DataOptions) -> tuple[str, str] | None:
    """Return the target that was asked for or that the source is known for, and why; else None."""
    if options.target is not None:
        return options.target, "named as the target"
    if source.target is not None:
        famous = not source.task_reason  # a format knows why, a named set is known for it
        name = source.name
        return (
            source.target,
            f"the known target of {name}" if famous else f"comes with {name}",
        )
    return None


def _target(source: Source, options: DataOptions, roles: dict[str, str]) -> tuple[str, str]:
    named = named_target(source, options)
    if named is not None:
        return named
    free = [n for n in source.columns if n not in roles and options.overrides.get(n) != "ignored"]
    for known in TARGET_NAMES:
        for name in free:
            if name.lower() == known and not is_picture(source.columns[name]):
                return name, f"taken as target because it is called '{name}'"
    possible = [n for n in free if not is_picture(source.columns[n])]
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
    sign = multilabel.separator_of(column) if task == "classify" else None
    if isinstance(column, np.ndarray) and (sign is not None or multilabel.is_labels(column)):
        classes = multilabel.classes_of(column, sign, source.classes.get(name, ()))
        stats: dict[str, object] = {"multi": True}
        if sign is not None:
            stats["separator"] = sign
        return Field(name, "category", "target", why, (len(classes),), classes, stats)
    kind = "category" if task == "classify" else "number"
    shape = column.shape[1:] if isinstance(column, np.ndarray) and column.ndim > 1 else ()
    return Field(name, kind, "target", why, shape)


def choose_task(source: Source, target: str, options: DataOptions) -> tuple[str, str]:
    """Return the task that this target calls for, and why.

    Raises `DataError` or `ConfigError` where it is no target, or not one for what was asked.
    """
    column = source.columns[target]
    if is_picture(column):
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
    if multilabel.is_labels(column):
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
