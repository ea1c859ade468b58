"""Arrays in memory and in .npy/.npz files: (X, y), a dict of columns, NumPy or torch."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile

import numpy as np

from gipi.core.errors import DataError
from gipi.data.source import TEST, TRAIN, VAL, Column, Source, hash_columns
from gipi.data.sources.values import tidy_objects

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

CHANNELS = (1, 3, 4)
PARTS = {"train": TRAIN, "val": VAL, "valid": VAL, "test": TEST}


def read_arrays(
    data: Mapping[str, Any], *, name: str = "arrays", target: str | None = None
) -> Source:
    """Return named arrays of equal length as columns.

    A (N, H, W), (N, H, W, C) or (N, C, H, W) array is a column of pictures, (N, F) one column of F
    numbers, (N,) or (N, 1) one value a row. Lists and torch tensors are taken like arrays. Names
    that end in _train, _val or _test are put one below the other and give the split.
    """
    if not data:
        raise DataError("a dict without columns", "at least one column", "pass {'x': X, 'y': y}")
    parts = _parted(data)
    if parts is not None:
        return _stack(parts, name)
    columns: dict[str, Column] = {}
    hints: dict[str, str] = {}
    notes: list[str] = []
    for key, value in data.items():
        column, said, is_image = column_of(value, str(key))
        columns[str(key)] = column
        notes += [f"column '{key}': {sentence}" for sentence in said]
        if is_image:
            hints[str(key)] = "image"
    lengths = {key: len(column) for key, column in columns.items()}
    if len(set(lengths.values())) > 1:
        shown = ", ".join(f"'{k}' has {n:,}" for k, n in lengths.items())
        raise DataError(
            f"columns of different lengths: {shown} rows",
            "the same number of rows in every column",
            "check how the arrays were made",
        )
    rows = next(iter(lengths.values()))
    if not rows:
        raise DataError("arrays without rows", "at least one row", "check how they were made")
    return Source(
        name=name,
        columns=columns,
        rows=rows,
        target=target,
        schema_hints=hints,
        fingerprint=hash_columns(columns),
        notes=tuple(notes),
    )


def read_pair(x: Any, y: Any, *, name: str = "arrays") -> Source:
    """Return (X, y): one input column called "image" or "x", and the target "y"."""
    column, _, is_image = column_of(x, "x")
    return read_arrays({"image" if is_image else "x": column, "y": y}, name=name, target="y")


def read_numpy_file(path: Path) -> Source:
    """Return the arrays of a .npz or .npy file."""
    try:
        with path.open("rb") as f:
            found = np.load(f, allow_pickle=False)
            if isinstance(found, np.ndarray):
                data: dict[str, Any] = {"x": found}
            else:
                data = {key: found[key] for key in found.files}
    except (OSError, ValueError, EOFError, KeyError, BadZipFile, zlib.error) as error:
        raise DataError(
            f"{path} cannot be read: {error}",
            "a .npy or .npz file of numbers or strings (pickled objects are refused)",
            "save it again with numpy.savez",
        ) from error
    if len(data) == 1 and (only := next(iter(data.values()))).dtype.names:
        data = {n: only[n] for n in only.dtype.names}
    return read_arrays(data, name=path.stem)


def column_of(value: Any, name: str) -> tuple[np.ndarray, list[str], bool]:
    """Return one array, tensor or list as (column, notes, whether it holds pictures)."""
    if hasattr(value, "detach"):  # a torch tensor; torch itself is not needed here
        value = value.detach().cpu()
        value = (value.float() if "bfloat16" in str(value.dtype) else value).numpy()
        from_torch = True
    else:
        from_torch = False
    if isinstance(value, list | tuple) or (isinstance(value, np.ndarray) and value.dtype == object):
        column, notes = tidy_objects(list(value))
        return column, notes, False
    array = np.asarray(value)
    if array.ndim == 0:
        raise DataError(f"'{name}' is a single value", "one value a row", "pass an array")
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    kind = array.dtype.kind
    if kind in "USO":
        column, notes = tidy_objects(array.astype(object).reshape(len(array), -1)[:, 0].tolist())
        return column, notes, False
    if kind in "mM":
        return array.astype("datetime64[us]"), [], False
    if kind not in "fiub":
        raise DataError(
            f"'{name}' has dtype {array.dtype}", "numbers, strings or dates", "convert it first"
        )
    if array.ndim >= 3:
        return pictures_of(array, name, channels_first=from_torch), [], True
    if array.ndim == 2:
        return array.astype(np.float64 if array.dtype.itemsize == 8 else np.float32), [], False
    if kind == "b":
        return array, [], False
    if kind == "f":
        return array.astype(np.float64), [], False
    if array.dtype == np.uint64 and len(array) and array.max() > np.iinfo(np.int64).max:
        return array.astype(np.float64), ["numbers beyond 2**63 rounded to float64"], False
    return array.astype(np.int64), [], False


def pictures_of(array: np.ndarray, name: str, *, channels_first: bool = False) -> np.ndarray:
    """Return (N, H, W, C) uint8 or float32 from (N, H, W), (N, H, W, C) or (N, C, H, W).

    Where both positions of the channels are possible, the last is taken, or the first where
    `channels_first` is given (torch tensors).
    """
    if array.ndim == 3:
        array = array[..., None]
    elif array.ndim == 4:
        first, last = array.shape[1] in CHANNELS, array.shape[3] in CHANNELS
        if first and (channels_first or not last):
            array = array.transpose(0, 2, 3, 1)
        elif not first and not last:
            raise DataError(
                f"'{name}' has shape {array.shape}",
                "pictures with 1, 3 or 4 channels, (N, H, W, C) or (N, C, H, W)",
                "move the channels to the last place",
            )
    else:
        raise DataError(
            f"'{name}' has {array.ndim} dimensions", "at most 4, (N, H, W, C)", "reshape it"
        )
    if len(array) and 0 in array.shape[1:3]:
        raise DataError(
            f"'{name}' has pictures of {array.shape[1]}x{array.shape[2]} pixels",
            "pictures with pixels", "check how the array was made",
        )  # fmt: skip
    if array.dtype.kind in "bf":
        return np.ascontiguousarray(array, dtype=np.float32)
    if array.dtype == np.uint8:
        return np.ascontiguousarray(array)
    low, high = (int(array.min()), int(array.max())) if array.size else (0, 0)
    if low >= 0 and high <= 255:
        return np.ascontiguousarray(array, dtype=np.uint8)
    return np.ascontiguousarray(array, dtype=np.float32)


def _parted(data: Mapping[str, Any]) -> dict[str, dict[str, Any]] | None:
    """Return part -> column -> values where every name says its part (x_train, y_test, ...)."""
    out: dict[str, dict[str, Any]] = {}
    for key, value in data.items():
        base, _, part = str(key).rpartition("_")
        if not base or part not in PARTS:
            base, _, part = (w for w in reversed(str(key).partition("_")))  # train_images
            part, base = (part, base) if part in PARTS else ("", "")
        if not part:
            return None
        out.setdefault(part, {})[base] = value
    if "train" not in out or any(set(c) != set(out["train"]) for c in out.values()):
        return None
    return out


def _stack(parts: dict[str, dict[str, Any]], name: str) -> Source:
    sources = {part: read_arrays(columns, name=name) for part, columns in parts.items()}
    first = sources["train"]
    columns: dict[str, Column] = {}
    for key in first.columns:
        pieces = [s.columns[key] for s in sources.values()]
        try:
            columns[key] = np.concatenate([np.asarray(p) for p in pieces])
        except ValueError as error:
            raise DataError(
                f"'{key}' has another shape in each part ({error})", "one shape", "check the arrays"
            ) from error
    split = np.concatenate([np.full(s.rows, PARTS[p], np.int8) for p, s in sources.items()])
    return Source(
        name=name,
        columns=columns,
        rows=len(split),
        parts=tuple((part, s.rows) for part, s in sources.items()),
        given_split=split if len(sources) > 1 else None,
        schema_hints=first.schema_hints,
        fingerprint=hash_columns(columns),
        notes=first.notes,
    )
