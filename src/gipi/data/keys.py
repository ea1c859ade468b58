"""Codes of rows: equal exactly where the inputs of two rows are equal.

Rows of numbers are hashed with a multilinear hash, Σ_j a_j x_j mod 2⁶⁴ over 32-bit words with odd
random a_j (Carter and Wegman 1979), twice, so that different rows practically never get one code: a
pair does with a probability of about 2⁻⁶⁴. Files are
compared by content, and only where their sizes are equal. Texts are compared as a reader does:
case, width of letters (NFKC) and spaces aside.
"""

from __future__ import annotations

import hashlib
import unicodedata
from typing import TYPE_CHECKING

import numpy as np

from gipi.core.errors import DataError
from gipi.data.source import Annotations, Column, ImageFiles

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from gipi.core.schema import Schema
    from gipi.data.source import Source

_BLOCK = 4 << 20  # words hashed at a time
_SEEDS = (0x51ED2701, 0xA24BAED4)


def row_keys(columns: Iterable[Column], rows: int) -> np.ndarray:
    """Return (rows,) int64 codes over these columns, equal where all values are equal."""
    high, low = np.zeros(rows, dtype=np.uint64), np.zeros(rows, dtype=np.uint64)
    for at, column in enumerate(columns):
        words = _words(column)
        high += _stir(_multilinear(words, _SEEDS[0] + 7919 * at))
        low += _stir(_multilinear(words, _SEEDS[1] + 7919 * at))
    pairs = np.empty(rows, dtype=[("high", np.uint64), ("low", np.uint64)])
    pairs["high"], pairs["low"] = high, low
    return np.unique(pairs, return_inverse=True)[1].reshape(-1).astype(np.int64)


def input_keys(source: Source, schema: Schema) -> np.ndarray:
    """Return (rows,) int64 codes, equal where two rows have the same inputs."""
    columns = []
    for field in schema.inputs:
        column = source.columns[field.name]
        text = field.kind == "text" and isinstance(column, np.ndarray)
        columns.append(folded(column) if text else column)  # type: ignore[arg-type]
    return row_keys(columns, source.rows)


def folded(column: np.ndarray) -> np.ndarray:
    """Return texts without what a copy may differ in: case, width of letters, spaces."""
    out = np.empty(len(column), dtype=object)
    seen: dict[object, str] = {}
    for i, value in enumerate(column.tolist()):
        if value not in seen:
            plain = unicodedata.normalize("NFKC", "" if value is None else str(value))
            seen[value] = " ".join(plain.casefold().split())
        out[i] = seen[value]
    return out


def codes(column: Column) -> np.ndarray:
    """Return (N,) int64 codes of one column, equal where its values are equal."""
    return row_keys([column], len(column))


def _words(column: Column) -> np.ndarray:
    """Return (N, W) uint32 words that are equal exactly where the values are."""
    if isinstance(column, Annotations):
        raise TypeError("annotations are no inputs")
    if isinstance(column, ImageFiles):
        found = _file_codes(column)
        if column.crops is None:
            return found
        parts = np.ascontiguousarray(column.crops, dtype=np.float64).view(np.uint32)
        return np.concatenate([found, parts.reshape(len(column), -1)], axis=1)
    if column.dtype.kind in "OUS":
        seen: dict[object, int] = {}
        numbered = np.fromiter(
            (seen.setdefault(v, len(seen)) for v in column.tolist()), np.int64, len(column)
        )
        return numbered.view(np.uint32).reshape(len(column), -1)
    values = np.ascontiguousarray(column).reshape(len(column), -1)
    if values.dtype.kind == "f":
        values = values + values.dtype.type(0)  # -0.0 becomes 0.0
        values[np.isnan(values)] = np.nan  # every NaN gets the same bits
    if values.dtype.itemsize >= 4:
        return values.view(np.uint32)
    raw = values.view(np.uint8)
    spare = -raw.shape[1] % 4
    raw = np.pad(raw, ((0, 0), (0, spare))) if spare else raw
    return np.ascontiguousarray(raw).view(np.uint32)


def _multilinear(words: np.ndarray, seed: int) -> np.ndarray:
    n, width = words.shape
    source = np.random.RandomState(seed % 2**32)
    factors = np.asarray(source.randint(0, 2**62, size=width, dtype=np.int64))
    odd = factors.astype(np.uint64) * np.uint64(2) + np.uint64(1)
    out = np.empty(n, dtype=np.uint64)
    step = max(1, _BLOCK // max(1, width))
    for a in range(0, n, step):
        out[a : a + step] = (words[a : a + step].astype(np.uint64) + np.uint64(1)) @ odd
    return out


def _stir(x: np.ndarray) -> np.ndarray:
    """SplitMix64 finaliser, so that the sum over columns does not cancel."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(x ^ (x >> np.uint64(31)))


def _file_codes(files: ImageFiles) -> np.ndarray:
    sizes = np.empty(len(files), dtype=np.int64)
    for i, path in enumerate(files.paths):
        try:
            sizes[i] = path.stat().st_size
        except OSError as error:
            raise DataError(
                f"the file {files.name(i)} cannot be read ({error.strerror})",
                "files that stay in place", "restore it, or name the folder again",
            ) from error  # fmt: skip
    _, inverse, counts = np.unique(sizes, return_inverse=True, return_counts=True)
    shared = counts[inverse.reshape(-1)] > 1
    seen: dict[object, int] = {}
    read: dict[Path, bytes] = {}  # a picture with many people is read once
    out = np.empty(len(files), dtype=np.int64)
    for i, path in enumerate(files.paths):
        key: object = i
        if shared[i]:
            if path not in read:
                read[path] = hashlib.blake2b(path.read_bytes(), digest_size=16).digest()
            key = read[path]
        out[i] = seen.setdefault(key, len(seen))
    return out.view(np.uint32).reshape(len(files), -1)
