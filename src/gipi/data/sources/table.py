"""Tables in files: CSV, TSV and other delimited text, Parquet, JSON lines; compressed or not.

What a file does not say is worked out from its first rows, over these questions in order: the
encoding, the separator, whether the first row holds names. Every answer that is not the usual one
becomes a note.
"""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from typing import TYPE_CHECKING, Any

from gipi.core.errors import DataError
from gipi.data.source import Source
from gipi.data.sources.arrow import (
    looks_like_number,
    read_delimited,
    read_parquet,
    typed_columns,
    unique_names,
)
from gipi.data.sources.compressed import (
    decompress,
    fingerprint_files,
    kind_of,
    read_raw,
    stem_of,
)
from gipi.data.sources.encoding import as_utf8
from gipi.data.sources.values import MISSING, looks_like_date, tidy_objects

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from gipi.data.source import Column

DELIMITED = (".csv", ".tsv", ".tab", ".psv", ".txt", ".data", ".test", ".dat")
JSON = (".jsonl", ".ndjson", ".json")
PARQUET = (".parquet", ".pq")
KINDS = (*DELIMITED, *PARQUET, *JSON)
SEPARATORS = (",", "\t", ";", "|")
COMMENTS = ("#", "|", "%")
HEAD_ROWS, HEAD_BYTES = 64, 1 << 18


def read_table(
    path: Path,
    *,
    names: Sequence[str] | None = None,
    delimiter: str | None = None,
) -> Source:
    """Return the rows of one table file.

    names      of the columns of a file without a header; None: worked out
    delimiter  None: from the suffix and the first rows
    """
    kind = kind_of(path)
    notes: list[str] = []
    if kind in PARQUET:
        columns, notes = read_parquet(path)
    elif kind in JSON:
        columns, notes = _read_json(_text(path, notes), path)
    else:
        columns, said = _read_delimited(_text(path, notes), path, names, delimiter)
        notes += said
    rows = len(next(iter(columns.values()))) if columns else 0
    if not rows:
        raise DataError(f"{path} has no rows", "a table with at least one row", "check the file")
    fingerprint, of = fingerprint_files([path], path.parent)
    return Source(
        name=stem_of(path),
        columns=columns,
        rows=rows,
        parts=((path.name, rows),),
        fingerprint=fingerprint,
        fingerprint_of=of,
        origin=path,
        notes=tuple(notes),
    )


def _text(path: Path, notes: list[str]) -> bytes:
    """Return the content as UTF-8 without a byte-order mark; other encodings are noted."""
    return as_utf8(decompress(read_raw(path), path), path, notes)


def _read_delimited(
    data: bytes, path: Path, names: Sequence[str] | None, delimiter: str | None
) -> tuple[dict[str, Column], list[str]]:
    notes: list[str] = []
    data = _without_comments(data, notes)
    if b"\n" not in data and b"\r" in data:
        data = data.replace(b"\r", b"\n")
    if not data.strip():
        raise DataError(f"{path} is empty", "a table with at least one row", "check the file")
    separator = delimiter or _separator(data, kind_of(path))
    quoted = separator != "\t" or _quotes_close(data)
    head = _head(data, separator, quoted)
    header = names is None and _has_header(head)
    table = read_delimited(
        data, delimiter=separator, skip=1 if header else 0, quoted=quoted, path=path
    )
    if header:
        first = head[0] + [""] * (table.num_columns - len(head[0]))
        found, said = unique_names(first[: table.num_columns])
        notes += said
    elif names is None:
        found = [f"column {i + 1}" for i in range(table.num_columns)]
        notes.append("no header found: the columns are called column 1, column 2, ...")
    else:
        found = list(names)
        if len(found) != table.num_columns:
            raise DataError(
                f"{path} has {table.num_columns} columns", f"{len(found)} columns", "check the file"
            )
    columns, said = typed_columns(table, found, separator)
    return columns, notes + said


def _without_comments(data: bytes, notes: list[str]) -> bytes:
    """Drop leading comment lines: they begin with a comment sign and are unlike the next line."""
    while data[:1] and chr(data[0]) in COMMENTS:
        line, _, rest = data.partition(b"\n")
        following = rest.partition(b"\n")[0]
        if not rest.strip() or any(
            line.count(s.encode()) == following.count(s.encode()) > 0 for s in SEPARATORS
        ):
            break
        notes.append(f"comment line left out: {line.decode(errors='replace').strip()}")
        data = rest
    return data


