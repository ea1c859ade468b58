"""Korean texts: film reviews (NSMC), and pairs of sentences (KLUE).

The files are read as they were published: quotes are characters of the text and not marks around
it, and a text that says "NA" or "?" is that text and no missing value.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from gipi.core.errors import DataError
from gipi.data.source import TEST, TRAIN, Source
from gipi.data.sources.compressed import find_file, fingerprint_files, read_bytes
from gipi.data.sources.encoding import as_utf8
from gipi.data.sources.table import read_table

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

NSMC_TRAIN = ("ratings_train.txt", "ratings_train_resampled.txt")
NSMC_TEST = "ratings_test.txt"
NSMC_LABELS = {"0": "negative", "1": "positive"}
REDRAWN = (
    "the training rows are not the published ones: they were drawn again from the same reviews by "
    "the same rule, without the test rows"
)
NLI, STS = "klue-nli-v1.1", "klue-sts-v1.1"


def holds_nsmc(folder: Path) -> bool:
    """Return whether a folder holds both parts of the film reviews."""
    found = any(find_file(folder, name) for name in NSMC_TRAIN)
    return found and find_file(folder, NSMC_TEST) is not None


def read_nsmc(folder: Path) -> Source:
    """Return the reviews with their official test rows; columns id, document and label."""
    train = next(p for p in (find_file(folder, name) for name in NSMC_TRAIN) if p is not None)
    test = find_file(folder, NSMC_TEST)
    assert test is not None  # `complete` said so
    parts = [_reviews(path) for path in (train, test)]
    rows = [len(part) for part in parts]
    cells = [row for part in parts for row in part]
    columns = {
        "id": np.array([int(row[0]) for row in cells], dtype=np.int64),
        "document": np.array([row[1] or None for row in cells], dtype=object),
        "label": np.array([NSMC_LABELS[row[2]] for row in cells], dtype=object),
    }
    notes: tuple[str, ...] = ()
    if train.name.startswith(NSMC_TRAIN[1]):
        notes = (REDRAWN,)
    fingerprint, of = fingerprint_files([train, test], folder)
    return Source(
        name="nsmc",
        columns=dict(columns),
        rows=sum(rows),
        parts=((train.name, rows[0]), (test.name, rows[1])),
        given_split=np.repeat(np.array([TRAIN, TEST], np.int8), rows),
        target="label",
        task="classify",
        classes={"label": tuple(NSMC_LABELS.values())},
        schema_hints={"document": "text"},
        fingerprint=fingerprint,
        fingerprint_of=of,
        origin=folder,
        notes=notes,
    )


def _reviews(path: Path) -> list[list[str]]:
    """Return (id, document, label) of each row; raise `DataError` naming a row that is none."""
    lines = as_utf8(read_bytes(path), path, []).decode().split("\n")
    rows = [line.rstrip("\r").split("\t") for line in lines[1:] if line]
    for number, row in enumerate(rows, 1):
        if len(row) != 3 or row[2] not in NSMC_LABELS or not row[0].isdigit():
            raise DataError(
                f"{path.name} row {number}: {' | '.join(row)[:80]!r}",
                "an id, a review and a label 0 or 1, with tabs between",
                "get the file again",
            )
    return [[row[0], row[1].strip(), row[2]] for row in rows]


def holds_klue(name: str) -> Callable[[Path], bool]:
    """Return the test whether a folder holds the rows that the set publishes for development."""
    return lambda folder: find_file(folder, f"{name}_dev.json") is not None


def read_klue_nli(folder: Path) -> Source:
    """Return premise, hypothesis and what the annotators agreed on (not their single votes)."""
    found = _klue(folder, NLI, {"premise": "premise", "hypothesis": "hypothesis",
                                "gold_label": "label"})  # fmt: skip
    order = ("entailment", "neutral", "contradiction")
    return replace(found, target="label", task="classify", classes={"label": order})


def read_klue_sts(folder: Path) -> Source:
    """Return two sentences and how much they mean the same, 0 to 5: the mean of the annotators."""
    found = _klue(folder, STS, {"sentence1": "sentence1", "sentence2": "sentence2",
                                "labels.real-label": "similarity"})  # fmt: skip
    return replace(found, target="similarity", task="regress")


def _klue(folder: Path, name: str, columns: dict[str, str]) -> Source:
    """Return these columns, renamed; the development rows are the test where there are others."""
    parts = {"train": find_file(folder, f"{name}_train.json"),
             "dev": find_file(folder, f"{name}_dev.json")}  # fmt: skip
    sources = [read_table(path) for path in parts.values() if path is not None]
    given: np.ndarray | None = None
    notes = ("the rows published for development alone: split anew",)
    if len(sources) > 1:
        rows = [s.rows for s in sources]
        given = np.repeat(np.array([TRAIN, TEST], np.int8), rows)
        notes = ("the rows published for development are the test: others have no public label",)
    paths = [s.origin for s in sources if s.origin is not None]
    fingerprint, of = fingerprint_files(paths, folder)
    return Source(
        name=name,
        columns={
            new: np.concatenate([np.asarray(s.columns[old]) for s in sources])
            for old, new in columns.items()
        },
        rows=sum(s.rows for s in sources),
        parts=tuple((s.origin.name, s.rows) for s in sources if s.origin is not None),
        given_split=given,
        schema_hints={new: "text" for old, new in columns.items() if "label" not in old},
        fingerprint=fingerprint,
        fingerprint_of=of,
        origin=folder,
        notes=notes,
    )
