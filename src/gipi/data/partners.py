"""Pairs of texts that belong together: two columns, and nothing to predict but the partner.

Rows that share a text are one group: none of them is a wrong partner for another, and all of them
are on one side of the split, or a text of the test rows would have been learnt.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from gipi.core.errors import DataError
from gipi.core.schema import PAIRED, Field, Schema
from gipi.data.keys import codes, folded
from gipi.data.source import as_labels, is_missing

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gipi.data.source import Source


def is_paired(task: str | None) -> bool:
    """Return whether a task looks for the partner of a text."""
    return task in PAIRED


def paired_schema(source: Source, fields: Sequence[Field], task: str) -> Schema:
    """Return the schema of pairs: two texts as inputs, no target.

    Raises `DataError` unless two columns of text are left.
    """
    texts = [f for f in fields if f.role == "input" and f.kind == "text"]
    if len(texts) != 2:
        found = ", ".join(f"'{f.name}'" for f in texts) or "none"
        raise DataError(
            f"{source.name} has the text columns: {found}",
            f"two texts a row that belong together, to {task} them",
            "make a column a text with --set schema.NAME=text, or leave one out with =ignored",
        )
    why = "not looked at: a pair is two texts"
    kept = [f if f in texts or f.role != "input" else replace(f, role="ignored", reason=why)
            for f in fields]  # fmt: skip
    return Schema(tuple(kept), task, "asked for")


def both_there(source: Source, schema: Schema) -> np.ndarray:
    """Return (N,) bool: rows that have both texts."""
    usable = np.ones(source.rows, dtype=bool)
    for field in schema.of("input", "text"):
        column = np.asarray(source.columns[field.name])
        usable &= ~is_missing(column) & np.array([bool(str(v).strip()) for v in column.tolist()])
    return usable


def partner_groups(source: Source, schema: Schema) -> np.ndarray:
    """Return (N,) int64 codes, equal for rows that share a text with each other, or through others.

    >>> from gipi.core.schema import Field
    >>> from gipi.data.source import Source
    >>> pairs = [("a", "x"), ("b", "y"), ("c", "x"), ("b", "z")]
    >>> one, two = (np.array(column, dtype=object) for column in zip(*pairs))
    >>> fields = (Field("one", "text", "input"), Field("two", "text", "input"))
    >>> partner_groups(Source("t", {"one": one, "two": two}, 4), Schema(fields)).tolist()
    [0, 1, 0, 1]
    """
    parent = np.arange(source.rows)

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = int(parent[i])
        return i

    for field in schema.of("input", "text"):
        column = np.asarray(source.columns[field.name])
        labels = column if column.dtype.kind == "O" else as_labels(column)
        plain = folded(labels)
        key = codes(plain)
        first: dict[int, int] = {}
        for i, (code, text) in enumerate(zip(key.tolist(), plain, strict=True)):
            if not text:  # rows without a text have none in common
                continue
            a, b = root(first.setdefault(code, i)), root(i)
            parent[max(a, b)] = min(a, b)
    roots = np.array([root(i) for i in range(source.rows)], dtype=np.int64)
    return np.unique(roots, return_inverse=True)[1].reshape(-1).astype(np.int64)