def _head(data: bytes, separator: str, quoted: bool) -> list[list[str]]:  # noqa: FBT001
    text = data[:HEAD_BYTES].decode(errors="ignore").replace("\r\n", "\n").replace("\r", "\n")
    if len(data) > HEAD_BYTES and "\n" in text:
        text = text[: text.rindex("\n")]
    reader = csv.reader(
        io.StringIO(text),
        delimiter=separator,
        quoting=csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE,
    )
    rows: list[list[str]] = []
    try:
        for row in reader:
            if row:
                rows.append([value.strip() for value in row])
            if len(rows) > HEAD_ROWS:
                break
    except csv.Error:  # a field over the limit of the csv module: what came before will do
        pass
    return rows


def _separator(data: bytes, kind: str) -> str:
    """Return the separator that splits the first rows most evenly, then into most columns."""
    if kind in (".tsv", ".tab"):
        return "\t"
    best, score = ",", (0.0, 0)
    for separator in SEPARATORS:
        widths = Counter(len(row) for row in _head(data, separator, True))  # noqa: FBT003
        width, count = widths.most_common(1)[0] if widths else (1, 0)
        even = count / max(sum(widths.values()), 1)
        if width > 1 and (even, width) > score:
            best, score = separator, (even, width)
    return best


def _quotes_close(data: bytes) -> bool:
    """Return whether double quotes in a tab-separated file mark values (else they are text)."""
    if b'"' not in data:
        return True
    lines = data.split(b"\n")
    fields = (f.strip() for line in lines for f in line.split(b"\t") if f.lstrip()[:1] == b'"')
    return all(len(f) > 1 and f.endswith(b'"') for f in fields)


def _has_header(rows: list[list[str]]) -> bool:
    """Return whether the first row holds names rather than values.

    It does not when one of its values is a number, a date or a missing mark where the rows below
    have numbers or dates too (0, 1, 2, ... in order are names), or, among text only, when half of
    its values come again below them.
    """
    if not rows:
        return False
    first, rest = rows[0], rows[1:]
    if not rest:
        return not any(looks_like_number(v) or looks_like_date(v) for v in first)
    below = [[r[i] for r in rest if i < len(r) and r[i] not in MISSING] for i in range(len(first))]
    numeric = [v for v in first if looks_like_number(v)]
    if numeric and [float(v) for v in numeric] in (
        [float(i) for i in range(len(numeric))], [float(i + 1) for i in range(len(numeric))],
    ) and len(numeric) > 2:  # fmt: skip
        return len(set(first)) == len(first)
    for value, column in zip(first, below, strict=True):
        for same in (looks_like_number, looks_like_date):
            if same(value) and column and sum(map(same, column)) * 2 >= len(column):
                return False
    if any(looks_like_number(v) for column in below for v in column[:8]):
        return True
    again = sum(value in column for value, column in zip(first, below, strict=True) if value)
    return again * 2 < len(first) or len(rest) < 3


def _read_json(data: bytes, path: Path) -> tuple[dict[str, Column], list[str]]:
    """Return the columns of JSON lines, or of one JSON array of objects."""
    text = data.decode().strip()
    if text.startswith("["):
        try:
            records = json.loads(text)
        except ValueError as error:
            raise DataError(f"{path} is not JSON: {error}", "an array", "check it") from error
        numbered = list(enumerate(records, 1))
    else:
        numbered = list(_json_lines(text, path))
    cells: dict[str, list[Any]] = {}
    for i, (number, record) in enumerate(numbered):
        if not isinstance(record, dict):
            raise DataError(
                f"{path.name}: row {number} is {type(record).__name__}, not an object",
                'one object a line, like {"age": 31, "label": "yes"}',
                "check the file",
            )
        for name, value in _flat(record):
            column = cells.setdefault(name, [None] * i)
            column.extend([None] * (i - len(column)))
            column.append(value)
    columns: dict[str, Column] = {}
    notes: list[str] = []
    for name, column in cells.items():
        column.extend([None] * (len(numbered) - len(column)))
        columns[name], said = tidy_objects(column)
        notes += [f"column '{name}': {sentence}" for sentence in said]
    return columns, notes


def _json_lines(text: str, path: Path) -> Any:
    number = 0
    for line in text.split("\n"):
        if line.strip():
            number += 1
            try:
                yield number, json.loads(line)
            except ValueError as error:
                raise DataError(
                    f"{path.name}: row {number} is not JSON ({error})",
                    "one JSON object a line",
                    "correct the line",
                ) from error


def _flat(record: dict[str, Any], prefix: str = "") -> Any:
    """Yield (name, value) with nested objects as "outer.inner"."""
    for key, value in record.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
