"""Data frames: pandas, polars and pyarrow tables, recognised without importing any of them."""

from __future__ import annotations

from typing import Any

import numpy as np

from gipi.core.errors import DataError
from gipi.data.source import Column, Source, hash_columns
from gipi.data.sources.arrow import from_arrow, unique_names
from gipi.data.sources.values import tidy_objects


def is_frame(data: Any) -> bool:
    """Return whether `data` is a pandas or polars DataFrame or a pyarrow Table."""
    return _library(data) is not None


def _library(data: Any) -> str | None:
    home = type(data).__module__.partition(".")[0]
    known = {"pandas": "DataFrame", "polars": "DataFrame", "pyarrow": "Table"}
    return home if known.get(home) == type(data).__name__ else None


def read_frame(frame: Any, *, name: str = "frame") -> Source:
    """Return the columns of a frame; strings are stripped, everything else keeps its value."""
    library = _library(frame)
    names, notes = unique_names([str(c) for c in _names(frame, library)])
    columns: dict[str, Column] = {}
    hints: dict[str, str] = {}
    for i, column in enumerate(names):
        columns[column], said = _column(frame, i, library)
        notes += [f"column '{column}': {sentence}" for sentence in said]
        if _is_category(frame, i, library):
            hints[column] = "category"
    rows = len(frame)
    if not rows or not columns:
        raise DataError(
            f"a frame of {rows} rows and {len(columns)} columns",
            "at least one row and one column",
            "check how the frame was made",
        )
    return Source(
        name=name,
        columns=columns,
        rows=rows,
        schema_hints=hints,
        fingerprint=hash_columns(columns),
        notes=tuple(notes),
    )


def _is_category(frame: Any, i: int, library: str | None) -> bool:
    """Return whether the frame itself says that a column holds labels."""
    if library == "pyarrow":
        return str(frame.schema.types[i]).startswith("dictionary")
    kind = frame.dtypes[i] if library == "polars" else frame.dtypes.iloc[i]
    return str(kind).partition("(")[0] in ("category", "Categorical", "Enum")


def _names(frame: Any, library: str | None) -> list[Any]:
    return list(frame.column_names if library == "pyarrow" else frame.columns)


def _column(frame: Any, i: int, library: str | None) -> tuple[np.ndarray, list[str]]:
    if library == "pyarrow":
        return from_arrow(frame.column(i))
    if library == "polars":
        return _plain(frame.to_series(i), lambda s: s.to_list())
    return _plain(frame.iloc[:, i], lambda s: s.astype(object).tolist())


def _plain(series: Any, as_list: Any) -> tuple[np.ndarray, list[str]]:
    """Take a column of a NumPy number type as it is, anything else value by value."""
    dtype = str(series.dtype).lower()
    if dtype.startswith(("int", "uint", "float")):
        array = series.to_numpy()
        if array.dtype.kind == "f":
            return array.astype(np.float64), []
        if array.dtype.kind in "iu" and array.dtype != np.uint64:
            return array.astype(np.int64), []
    if dtype.startswith("datetime64[") and "," not in dtype:
        return series.to_numpy().astype("datetime64[us]"), []
    return tidy_objects(as_list(series))
