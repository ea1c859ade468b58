"""What every reader returns: raw, typed columns of equal length, and where they came from.

`gipi.data.sources.read_source` turns a name, a path, a frame or arrays into a `Source`;
`gipi.data.infer.infer_schema` decides what its columns are; preparation turns them into tensors.
Nothing here is scaled, imputed or encoded: a source holds what the file holds.

Column forms
    numbers      float64 (NaN = missing) or int64
    yes / no     bool
    dates        datetime64[us] (NaT = missing)
    text, labels object array of str, None = missing (white space at both ends removed)
    vectors      float32 or float64 (N, F): one column of F numbers a row
    labels       bool (N, K): any number of K labels a row
    images       uint8 or float32 (N, H, W, C), or `ImageFiles`
    drawn        masks, boxes or keypoints of the pictures in the same rows: `Annotations`
    sequences    object array of tuples, one a row, None = missing: tokens and their tags (str, as
                 many of each in a row), answers to a question (str; () = it has none) and where
                 they start in the context (int)
    documents    object array of str, exactly as in the file: white space is part of the text
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

__all__ = [
    "TEST",
    "TRAIN",
    "VAL",
    "Annotations",
    "Column",
    "ImageFiles",
    "Source",
    "as_labels",
    "class_order",
    "column_called",
    "hash_columns",
    "is_missing",
]  # fmt: skip

TRAIN, VAL, TEST = 0, 1, 2


@dataclass(frozen=True)
class ImageFiles:
    """A column of pictures that are still files: absolute paths, and the folder that names them.

    crops   (N, 4) float64 x0, y0, x1, y1 of the part of each picture that is the row (whole pixels,
            may reach beyond the picture), or None: whole pictures
    """

    paths: tuple[Path, ...]
    root: Path | None = None
    crops: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.paths)

    def take(self, rows: Sequence[int] | np.ndarray) -> ImageFiles:
        """Return the files of these rows."""
        crops = None if self.crops is None else self.crops[np.asarray(rows, dtype=np.int64)]
        return ImageFiles(tuple(self.paths[int(i)] for i in rows), self.root, crops)

    def digest(self) -> str:
        """Return the SHA-256 of what the rows are: which files in which order, which parts."""
        total = hashlib.sha256()
        for row in range(len(self)):
            total.update(self.name(row).encode("utf-8", "surrogateescape") + b"\0")
        if self.crops is not None:
            total.update(np.ascontiguousarray(self.crops, dtype=np.float64).data)
        return total.hexdigest()

    def crop(self, row: int) -> tuple[float, float, float, float] | None:
        """Return the part of one picture that is the row, None for all of it."""
        if self.crops is None:
            return None
        x0, y0, x1, y1 = self.crops[row].tolist()
        return x0, y0, x1, y1

    def name(self, row: int) -> str:
        """Return the path of one file relative to `root`, with forward slashes."""
        path = self.paths[row]
        if self.root is not None and path.is_relative_to(self.root):
            return path.relative_to(self.root).as_posix()
        return path.as_posix()


@dataclass(frozen=True)
class Annotations:
    """A column of what is drawn on the pictures of the same rows, in their original pixels.

    kind     "mask", "boxes" or "keypoints"
    items    one a row, None where the picture has no annotation:
             mask       a file, or a `masks.Drawing` of polygons and runs
             boxes      float64 (n, 6) x0, y0, x1, y1, class, crowd; class -1 is not in `classes`
             keypoints  float64 (K, 3) x, y, visible (0 missing, 1 hidden, 2 visible)
    classes  names of the class codes, of the points for keypoints; () for masks: not yet known
    sizes    (N, 2) int64 height and width that the annotation states for its picture, 0 unknown
    names    where each item was read, for errors
    facts    mask: "values" (label of each class), "ignored" (labels that count nowhere) and
             "colours" ((r, g, b) of each class) where they are known; keypoints: "flip", "sigmas";
             "unreadable": row -> why its annotation could not be read
    """

    kind: str
    items: tuple[Any, ...]
    classes: tuple[str, ...] = ()
    sizes: np.ndarray | None = None
    names: tuple[str, ...] = ()
    facts: dict[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.items)

    def take(self, rows: Sequence[int] | np.ndarray) -> Annotations:
        """Return the annotations of these rows."""
        reasons = self.facts.get("unreadable", {})
        unreadable = {at: reasons[int(i)] for at, i in enumerate(rows) if int(i) in reasons}
        return replace(
            self,
            facts={**self.facts, "unreadable": unreadable} if reasons else self.facts,
            items=tuple(self.items[int(i)] for i in rows),
            sizes=None if self.sizes is None else self.sizes[np.asarray(rows, dtype=np.int64)],
            names=tuple(self.names[int(i)] for i in rows) if self.names else (),
        )

    def describe(self, row: int) -> Any:
        """Return one annotation as JSON-able values; a mask by the name of its file."""
        item = self.items[row]
        if item is None:
            return None
        if self.kind == "mask":
            return self.names[row] if self.names else "drawn"
        if self.kind == "keypoints":
            return item.tolist()
        return [
            {"class": self.classes[int(b[4])] if b[4] >= 0 else None, "box": b[:4]}
            for b in item.tolist()
        ]


Column = np.ndarray | ImageFiles | Annotations


@dataclass(frozen=True)
class Source:
    """Rows as they were found.

    name            for people and for run folders ("digits", "photos", "table")
    columns         column name -> values in one of the forms of this module; equal lengths
    rows            number of rows
    row_names       one name a row for errors and predictions; None: "row 1", "row 2", ... within
                    the files of `parts`
    parts           (file name, rows) in order where several tables were put one below the other
    bound           (N,) int64 codes: rows of one code stay together where a part is cut, or None;
                    rows of a given split stay where they were published
    bound_by        what they have in common, in words
    given_split     (N,) int8 of TRAIN, VAL, TEST where the data came with a split, else None
    target          the column that this data set is known for, where it is known
    task            "classify", "regress", "segment", "detect", "pose", "tag", "answer",
                    "translate", "generate" or "forecast" where it is known
    task_reason     why, in words; empty: because the set is known for it
    horizon         of a series: the steps ahead that it is known for; 0: none
    classes         column -> its labels in the official order, where there is one
    schema_hints    column -> kind, known from the format ("image", "category", ...)
    fingerprint     SHA-256 in hex of what `fingerprint_of` says
    fingerprint_of  "contents", or "paths, sizes and times" for a folder of files
    origin          the folder or file that was read, None for what was in memory
    notes           sentences about what the reader decided (missing marks, dropped rows, ...)
    """

    name: str
    columns: dict[str, Column]
    rows: int
    row_names: Sequence[str] | None = None
    parts: tuple[tuple[str, int], ...] = ()
    given_split: np.ndarray | None = None
    bound: np.ndarray | None = None
    bound_by: str = ""
    target: str | None = None
    task: str | None = None
    task_reason: str = ""
    horizon: int = 0
    classes: dict[str, tuple[str, ...]] = field(default_factory=dict)
    schema_hints: dict[str, str] = field(default_factory=dict)
    fingerprint: str = ""
    fingerprint_of: str = "contents"
    origin: Path | None = None
    citation: str = ""
    licence: str = ""
    notes: tuple[str, ...] = ()

    def row_name(self, row: int) -> str:
        """Return what people call row `row` (counted from 0): a file name or "row 17" from 1."""
        if self.row_names is not None:
            return str(self.row_names[row])
        if len(self.parts) > 1:
            at = row
            for name, rows in self.parts:
                if at < rows:
                    return f"{name} row {at + 1}"
                at -= rows
        return f"row {row + 1}"

    def take(self, rows: np.ndarray) -> Source:
        """Return a source of these rows only, in this order; names of rows are kept."""
        return replace(
            self,
            columns={
                k: v[rows] if isinstance(v, np.ndarray) else v.take(rows)
                for k, v in self.columns.items()
            },
            rows=len(rows),
            row_names=tuple(self.row_name(int(i)) for i in rows),
            given_split=None if self.given_split is None else self.given_split[rows],
            bound=None if self.bound is None else self.bound[rows],
        )


def is_missing(column: Column) -> np.ndarray:
    """Return (N,) bool: True where a value is missing (NaN, NaT, None; any NaN of a vector)."""
    if isinstance(column, ImageFiles):
        return np.zeros(len(column), dtype=bool)
    if isinstance(column, Annotations):
        return np.fromiter((v is None for v in column.items), dtype=bool, count=len(column))
    if column.dtype.kind == "O":
        return np.fromiter((v is None for v in column), dtype=bool, count=len(column))
    if column.dtype.kind in "fcmM":
        lost = np.asarray(np.isnat(column) if column.dtype.kind in "mM" else np.isnan(column))
        return np.asarray(lost.reshape(len(column), -1).any(1)) if lost.ndim > 1 else lost
    return np.zeros(len(column), dtype=bool)


def as_labels(column: np.ndarray) -> np.ndarray:
    """Return (N,) object array of str labels, None where missing.

    3, 3.0 and "3" give the same label "3", so that a class keeps its name whatever file type it is
    read from; True gives "True". The one rule that training and prediction share.
    """
    if column.dtype.kind in "OUS":
        unique: dict[object, str | None] = {}
        out = np.empty(len(column), dtype=object)
        for i, value in enumerate(column.tolist()):
            if value not in unique:
                unique[value] = _label(value)
            out[i] = unique[value]
        return out
    if column.dtype.kind in "mM":
        out = column.astype(str).astype(object)
        out[np.isnat(column)] = None
        return out
    values, inverse = np.unique(column, return_inverse=True)
    names = np.array([_label(v) for v in values.tolist()] or [None], dtype=object)
    return names[inverse.reshape(-1)]


def _label(value: object) -> str | None:
    if value is None:
        return None
    if isinstance(value, float):
        if value != value:  # noqa: PLR0124  NaN
            return None
        return str(int(value)) if value.is_integer() and abs(value) < 2**53 else repr(value)
    text = str(value)
    return text or None


def column_called(source: Source, name: str) -> str:
    """Return `name`, or where no column has it, the column at that place: 15, or -1 for the last.

    >>> column_called(Source("t", {"a": np.ones(1), "b": np.ones(1)}, 1), "2")
    'b'
    """
    names = list(source.columns)
    number = int(name) if re.fullmatch(r"-?\d{1,6}", name) else 0
    if name in names or not number or not -len(names) <= number <= len(names):
        return name
    return names[number - 1 if number > 0 else number]


def class_order(labels: Iterable[str | None]) -> tuple[str, ...]:
    """Return the distinct labels in order: by value where all are numbers, else alphabetical.

    >>> class_order(["10", "9", None, "9"]), class_order(["b", "a", "10"])
    (('9', '10'), ('10', 'a', 'b'))
    """
    distinct = sorted({label for label in labels if label is not None})
    try:
        return tuple(sorted(distinct, key=lambda s: (float(s), s)))
    except ValueError:
        return tuple(distinct)


def hash_columns(columns: dict[str, Column]) -> str:
    """Return the SHA-256 of columns in memory: names, dtypes, shapes and values in order."""
    total = hashlib.sha256()
    for name, column in columns.items():
        if isinstance(column, ImageFiles):
            total.update(repr((name, [str(p) for p in column.paths])).encode())
            continue
        if isinstance(column, Annotations):
            total.update(repr((name, column.kind, column.classes)).encode())
            for item in column.items:
                raw = item.tobytes() if isinstance(item, np.ndarray) else repr(item).encode()
                total.update(raw + b"\0")
            continue
        total.update(repr((name, column.dtype.str, column.shape)).encode())
        if column.dtype.kind == "O":
            for value in column.tolist():
                raw = str(value).encode("utf-8", "surrogatepass")
                total.update(b"\0" if value is None else b"\1" + raw + b"\0")
        else:
            total.update(np.ascontiguousarray(column).view(np.uint8).data)
    return total.hexdigest()
