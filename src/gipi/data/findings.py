"""What can be wrong with data: one function a question, each yields `Finding`s.

They look and change nothing. Rows of given validation and test splits are used for counts only.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from gipi.core.errors import DataError
from gipi.data.audit_text import counted, listed
from gipi.data.keys import input_keys, row_keys
from gipi.data.leaks import leaks_in
from gipi.data.multilabel import presence
from gipi.data.source import TEST, TRAIN, VAL, as_labels, class_order, is_missing
from gipi.data.stand_ins import stand_ins

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gipi.core.schema import Schema
    from gipi.data.source import Source

FEW_ROWS = 10  # rows of a class below which it is called rare
IMBALANCE = 10.0  # rows of the largest class over rows of the smallest
MOSTLY_MISSING = 0.5
SHOWN = 5  # names listed in a sentence
REASONS = ("constant", "empty", "identifier", "free text")


@dataclass(frozen=True)
class Finding:
    """One thing worth knowing: `code` for machines, `message` and `do` for people.

    level    "error" (training cannot work or its score would be false), "warning" or "note"
    columns  the columns that it is about
    rows     names of (some of) the rows that it is about
    value    the number behind it, where there is one
    """

    code: str
    level: str
    message: str
    do: str = ""
    columns: tuple[str, ...] = ()
    rows: tuple[str, ...] = ()
    value: float | None = None


# ------------------------------------------------------------------ columns


def missing(source: Source, schema: Schema) -> Iterator[Finding]:
    """Columns with missing values, and how many."""
    for f in schema.fields:
        count = int(is_missing(source.columns[f.name]).sum())
        share = count / source.rows
        if 0 < share < 1:
            yield Finding(
                "missing",
                "warning" if share > MOSTLY_MISSING else "note",
                f"'{f.name}' is missing in {counted(count, 'row')} ({share:.1%})",
                columns=(f.name,),
                value=share,
            )


def ignored(schema: Schema) -> Iterator[Finding]:
    """Columns that the model will not see, and why."""
    for f in schema.of("ignored"):
        code = next((c for c in REASONS if c in f.reason), "ignored")
        yield Finding(
            code.replace(" ", "-"),
            "note" if code in ("identifier", "ignored") else "warning",
            f"'{f.name}' is ignored: {f.reason}",
            f"to use it: schema.{f.name}=category" if code == "identifier" else "",
            columns=(f.name,),
        )


def infinite(source: Source) -> Iterator[Finding]:
    """Columns with infinite values."""
    for name, column in source.columns.items():
        if not isinstance(column, np.ndarray) or column.dtype.kind != "f":
            continue
        rows = np.flatnonzero(np.isinf(column).reshape(len(column), -1).any(1))
        if len(rows):
            names = _names(source, rows)
            where = listed(names, len(rows))
            yield Finding(
                "infinite",
                "warning",
                f"'{name}' is infinite in {counted(len(rows), 'row')}: {where}",
                "correct these values or leave them empty",
                columns=(name,),
                rows=names,
                value=float(len(rows)),
            )


def unknowns(source: Source, schema: Schema, sample: np.ndarray) -> Iterator[Finding]:
    """Columns in which a number stands for "unknown"."""
    for found in stand_ins(source, schema, sample):
        yield Finding("stand-in", "warning", str(found), found.do, (found.column,),
                      value=found.value)  # fmt: skip


def same_columns(source: Source, schema: Schema) -> Iterator[Finding]:
    """Columns that repeat another one in every row."""
    seen: dict[tuple[str, Any], str] = {}
    for f in schema.fields:
        column = source.columns[f.name]
        if f.role not in ("input", "target") or not isinstance(column, np.ndarray):
            continue
        if column.ndim > 1:
            continue
        content = tuple(column.tolist()) if column.dtype.kind == "O" else column.tobytes()
        first = seen.setdefault((column.dtype.str, content), f.name)
        if first != f.name:
            copy = first if f.role == "target" else f.name  # the target is what must stay
            yield Finding(
                "same-columns",
                "warning",
                f"'{f.name}' is the same as '{first}' in every row",
                f"leave one out: schema.{copy}=ignored",
                columns=(first, f.name),
            )


def leaks(source: Source, schema: Schema, sample: np.ndarray) -> Iterator[Finding]:
    """Columns that alone predict the target almost perfectly on the rows of `sample`."""
    if schema.target is None:
        return
    measure = "accuracy above chance" if schema.task == "classify" else "R² of ranks"
    for leak in leaks_in(source.take(sample), schema):
        yield Finding(
            "leak",
            "warning",
            f"'{leak.column}' alone predicts '{schema.target.name}' almost perfectly "
            f"(cross-validated {measure} {leak.score:.3f})",
            "if the text holds the answer: take it out"
            if ": " in leak.column
            else f"if it is not known when predicting: schema.{leak.column}=ignored",
            columns=(leak.column,),
            value=leak.score,
        )


# ------------------------------------------------------------------ rows


def class_counts(source: Source, schema: Schema) -> dict[str, int]:
    """Return rows by class, in the official order where there is one; empty for a regression."""
    if schema.target is None or schema.target.dense or schema.task != "classify":
        return {}
    column = np.asarray(source.columns[schema.target.name])
    if schema.target.multi:
        rows = presence(schema.target, column, row_name=source.row_name).sum(0).tolist()
        return dict(zip(schema.target.classes, rows, strict=True))
    counts = Counter(str(v) for v in as_labels(column))
    known = source.classes.get(schema.target.name) or class_order(counts)
    return {name: counts[name] for name in known}


def imbalance(schema: Schema, classes: dict[str, int]) -> Iterator[Finding]:
    """Classes without rows, with few rows, and of very different size."""
    if schema.target is None or not classes:
        return
    target = (schema.target.name,)
    absent = [name for name, n in classes.items() if n == 0]
    if absent:
        yield Finding(
            "absent-class",
            "warning",
            f"{counted(len(absent), 'class')} without a row: {', '.join(absent[:SHOWN])}",
            columns=target,
        )
    rare = {name: n for name, n in classes.items() if 0 < n < FEW_ROWS}
    if rare:
        shown = ", ".join(f"'{k}' {n}" for k, n in list(rare.items())[:SHOWN])
        yield Finding(
            "rare-class",
            "warning",
            f"{counted(len(rare), 'class')} with fewer than {FEW_ROWS} rows: {shown}",
            "add rows of these classes or leave the classes out",
            columns=target,
        )
    most, least = max(classes.values()), min(n for n in classes.values() if n)
    if most / least >= IMBALANCE:
        share = most / sum(classes.values())
        yield Finding(
            "imbalance",
            "warning",
            f"the largest class has {most:,} rows and the smallest {least:,}; always guessing the "
            f"largest is right in {share:.1%}",
            "compare balanced accuracy, or use class weights",
            columns=target,
            value=most / least,
        )


def duplicates(source: Source, schema: Schema) -> Iterator[Finding]:
    """Rows with equal inputs: how many, with different targets, and across given splits."""
    if not schema.inputs:
        return
    try:
        keys = input_keys(source, schema)
    except DataError as error:
        yield Finding("unreadable", "error", error.found, error.do)
        return
    _, first = np.unique(keys, return_index=True)
    extra = source.rows - len(first)
    if not extra:
        return
    names = _names(source, np.setdiff1d(np.arange(source.rows), first))
    yield Finding(
        "duplicates",
        "note",
        f"{counted(extra, 'row')} with the inputs of an earlier row: {listed(names, extra)}",
        "the split keeps copies on one side",
        rows=names,
        value=extra / source.rows,
    )
    yield from _conflicts(source, schema, keys)
    yield from _straddling(source, keys)


def _conflicts(source: Source, schema: Schema, keys: np.ndarray) -> Iterator[Finding]:
    """Yield the number of groups that no model can get all right."""
    if schema.target is None or schema.target.dense:
        return
    both = row_keys([keys, source.columns[schema.target.name]], source.rows)
    pairs = np.unique(np.stack([keys, both], 1), axis=0)
    _, kinds = np.unique(pairs[:, 0], return_counts=True)
    groups = int((kinds > 1).sum())
    if groups:
        yield Finding(
            "conflicts",
            "warning",
            f"{counted(groups, 'group')} of rows with equal inputs but different targets",
            "no model can predict all of them",
            value=float(groups),
        )


def _straddling(source: Source, keys: np.ndarray) -> Iterator[Finding]:
    if source.given_split is None:
        return
    for name, part in (("validation", VAL), ("test", TEST)):
        held = np.unique(keys[source.given_split == part])
        shared = np.flatnonzero((source.given_split == TRAIN) & np.isin(keys, held))
        if len(shared):
            names = _names(source, shared)
            where = listed(names, len(shared))
            yield Finding(
                "straddling",
                "warning",
                f"{counted(len(shared), 'training row')} with the inputs of a {name} row: {where}",
                "their training copies are left out",
                rows=names,
                value=float(len(shared)),
            )


def _names(source: Source, rows: np.ndarray) -> tuple[str, ...]:
    return tuple(source.row_name(int(i)) for i in rows[:SHOWN])
