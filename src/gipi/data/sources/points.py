"""Keypoints in a table: image, x0, y0, x1, y1, ... and, where wished, v0, v1, ...

An empty cell is a missing point. v is 0 (missing), 1 (hidden) or 2 (visible). The columns may also
be called by their points: nose_x, nose_y, nose_v, left_eye_x, ...
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from gipi.core.errors import DataError
from gipi.data.source import Annotations, Column, ImageFiles, Source
from gipi.data.sources.coco import mirrored
from gipi.data.sources.compressed import kind_of, read_head

if TYPE_CHECKING:
    from pathlib import Path

OTHERS = 2  # columns beside the picture and the coordinates, at most: a label, a split
TABLES = (".csv", ".tsv")
HEAD = 1 << 16  # bytes in which a header ends
_AXIS = re.compile(r"^(?:([xyv])[_ ]?(\d+)|(.+)[_ .]([xyv]))$", re.IGNORECASE)


def point_columns(source: Source) -> dict[str, dict[str, str]]:
    """Return point -> {"x": column, "y": column[, "v": column]}; {} where it is no keypoint table.

    Every column beside one of pictures, a few labels and a split must be a coordinate.
    """
    points, others = _axes(source)
    whole = all({"x", "y"} <= set(axes) for axes in points.values())
    return points if whole and points and others <= OTHERS else {}


def table_in(place: Path) -> Path | None:
    """Return the one table of a folder whose header is that of keypoints; None where none is."""
    tables = [p for p in sorted(place.iterdir()) if p.is_file() and kind_of(p) in TABLES]
    found = [p for p in tables if _is_header(read_head(p, HEAD))]
    return found[0] if len(found) == 1 else None


def _is_header(head: bytes) -> bool:
    line = head.decode("utf-8-sig", "ignore").partition("\n")[0].strip()
    names = [name.strip(' "') for name in re.split("[,;\t]", line)]
    found = [m for name in names if (m := _AXIS.match(name))]
    axes = [((m[1] or m[4]).lower(), m[2] or m[3]) for m in found]
    whole = all((axis, point) in axes for _, point in axes for axis in "xy")
    return bool(axes) and whole and 1 <= len(names) - len(found) <= OTHERS + 1


def _axes(source: Source) -> tuple[dict[str, dict[str, str]], int]:
    """Return point -> axis -> column, whole or not, and the number of other columns."""
    points: dict[str, dict[str, str]] = {}
    others = 0
    for name, column in source.columns.items():
        found = _AXIS.match(name)
        if found is None or not isinstance(column, np.ndarray) or column.dtype.kind not in "iufbO":
            others += not isinstance(column, ImageFiles)
            continue
        axis = (found[1] or found[4]).lower()
        points.setdefault(found[2] or found[3], {})[axis] = name
    return points, others


def as_keypoints(source: Source, *, task: str | None = None) -> Source:
    """Return a table of pictures and coordinates as pictures with keypoints; others as they are.

    Raises `DataError` naming the row of a coordinate that is no number, and, where `task` is
    "pose", the point that lacks x or y.
    """
    files = next((c for c in source.columns.values() if isinstance(c, ImageFiles)), None)
    if files is None:
        return source
    points = point_columns(source)
    if not points:
        lacking = _lacking(source)
        if lacking and task == "pose":
            raise DataError(
                f"{_file(source)}: {lacking}", "x and y of every point", "correct the header"
            )
        note = f"taken as a plain table, not as keypoints: {lacking}"
        return replace(source, notes=(*source.notes, note)) if lacking else source
    if all(p.isdecimal() for p in points):
        points = dict(sorted(points.items(), key=lambda item: int(item[0])))
        names = tuple(f"point {p}" for p in points)
    else:
        names = tuple(points)
    found = np.zeros((source.rows, len(points), 3))
    for at, axes in enumerate(points.values()):
        found[:, at, 0] = _numbers(source, axes["x"])
        found[:, at, 1] = _numbers(source, axes["y"])
        given = _numbers(source, axes["v"]) if "v" in axes else np.full(source.rows, 2.0)
        missing = np.isnan(found[:, at, :2]).any(1) | ~(given > 0)
        found[:, at, 2] = np.where(missing, 0.0, given)
    used = {name for axes in points.values() for name in axes.values()}
    columns: dict[str, Column] = {k: v for k, v in source.columns.items() if k not in used}
    where = tuple(source.row_name(i) for i in range(source.rows))
    columns["keypoints"] = Annotations(
        "keypoints", tuple(found), names, None, where, {"flip": mirrored(names)}
    )
    return replace(
        source, columns=columns, target="keypoints", task="pose",
        task_reason=f"the table has x and y of {len(points)} points on each picture",
    )  # fmt: skip


def _lacking(source: Source) -> str:
    """Return which point lacks its x or y where at least one other point has both, else empty."""
    points, others = _axes(source)
    half = [axes for axes in points.values() if not {"x", "y"} <= set(axes)]
    if not half or len(half) == len(points) or others > 2 + len(half):
        return ""
    name = next(iter(half[0].values()))
    return f"the column '{name}' has no partner '{'x' if 'x' not in half[0] else 'y'}'"


def _file(source: Source) -> str:
    return source.name if source.origin is None else source.origin.name


def _numbers(source: Source, name: str) -> np.ndarray:
    """Return a column as float64, NaN where it is empty; true is visible."""
    values = np.asarray(source.columns[name])
    if values.dtype.kind == "b":
        return values * 2.0
    if values.dtype.kind != "O":
        return values.astype(np.float64)
    out = np.full(len(values), np.nan)
    for i, value in enumerate(values.tolist()):
        try:
            out[i] = np.nan if value is None else float(value)
        except (TypeError, ValueError) as error:
            where = source.row_name(i)
            raise DataError(
                f"{where if len(source.parts) > 1 else f'{_file(source)} {where}'}: "
                f"{value!r} in the column '{name}' is no number",
                "a coordinate in pixels, or an empty cell for a missing point",
                "correct the cell",
            ) from error
    return out
