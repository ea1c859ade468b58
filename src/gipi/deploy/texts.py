"""What people give a model of texts: a text, several, a file of them; as a table of its columns."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gipi.core.errors import DataError, GipiError
from gipi.data import SOURCES, Source, read_source, text_fields
from gipi.data.audit_text import cut
from gipi.data.source import hash_columns
from gipi.data.sources.textfiles import is_text_file, read_lines, read_text_files
from gipi.deploy.sentences import as_sentences

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gipi.core.schema import Schema
    from gipi.data.source import Column

SHOWN = 60  # characters of a text by which its row is called
SUFFIXES = (".txt", ".csv", ".tsv", ".json", ".jsonl", ".parquet", ".xlsx", ".pdf", ".docx", ".md")
"""Endings of files: a word with one of them that is no file is a file that is lost, and no text."""


def as_texts(data: Any, schema: Schema) -> Any:
    """Return what was given to a model of texts as rows of its columns; the rest unchanged.

    A string is the path of something that exists, the name of a known set of texts, or a text. A
    list of strings is one text each (of two for a model of pairs). A text file is a table where it
    has the columns of one, one text where the model was trained on files, else a text a line.

    Raises `DataError` where a model of pairs gets one text.
    """
    names = [f.name for f in text_fields(schema)]
    if not names:
        return data
    if schema.task == "tag":
        return as_sentences(data, schema, is_text=isinstance(data, str) and is_text(data))
    if isinstance(data, str):
        if not is_text(data):
            lines = is_text_file(Path(data)) or _in_a_language(Path(data), schema)
            return _file(Path(data), names, schema) if lines else data
        return _rows([data], names)
    if isinstance(data, os.PathLike) and Path(data).is_file():
        lines = is_text_file(Path(data)) or _in_a_language(Path(data), schema)
        return _file(Path(data), names, schema) if lines else data
    if type(data).__name__ == "Series" and not set(names) <= set(getattr(data, "index", ())):
        data = list(data)  # a column of a frame; a row of one has the names of its columns
    if isinstance(data, np.ndarray) and data.ndim == 1 and data.dtype.kind in "OU":
        data = data.tolist()
    if isinstance(data, (list, tuple)) and data and all(_is_row(v, names) for v in data):
        return _rows(list(data), names)
    return data


def is_text(item: str) -> bool:
    """Return whether a string given to a model of texts is a text, and no file, folder or set."""
    if not item.strip():
        return True  # else it would be the folder that one stands in
    if item in SOURCES and "text" in SOURCES.get(item).tags:
        return False
    try:
        if Path(item).expanduser().exists():
            return False
    except (OSError, ValueError, RuntimeError):
        return True  # too long for a path, or with signs that none has
    return not looks_like_path(item)


def _in_a_language(path: Path, schema: Schema) -> bool:
    """Return whether a file is called as the language that a model translates from: test.en.

    Raises `DataError` for one that is called as the language it translates to.
    """
    target, name = schema.of("target", "text"), text_fields(schema)[0].name
    if not target or not path.is_file():
        return False
    if path.suffix == f".{target[0].name}":
        raise DataError(
            f"{path} is in '{target[0].name}', and the model writes that from '{name}'",
            f"a text in '{name}', or a file of them: .{name}, .txt or a table",
            f"give the other side, or train with --target {name}",
        )
    return path.suffix == f".{name}"


def looks_like_path(item: str) -> bool:
    """Return whether a string without spaces has the form of a path.

    >>> [looks_like_path(s) for s in ("new.csv", "a/b/", "and/or it", "Great.", "fine")]
    [True, True, False, False, False]
    """
    if any(c.isspace() for c in item.strip()):
        return False
    return Path(item).suffix.lower() in SUFFIXES or item.endswith(("/", os.sep))


def pairs_of(items: Sequence[str], schema: Schema) -> list[Any]:
    """Return the items of a command line; of a model of pairs two texts in a row are one item."""
    if len(text_fields(schema)) < 2:
        return list(items)
    found: list[Any] = []
    waiting: str | None = None
    for item in items:
        if not is_text(item) or "\t" in item:
            found.append(item)
        elif waiting is None:
            waiting = item
        else:
            found.append([(waiting, item)])
            waiting = None
    if waiting is not None:
        found.append(waiting)  # alone: says itself what is wrong
    return found


def _is_row(value: Any, names: list[str]) -> bool:
    if isinstance(value, str):
        return True
    pair = isinstance(value, (list, tuple)) and len(value) == len(names) > 1
    return pair and all(isinstance(v, str) for v in value)


def _rows(items: list[Any], names: list[str], row_names: Sequence[str] | None = None) -> Source:
    """Return a table of one row an item: a text, two texts, or two with a tab between."""
    cells = [_cells(item, names) for item in items]
    columns: dict[str, Column] = {}
    for k, name in enumerate(names):
        values = np.empty(len(cells), dtype=object)
        values[:] = [row[k].strip() or None for row in cells]
        columns[name] = values
    called = row_names or [cut(" | ".join(row), SHOWN) or "(empty)" for row in cells]
    return Source(
        "texts", columns, len(cells), row_names=tuple(called),
        schema_hints=dict.fromkeys(names, "text"), fingerprint=hash_columns(columns),
    )  # fmt: skip


def _cells(item: Any, names: list[str]) -> list[str]:
    row = [item] if isinstance(item, str) else list(item)
    if len(row) == 1 and len(names) > 1:
        row = row[0].split("\t")
    if len(row) != len(names):
        wanted = " and ".join(f"'{n}'" for n in names)
        raise DataError(
            f"{len(row)} text{'s' * (len(row) != 1)} for a model that reads {len(names)}: "
            f"{cut(' | '.join(row), SHOWN)}",
            f"{wanted} of each row",
            "give the texts one after the other, or a table with these columns",
        )
    return row


def _file(path: Path, names: list[str], schema: Schema) -> Any:
    """Return a text file as what it holds: a table, one text, or a text a line."""
    if text_fields(schema)[0].reason == "a text file a row":
        return read_text_files([path], path.stem)
    try:
        table = read_source(path)
    except GipiError:
        table = None
    if table is not None and set(names) <= set(table.columns):
        return table
    notes: list[str] = []
    found = read_lines(path, notes)
    return replace(_rows(list(found.values()), names, list(found)), notes=tuple(notes))
