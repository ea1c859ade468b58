"""The Adult set: its columns are named in its documentation, not in its files."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from gipi.data.source import TEST, TRAIN, Source
from gipi.data.sources.compressed import find_file, fingerprint_files
from gipi.data.sources.table import read_table

if TYPE_CHECKING:
    from pathlib import Path

ADULT_COLUMNS = (
    "age", "workclass", "fnlwgt", "education", "education-num", "marital-status", "occupation",
    "relationship", "race", "sex", "capital-gain", "capital-loss", "hours-per-week",
    "native-country", "income",
)  # fmt: skip


def _part(folder: Path, name: str) -> Source:
    path = find_file(folder, name)
    assert path is not None, name  # the caller looked for it
    return read_table(path, names=ADULT_COLUMNS)


def read_adult(folder: Path) -> Source:
    """Return 32,561 training and 16,281 test rows; the test labels' full stop is removed."""
    train = _part(folder, "adult.data")
    test = _part(folder, "adult.test")
    columns = {}
    for name in ADULT_COLUMNS:
        values = np.concatenate([np.asarray(s.columns[name]) for s in (train, test)])
        if name == "income":
            values = np.array([v.rstrip(".") for v in values], dtype=object)
        columns[name] = values
    paths = [s.origin for s in (train, test) if s.origin is not None]
    fingerprint, of = fingerprint_files(paths, folder)
    return Source(
        name="adult",
        columns=dict(columns),
        rows=train.rows + test.rows,
        parts=(("adult.data", train.rows), ("adult.test", test.rows)),
        given_split=np.repeat(np.array([TRAIN, TEST], np.int8), [train.rows, test.rows]),
        target="income",
        task="classify",
        fingerprint=fingerprint,
        fingerprint_of=of,
        origin=folder,
        notes=tuple(n for n in train.notes if "missing" in n),
    )


def recognise(source: Source) -> Source:
    """Return an Adult file without a header with its documented column names; others as they are.

    The full stop after the labels of adult.test is removed, so that they equal the training labels.
    """
    stem = source.origin.name.lower() if source.origin is not None else ""
    if not stem.startswith("adult.") or list(source.columns) != [
        f"column {i + 1}" for i in range(len(ADULT_COLUMNS))
    ]:
        return source
    columns = dict(zip(ADULT_COLUMNS, source.columns.values(), strict=True))
    labels = np.asarray(columns["income"])
    columns["income"] = np.array([v and str(v).rstrip(".") for v in labels], dtype=object)
    notes = [n for n in source.notes if not n.startswith("no header")]
    for i, name in reversed(list(enumerate(ADULT_COLUMNS))):
        notes = [n.replace(f"column 'column {i + 1}'", f"column '{name}'") for n in notes]
    found = "no header found: recognised as the Adult set, column names from its documentation"
    return replace(source, columns=columns, target="income", notes=(found, *notes))
