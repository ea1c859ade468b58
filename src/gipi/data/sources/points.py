"""Keypoints in a table: image, x0, y0, x1, y1, ... and, where wished, v0, v1, ...

An empty cell is a missing point. v is 0 (missing), 1 (hidden) or 2 (visible). The columns may also
be called by their points: nose_x, nose_y, nose_v, left_eye_x, ...
"""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np

from gipi.data.source import Annotations, Column, ImageFiles, Source
from gipi.data.sources.coco import mirrored

_AXIS = re.compile(r"^(?:([xyv])[_ ]?(\d+)|(.+)[_ .]([xyv]))$", re.IGNORECASE)


def point_columns(source: Source) -> dict[str, dict[str, str]]:
    """Return point -> {"x": column, "y": column[, "v": column]}; {} where it is no keypoint table.

    Every column beside one of pictures, a few labels and a split must be a coordinate.
    """
    points: dict[str, dict[str, str]] = {}
    others = 0
    for name, column in source.columns.items():
        found = _AXIS.match(name)
        if found is None or not isinstance(column, np.ndarray) or column.dtype.kind not in "iufO":
            others += not isinstance(column, ImageFiles)
            continue
        axis = (found[1] or found[4]).lower()
        points.setdefault(found[2] or found[3], {})[axis] = name
    whole = all({"x", "y"} <= set(axes) for axes in points.values())
    return points if whole and points and others <= 2 else {}


def as_keypoints(source: Source) -> Source:
    """Return a table of pictures and coordinates as pictures with keypoints; others as they are."""
    files = next((c for c in source.columns.values() if isinstance(c, ImageFiles)), None)
    points = point_columns(source) if files is not None else {}
    if files is None or not points:
        return source
    if all(p.isdecimal() for p in points):
        points = dict(sorted(points.items(), key=lambda item: int(item[0])))
        names = tuple(f"point {p}" for p in points)
    else:
        names = tuple(points)
    found = np.zeros((source.rows, len(points), 3))
    for at, axes in enumerate(points.values()):
        found[:, at, 0] = _numbers(source.columns[axes["x"]])
        found[:, at, 1] = _numbers(source.columns[axes["y"]])
        given = _numbers(source.columns[axes["v"]]) if "v" in axes else np.full(source.rows, 2.0)
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


def _numbers(column: Column) -> np.ndarray:
    values = np.asarray(column)
    if values.dtype.kind != "O":
        return values.astype(np.float64)
    out = np.full(len(values), np.nan)
    for i, value in enumerate(values.tolist()):
        try:
            out[i] = float(value)
        except (TypeError, ValueError):
            continue
    return out
