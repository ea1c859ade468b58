"""What people give a model of tags: a text, several, a table of texts, or a file of tokens."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gipi.core.errors import DataError
from gipi.data import SOURCES, Source, read_source, words_of
from gipi.data.audit_text import cut
from gipi.data.source import hash_columns
from gipi.data.sources.conll import SUFFIXES, is_conll
from gipi.data.sources.textfiles import is_text_file, read_lines

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gipi.core.schema import Schema

SHOWN = 60  # characters of a text by which its row is called
COLUMNS = ("text", "sentence", "tokens")  # of a table, the first of them is read


def as_sentences(data: Any, schema: Schema, *, is_text: bool) -> Any:
    """Return what was given to a model of tags as sentences; known data unchanged.

    is_text  whether a string is a text, and no path or name
    A text is cut into words and signs, and each of its characters is a token where the model was
    trained so. A file with a token a line is read as in training; another text file holds a text a
    line; a table has a column `text`.

    Raises `DataError` for a table without one.
    """
    if isinstance(data, str) and is_text:
        return sentences([data], schema)
    if isinstance(data, str | os.PathLike):
        path = Path(data).expanduser()
        if str(data) in SOURCES or path.is_dir():
            return data
        if path.name.lower().removesuffix(".gz").endswith(SUFFIXES):
            return data
        if is_text_file(path) and path.is_file():
            return read_source(path, task="tag") if is_conll(path) else _lines(path, schema)
        return _table(read_source(path), schema)
    if isinstance(data, np.ndarray) and data.ndim == 1 and data.dtype.kind in "OU":
        data = data.tolist()
    if isinstance(data, list | tuple) and data and all(isinstance(v, str) for v in data):
        return sentences(list(data), schema)
    return _table(read_source(data), schema)


def sentences(
    texts: Sequence[str], schema: Schema, *, names: Sequence[str] | None = None
) -> Source:
    """Return texts as tokens, with the characters of each; empty texts are named by the reader."""
    joint = bool(schema.field("tokens").stats.get("joint", True))
    columns = {name: np.empty(len(texts), dtype=object) for name in ("tokens", "text", "places")}
    for i, text in enumerate(texts):
        found = words_of(text) if joint else [(c, k, k + 1) for k, c in enumerate(text)]
        columns["tokens"][i] = tuple(word for word, _, _ in found)
        columns["text"][i] = text
        columns["places"][i] = tuple(p for _, a, b in found for p in (a, b))
    called = names or [cut(text, SHOWN) or "(empty)" for text in texts]
    return Source(
        "texts", dict(columns), len(texts), row_names=tuple(called),
        schema_hints={"tokens": "tokens"}, fingerprint=hash_columns(dict(columns)),
    )  # fmt: skip


def _lines(path: Path, schema: Schema) -> Source:
    notes: list[str] = []
    found = read_lines(path, notes)
    made = sentences(list(found.values()), schema, names=list(found))
    return replace(made, notes=tuple(notes))


def _table(source: Source, schema: Schema) -> Source:
    column = next((name for name in COLUMNS if name in source.columns), None)
    if column == "tokens" and source.schema_hints.get("tokens") == "tokens":
        return source
    if column is None or column == "tokens":
        raise DataError(
            f"{source.name} has no column 'text': its columns are {', '.join(source.columns)}",
            "the texts to look through", "name the column 'text'",
        )  # fmt: skip
    values = source.columns[column]
    assert isinstance(values, np.ndarray)
    texts = ["" if v is None else str(v) for v in values.tolist()]
    return sentences(texts, schema, names=[source.row_name(i) for i in range(source.rows)])
