"""Pairs of texts that belong together: two columns, and nothing to predict but the partner.

Rows that share a text are one group: none of them is a wrong partner for another, and all of them
are on one side of the split, or a text of the test rows would have been learnt.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from gipi.core.errors import DataError
from gipi.core.schema import PAIRED, Schema
from gipi.data.divide import rows_to_split, some_pair
from gipi.data.form import Looked, Opened, RowForm
from gipi.data.infer_column import field_of, special_roles
from gipi.data.keys import codes, folded
from gipi.data.source import as_labels, is_missing
from gipi.data.texts import open_texts, read_texts
from gipi.data.wordy import settle_texts

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gipi.data.form import Divided
    from gipi.data.options import DataOptions
    from gipi.data.source import Source


def infer_paired(source: Source, options: DataOptions) -> Schema | None:
    """Return the schema of pairs, two texts as inputs and no target; None for another task.

    Raises `DataError` unless two columns of text are left.
    """
    if options.task not in PAIRED:
        return None
    roles = special_roles(options)
    options = _words_are_texts(source, options, roles)
    fields = [field_of(source, name, options, roles) for name in source.columns]
    fields = settle_texts(source, fields, options)
    texts = [f for f in fields if f.role == "input" and f.kind == "text"]
    if len(texts) != 2:
        found = ", ".join(f"'{f.name}'" for f in texts)
        raise DataError(
            f"{source.name} has {len(texts) or 'no'} column{'s' * (len(texts) != 1)} of text"
            + (f": {found}" if texts else ""),
            f"two texts a row that belong together, to {options.task} them",
            "make a column a text with --set schema.NAME=text, or leave one out with =ignored",
        )
    why = "not looked at: a pair is two texts"
    kept = [f if f in texts or f.role != "input" else replace(f, role="ignored", reason=why)
            for f in fields]  # fmt: skip
    return Schema(tuple(kept), str(options.task), "asked for")


def _words_are_texts(source: Source, options: DataOptions, roles: Mapping[str, str]) -> DataOptions:
    """Return options by which the only two columns of words are texts, however short they are."""
    words = [
        name for name, column in source.columns.items()
        if isinstance(column, np.ndarray) and column.dtype.kind in "OU" and name not in roles
    ]  # fmt: skip
    if len(words) != 2 or set(words) & set(options.overrides):
        return options
    return replace(options, overrides={**dict.fromkeys(words, "text"), **options.overrides})


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


def look_at_pairs(source: Source, schema: Schema, _options: DataOptions) -> Looked:
    """Return what the split must know of pairs: those that share a text stay together."""
    usable = both_there(source, schema)
    some_pair(usable, source, schema)
    groups, rule = partner_groups(source, schema), "rows that share a text together"
    lost = int((~usable).sum())
    return Looked(
        rows_to_split(source, schema, usable=usable, groups=groups, rule=rule),
        lost=f"{lost} rows without both texts take no part" if lost else "",
    )


def _open(rows: Divided) -> Opened:
    groups = torch.from_numpy(partner_groups(rows.source, rows.schema))
    return replace(open_texts(rows), target=groups)


def _read(schema: Schema, source: Source, options: DataOptions, *, target: bool) -> Opened:
    found = read_texts(schema, source, options)
    groups = torch.from_numpy(partner_groups(source, schema)) if target else None
    return replace(found, target=groups)


FORM = RowForm("texts that belong together", PAIRED, look_at_pairs, _open, _read, infer_paired)
