"""Tasks that write a text: which column is read, which is written, and which rows have both.

Translating and summarising are one mechanism under two words: one column of text goes in, another
comes out. Everything else in the data is left out, and says so.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from gipi.core.errors import DataError
from gipi.core.schema import WRITTEN, Field, Schema
from gipi.data.divide import rows_to_split, some_pair
from gipi.data.form import Looked
from gipi.data.infer_column import field_of, special_roles
from gipi.data.infer_table import choose_task, named_target
from gipi.data.source import is_missing
from gipi.data.wordy import words_a_row

if TYPE_CHECKING:
    from gipi.data.options import DataOptions
    from gipi.data.source import Column, Source


def infer_written(source: Source, options: DataOptions) -> Schema | None:
    """Return the schema of a task that writes a text, asked for or known; None for other tasks.

    Raises `DataError` where there is no text to read, or none to write.
    """
    if not _is_written(source, options):
        return None
    roles = special_roles(options)
    target, why = named_target(source, options) or last_text(source, roles, options)
    rest = {k: v for k, v in options.overrides.items() if (k, v) != (target, "text")}
    task, why_task = choose_task(source, target, replace(options, overrides=rest))
    check_written(source, target, task)
    fields = [
        Field(name, "text", "target", why)
        if name == target
        else field_of(source, name, options, roles)
        for name in source.columns
    ]
    return Schema(tuple(settle_source(source, fields, options, task)), task, why_task)


def _is_written(source: Source, options: DataOptions) -> bool:
    if options.task is not None:
        return options.task in WRITTEN
    known = source.target is not None and options.target in (None, source.target)
    return known and source.task in WRITTEN and source.target not in options.overrides


def text_columns(source: Source) -> list[str]:
    """Return the columns of strings, in their order."""
    return [name for name, column in source.columns.items() if _is_text(column)]


def _is_text(column: Column) -> bool:
    return isinstance(column, np.ndarray) and column.ndim == 1 and column.dtype.kind in "OU"


def last_text(source: Source, roles: dict[str, str], options: DataOptions) -> tuple[str, str]:
    """Return the column of target texts where none was named, and why it is this one.

    Raises `DataError` where there are fewer than two columns of text.
    """
    free = [name for name in text_columns(source)
            if name not in roles and options.overrides.get(name) != "ignored"]  # fmt: skip
    if len(free) < 2:
        count = f"{len(free) or 'no'} column{'s' * (len(free) != 1)} of text"
        raise DataError(
            f"{source.name} has {count} among {', '.join(source.columns)}",
            f"two columns of text to {options.task}: one that is read and one that is written",
            "give a table with both, or two files such as train.en and train.de",
        )
    return free[-1], "taken as target because it is the last column of text"


def check_written(source: Source, target: str, task: str) -> None:
    """Raise `DataError` where the target holds no texts."""
    column = source.columns[target]
    if not _is_text(column):
        texts = [name for name in text_columns(source) if name != target]
        raise DataError(
            f"the target '{target}' of {source.name} holds no text",
            f"a column of texts to {task}",
            f"name one with --target: {', '.join(texts)}" if texts else "use another task",
        )
    if is_missing(column).all():
        raise DataError(
            f"every text of the target '{target}' is empty", "texts to learn from",
            "check the column and the file",
        )  # fmt: skip


def settle_source(
    source: Source, fields: list[Field], options: DataOptions, task: str
) -> list[Field]:
    """Return the fields with exactly one text as input; the others are ignored, with the reason.

    The text is the one that was asked for, else what the form of the data calls a text, else the
    one with most words. Raises `DataError` where
    there is none.
    """
    asked = [name for name, kind in options.overrides.items() if kind == "text"]
    free = [f for f in fields if f.role not in ("target", "weight", "group", "time", "split")]
    texts = [f for f in free if _is_text(source.columns[f.name])
             and options.overrides.get(f.name) != "ignored"]  # fmt: skip
    if not texts:
        found = ", ".join(f"'{f.name}'" for f in free) or "no other column"
        raise DataError(
            f"{source.name} has no text to {task} from: {found}",
            "a column of texts beside the target",
            "name another target with --target, or give a table with both texts",
        )
    hints = source.schema_hints
    best = max(texts, key=lambda f: (f.name in asked, hints.get(f.name) == "text",
                                     _words(source, f)))  # fmt: skip
    why = f"texts to {task} from"
    beside = f"a text is written from one text, and '{best.name}' is read"
    out = []
    for field in fields:
        if field.name == best.name:
            field = Field(field.name, "text", "input", why)  # noqa: PLW2901
        elif field in free:
            field = replace(field, role="ignored", reason=beside)  # noqa: PLW2901
        out.append(field)
    return out


def _words(source: Source, field: Field) -> float:
    column = np.asarray(source.columns[field.name])
    return words_a_row(column[~is_missing(column)])


def look_at_both(source: Source, schema: Schema, _options: DataOptions) -> Looked:
    """Return what the split must know of rows that have a text to read and one to write."""
    usable = np.ones(source.rows, dtype=bool)
    for field in (*schema.of("input", "text"), *schema.of("target", "text")):
        column = source.columns[field.name]
        assert isinstance(column, np.ndarray)
        blank = np.fromiter((isinstance(v, str) and not v.strip() for v in column.tolist()), bool,
                            len(column))  # fmt: skip
        usable &= ~is_missing(column) & ~blank
    some_pair(usable, source, schema)
    lost = int((~usable).sum())
    return Looked(
        rows_to_split(source, schema, usable=usable), lost=lost_rows(lost, schema) if lost else ""
    )


def lost_rows(count: int, schema: Schema) -> str:
    """Return the sentence about rows that lack one of the two texts."""
    names = " and ".join(f"'{f.name}'" for f in (*schema.inputs, *schema.of("target")))
    rows = "1 row" if count == 1 else f"{count:,} rows"
    return f"{rows} without both texts ({names}) take no part"
