"""Annotations of pictures that EXIF turns: made for the picture as stored, or as it is shown.

Pictures are decoded as a viewer shows them. Where an annotation states the size of the stored
picture, its boxes or points may be meant either way. A row whose coordinates fit only one of the
two decides for all such rows of the set; where no row tells, or rows contradict, they stay refused.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from gipi.data.decode import UNREADABLE
from gipi.data.placement import move_points

if TYPE_CHECKING:
    from pathlib import Path

    from gipi.data.source import Annotations, ImageFiles


def upright(
    files: ImageFiles, drawn: Annotations, sizes: np.ndarray
) -> tuple[Annotations, list[str]]:
    """Return boxes or keypoints of the pictures as they are shown, and what was decided.

    sizes   (N, 2) height and width of the pictures as they are shown
    """
    if drawn.sizes is None or drawn.kind == "mask" or files.crops is not None:
        return drawn, []
    apart = (drawn.sizes == sizes[:, ::-1]).all(1) & (sizes[:, 0] != sizes[:, 1])
    rows = [row for row in np.flatnonzero(apart).tolist() if drawn.items[row] is not None]
    marks = {row: _mark(files.paths[row]) for row in rows}
    rows = [row for row in rows if marks[row] in (5, 6, 7, 8)]
    told = {"stored": 0, "shown": 0}
    for row in rows:
        as_shown = _fits(drawn, row, sizes[row])
        if as_shown != _fits(drawn, row, sizes[row, ::-1]):
            told["shown" if as_shown else "stored"] += 1
    if not rows or bool(told["stored"]) == bool(told["shown"]):
        return drawn, []
    items, stated = list(drawn.items), drawn.sizes.copy()
    for row in rows:
        stated[row] = sizes[row]
        if told["stored"]:
            items[row] = _turned(items[row], drawn.kind, turn(marks[row], sizes[row]))
    how = "as stored: turned with them" if told["stored"] else "as shown, whatever size they state"
    count = "1 annotation is" if len(rows) == 1 else f"{len(rows)} annotations are"
    note = f"{count} of pictures that EXIF turns; their coordinates are for the pictures {how}"
    return replace(drawn, items=tuple(items), sizes=stated), [note]


def turn(mark: int, shown: np.ndarray) -> np.ndarray:
    """Return the (3, 3) matrix from a stored to a shown picture of (H, W), marks 5 to 8."""
    high, wide = map(float, shown)
    x = [0.0, -1.0, wide] if mark in (6, 7) else [0.0, 1.0, 0.0]
    y = [-1.0, 0.0, high] if mark in (7, 8) else [1.0, 0.0, 0.0]
    return np.array([x, y, [0.0, 0.0, 1.0]])


def _mark(path: Path) -> int:
    try:
        with Image.open(path) as image:
            return int(image.getexif().get(0x0112, 1))
    except UNREADABLE:
        return 1


def _fits(drawn: Annotations, row: int, size: np.ndarray) -> bool:
    item, (high, wide) = drawn.items[row], size.tolist()
    corners = item[:, :4].reshape(-1, 2) if drawn.kind == "boxes" else item[item[:, 2] > 0, :2]
    return bool(((corners >= -1) & (corners <= [wide + 1, high + 1])).all())


def _turned(item: np.ndarray, kind: str, matrix: np.ndarray) -> np.ndarray:
    out = item.copy()
    if kind == "keypoints":
        out[:, :2] = move_points(item[:, :2], matrix)
        return out
    corners = move_points(item[:, :4].reshape(-1, 2, 2), matrix)
    out[:, :2], out[:, 2:4] = corners.min(1), corners.max(1)
    inverted = (item[:, 2:4] < item[:, :2]).any(1)
    out[inverted] = item[inverted]  # named by the survey as it stands in the file
    return out
