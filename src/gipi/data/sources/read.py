"""`read_source` decides by what it is given which reader of this folder takes it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from gipi.core.errors import DataError, UnknownName, did_you_mean
from gipi.core.schema import WRITTEN
from gipi.data import multilabel
from gipi.data.source import Source, column_called
from gipi.data.sources import (
    arrays,
    cifar,
    coco,
    coco_json,
    folder,
    foreign,
    frames,
    idx,
    language,
    pictured,
    table,
    textfiles,
)
from gipi.data.sources.arrow import dates_in
from gipi.data.sources.compressed import kind_of
from gipi.data.sources.named import SOURCES

__all__ = ["ARCHIVES", "SOURCES", "column_called", "read_source"]


ARCHIVES = (".zip", ".tar", ".tgz", ".7z", ".rar")


def read_source(
    data: Any, *, target: str | None = None, task: str | None = None, name: str | None = None
) -> Source:
    """Return the raw columns of `data`.

    data    the name of a set (`gipi list data`), a path (picture, folder of pictures, table, .npz),
            a list of such picture paths, a pandas or polars frame, (X, y), a dict of arrays, one
            array, a list of dicts, a torch Dataset whose items do not change, or a `Source`
    target  the column to predict, where the caller says it; it must exist. Several columns of 0
            and 1, with commas between, are labels of the same row
    task    decides what is read where a folder holds more than one kind of annotation
    name    for people; None: from the file or the set

    Raises `DataError` or `UnknownName`, both with what to do.
    """
    source = _with_dates(_read(data, task))
    if (task or source.task) == "forecast":  # several targets are several series
        return source if name is None else replace(source, name=name)
    if target is not None and target not in source.columns and "," in target:
        names = [column_called(source, part.strip()) for part in target.split(",")]
        lost = [n for n in names if n not in source.columns]
        if lost:
            raise DataError(
                f"no column is called '{lost[0]}' in {source.name}",
                "the names of columns", did_you_mean(lost[0], source.columns),
            )  # fmt: skip
        source = multilabel.join(source, names)
        target = multilabel.JOINED
    if target is not None:
        target = column_called(source, target)
        if target not in source.columns:
            raise DataError(
                f"no column is called '{target}' in {source.name}",
                "the name of a column",
                did_you_mean(target, source.columns),
            )
        if target != source.target:
            task = source.task if source.task in WRITTEN else None  # from either to the other
            source = replace(source, target=target, task=task)
    return source if name is None else replace(source, name=name)


def _with_dates(source: Source) -> Source:
    """Read text columns that hold dates as dates, whatever kind of data they came in."""
    columns, notes = dict(source.columns), list(source.notes)
    for name, column in source.columns.items():
        if isinstance(column, np.ndarray) and column.ndim == 1 and name not in source.classes:
            found, said = dates_in(column)
            if found is not column:
                columns[name] = found
                notes += [f"column '{name}': {sentence}" for sentence in said]
    if all(columns[n] is source.columns[n] for n in columns):
        return source
    return replace(source, columns=columns, notes=tuple(notes))


def _read(data: Any, task: str | None = None) -> Source:
    if isinstance(data, Source):
        return data
    if isinstance(data, str | os.PathLike):
        return _read_text(os.fspath(data), task)
    if frames.is_frame(data):
        return frames.read_frame(data)
    if isinstance(data, Mapping):
        return arrays.read_arrays(data)
    if foreign.is_torch_data(data):
        return foreign.read_dataset(data)
    if isinstance(data, tuple) and len(data) == 2:
        return arrays.read_pair(*data)
    if isinstance(data, Sequence) and data:
        return _read_list(list(data))
    if isinstance(data, np.ndarray) or hasattr(data, "detach"):
        _, _, is_image = arrays.column_of(data, "x")
        return arrays.read_arrays({"image" if is_image else "x": data})
    raise DataError(
        f"data of type {type(data).__name__}" + (" without rows" if isinstance(data, list) else ""),
        "a name, a path, a frame, arrays, or a torch Dataset",
        "see the documentation of gipi.data.open_data",
    )


def _read_text(text: str, task: str | None) -> Source:
    if text in SOURCES:
        found: Source = SOURCES.get(text).build()
        return found
    path = Path(text).expanduser()
    try:
        there = path.exists()
    except (OSError, ValueError) as error:  # too long for a name, or with a sign that none has
        raise DataError(
            f"{text[:60]!r}... of {len(text):,} characters is no path", "a file or a folder",
            "check the path",
        ) from error  # fmt: skip
    if there:
        return _read_folder(path, task) if path.is_dir() else _read_file(path, task)
    if os.sep not in text and "." not in text:
        raise UnknownName(
            f"'{text}' is neither a file or folder here nor the name of a data set",
            "a path, or a name that `gipi list data` prints",
            did_you_mean(text, SOURCES.names()),
        )
    near = did_you_mean(path.name, _names_in(path.parent)) if path.parent.is_dir() else ""
    raise DataError(
        f"{text} does not exist",
        "a file or a folder",
        near if near.startswith("did you") else "check the path",
    )


def _names_in(place: Path) -> list[str]:
    try:
        return sorted(p.name for p in place.iterdir())[:1000]
    except OSError:
        return []


def _read_folder(path: Path, task: str | None) -> Source:
    if idx.is_idx_folder(path):
        return idx.read_idx_folder(path, path.absolute().name, ())
    if cifar.is_cifar_folder(path):
        return cifar.read_cifar_folder(path)
    drawn = pictured.read_drawn(path, task)
    if drawn is not None:
        return drawn
    text = language.read_form(path, task)
    if text is not None:
        return text
    try:
        return folder.read_folder(path)
    except DataError as error:
        texts = textfiles.read_text_folder(path)
        if texts is not None:
            return texts
        kinds = set(table.KINDS) - {".txt"}  # a text among files is a note more often than a table
        tables = [p.name for p in path.iterdir() if p.is_file() and kind_of(p) in kinds]
        if not tables:
            raise
        raise DataError(
            error.found, error.needed, f"name one of its tables: {', '.join(sorted(tables)[:6])}"
        ) from error


def _read_file(path: Path, task: str | None) -> Source:
    if folder.is_image(path):
        return folder.read_images([path], path.stem)
    if kind_of(path) in {".npy", ".npz"}:
        return arrays.read_numpy_file(path)
    if path.suffix.lower() == ".json" and coco_json.is_coco(path):
        return coco.read_coco(path.parent, (path,), task=task)
    text = language.read_form(path, task)
    if text is not None:
        return text
    if kind_of(path) in table.KINDS:
        try:
            return pictured.read_picture_table(path, task=task)
        except DataError as error:
            if kind_of(path) != ".txt" or task is not None:
                raise
            raise DataError(
                error.found, error.needed, f"{error.do}; is it a text to learn from, no table: "
                "add --task generate",
            ) from error  # fmt: skip
    if kind_of(path) in ARCHIVES:
        raise DataError(
            f"{path} is an archive",
            "a file or a folder",
            "unpack it and name the folder in it",
        )
    raise DataError(
        f"{path} has the unknown suffix '{kind_of(path)}'",
        f"a picture, .npz, .npy, or one of {', '.join(table.KINDS)} (.gz, .xz, .bz2 too)",
        "rename or convert the file",
    )


def _read_list(items: list[Any]) -> Source:
    if all(isinstance(i, str | os.PathLike) for i in items):
        paths = [Path(os.fspath(i)).expanduser() for i in items]
        if all(folder.is_image(p) for p in paths):
            return folder.read_images(paths)
        raise DataError(
            "a list of strings that are not all picture files",
            "a list of pictures, or one path",
            "pass tables one by one",
        )
    if all(isinstance(i, Mapping) for i in items):
        keys = dict.fromkeys(k for item in items for k in item)
        return arrays.read_arrays({str(k): [item.get(k) for item in items] for k in keys})
    return arrays.read_arrays({"x": np.asarray(items)})
