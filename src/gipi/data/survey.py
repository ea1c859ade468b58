"""The survey of annotated pictures: sizes, labels and faults of every row, before anything is cut.

Headers of pictures and all masks are read once; the result is kept in the cache, so that the same
data opens at once the next time. Boxes and keypoints are in memory and are judged each time.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from gipi.core.errors import DataError, StorageError
from gipi.core.schema import IGNORED
from gipi.data import cache
from gipi.data.decode import VERSION, header
from gipi.data.decoded import fault_of
from gipi.data.masks import VERSION as LABELS
from gipi.data.masks import Drawing, read_mask
from gipi.data.source import Annotations, ImageFiles

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gipi.data.options import DataOptions
    from gipi.data.source import Source

TWO = ("background", "foreground")  # classes of black and white masks
OVERHANG = 0.01  # of the longer side (at least a pixel): boxes are cut there, not called wrong
BEYOND = 0.05  # of the longer side: keypoints that an annotator placed just outside the picture


@dataclass(frozen=True)
class Survey:
    """What is known of every row.

    sizes     (N, 2) int64 height and width of the picture; 0 where it cannot be read
    labels    (N, 256) bool of the labels in its mask; (N, classes) of the classes of its boxes
    faults    row -> what is wrong
    """

    sizes: np.ndarray
    labels: np.ndarray
    faults: dict[int, str]


def survey(files: ImageFiles, drawn: Annotations, source: Source, options: DataOptions) -> Survey:
    """Return sizes, labels and faults of all rows."""
    if drawn.kind == "mask":
        return _with_labels(_masks(files, drawn, source, options), drawn)
    sizes = _sizes(files, drawn, source, options)
    faults: dict[int, str] = {}
    labels = np.zeros((len(drawn), len(drawn.classes)), dtype=bool)
    for row, item in enumerate(drawn.items):
        height, width = sizes[row].tolist()
        reason = "" if height and width else picture_fault(files, row)
        reason = reason or _size_fault(drawn, row, (height, width))
        reason = reason or _crop_fault(files, row, height, width)
        if not reason and item is None:
            reason = drawn.facts.get("unreadable", {}).get(row, "it has no annotation")
        if not reason:
            check = _box_fault if drawn.kind == "boxes" else _point_fault
            reason = check(item, height, width, drawn.names[row] if drawn.names else "")
        if reason:
            faults[row] = reason
        elif drawn.kind == "boxes":
            labels[row, item[:, 4].astype(np.int64)] = True
    return Survey(sizes, labels, faults)


def picture_fault(files: ImageFiles, row: int) -> str:
    """Return why the header of a picture cannot be read, empty where it can."""
    try:
        _, height, width = header(files.paths[row], files.name(row))
    except DataError as error:
        return fault_of(error)
    return "" if height and width else "the picture has no pixels"


def _size_fault(drawn: Annotations, row: int, size: tuple[int, int]) -> str:
    if drawn.sizes is None or not drawn.sizes[row].all() or not size[0]:
        return ""
    height, width = drawn.sizes[row].tolist()
    if (height, width) == size:
        return ""
    turned = " (it is shown turned, by its EXIF mark)" if (width, height) == size else ""
    return (
        f"the annotation is for {width}x{height} pixels, the picture has {size[1]}x{size[0]}"
        + turned
    )


def _crop_fault(files: ImageFiles, row: int, height: int, width: int) -> str:
    """Return what is wrong with the part of the picture that is the row."""
    crop = files.crop(row)
    if crop is None:
        return ""
    x0, y0, x1, y1 = crop
    shown = f"its part of the picture ({x0:g}, {y0:g}, {x1:g}, {y1:g})"
    if not (x1 > x0 and y1 > y0):
        return f"{shown} has no area"
    apart = min(x1, width) <= max(x0, 0) or min(y1, height) <= max(y0, 0)
    if apart or max(-x0, -y0, x1 - width, y1 - height) > max(height, width):
        return f"{shown} lies outside the picture of {width}x{height} pixels"
    return ""


def _box_fault(boxes: np.ndarray, height: int, width: int, name: str) -> str:
    where = f" in {name}" if name else ""
    slack = max(1.0, OVERHANG * max(height, width))
    for at, (x0, y0, x1, y1, label, _) in enumerate(boxes.tolist(), 1):
        shown = f"box {at}{where} ({x0:g}, {y0:g}, {x1:g}, {y1:g})"
        if label < 0:
            return f"{shown} has an unknown class"
        if not np.isfinite([x0, y0, x1, y1]).all():
            return f"{shown} has a side that is no number"
        if x1 < x0 or y1 < y0:
            return f"{shown} is inverted"
        if x1 == x0 or y1 == y0:
            return f"{shown} has no area"
        beyond = max(-x0, -y0, x1 - width, y1 - height)
        if beyond > slack or min(x1, width) <= max(x0, 0) or min(y1, height) <= max(y0, 0):
            return f"{shown} lies outside the picture of {width}x{height} pixels"
    return ""


def _point_fault(points: np.ndarray, height: int, width: int, name: str) -> str:
    where = f" in {name}" if name else ""
    seen = points[:, 2] > 0
    if not seen.any():
        return f"all {len(points)} keypoints{where} are missing"
    slack = max(1.0, BEYOND * max(height, width))
    beyond = np.max(
        [-points[:, 0], -points[:, 1], points[:, 0] - width, points[:, 1] - height], axis=0
    )
    wrong = np.flatnonzero(seen & ~(beyond <= slack))
    if len(wrong):
        x, y, _ = points[wrong[0]].tolist()
        return (
            f"keypoint {wrong[0]}{where} at ({x:g}, {y:g}) lies outside the picture of "
            f"{width}x{height} pixels"
        )
    return ""


# ------------------------------------------------------------------ kept in the cache


def _sizes(
    files: ImageFiles, drawn: Annotations, source: Source, options: DataOptions
) -> np.ndarray:
    def fill(columns: dict[str, np.ndarray]) -> None:
        for row in range(len(files)):
            with contextlib.suppress(DataError):
                columns["sizes"][row] = header(files.paths[row], files.name(row))[1:]

    layout = {"sizes": ((len(files), 2), "int64")}
    return _kept(source, options, (drawn.kind, files.digest()), layout, fill)["sizes"]


def _masks(files: ImageFiles, drawn: Annotations, source: Source, options: DataOptions) -> Survey:
    found: dict[int, str] = {}

    def fill(columns: dict[str, np.ndarray]) -> None:
        for row in range(len(files)):
            size, present, reason = _look(files, drawn, row)
            columns["sizes"][row], columns["labels"][row] = size, present
            columns["bad"][row] = bool(reason)
            if reason:
                found[row] = reason

    n = len(files)
    layout = {"sizes": ((n, 2), "int64"), "labels": ((n, 256), "bool"), "bad": ((n,), "bool")}
    what = (f"{drawn.kind} {LABELS}", files.digest())
    columns = _kept(source, options, what, layout, fill)
    for row in np.flatnonzero(columns["bad"]).tolist():
        if row not in found:  # read from the cache: the few reasons are found again
            found[row] = _look(files, drawn, row)[2] or "it could not be read before"
    return Survey(columns["sizes"], columns["labels"], found)


def _kept(
    source: Source,
    options: DataOptions,
    what: tuple[str, str],
    layout: cache.Layout,
    fill: cache.Fill,
) -> dict[str, np.ndarray]:
    """Return columns from the cache, or computed in memory where there is no place for one."""
    key = cache.key_of("survey", source.fingerprint, what, VERSION)
    try:
        store = cache.Cache.of(options.cache, options.cache_budget_bytes)
        return store.open(key, layout, fill, name=f"survey of {source.name}").columns
    except StorageError:
        columns = {name: np.zeros(shape, dtype) for name, (shape, dtype) in layout.items()}
        fill(columns)
        return columns


def _look(
    files: ImageFiles, drawn: Annotations, row: int
) -> tuple[tuple[int, int], np.ndarray, str]:
    """Return the size of a picture, the labels of its mask and what is wrong with them."""
    nothing = np.zeros(256, dtype=bool)
    try:
        _, height, width = header(files.paths[row], files.name(row))
    except DataError as error:
        return (0, 0), nothing, fault_of(error)
    item = drawn.items[row]
    if item is None:
        return (
            (height, width),
            nothing,
            drawn.facts.get("unreadable", {}).get(row, "it has no mask"),
        )
    if isinstance(item, Drawing) and (item.height, item.width) != (height, width):
        return (
            (height, width),
            nothing,
            _size_fault(drawn, row, (height, width))
            or (
                f"the annotation is for {item.width}x{item.height} pixels, "
                f"the picture has {width}x{height}"
            ),
        )
    try:
        labels = read_mask(item, drawn.facts)
    except ValueError as error:
        return (height, width), nothing, str(error)
    if labels.shape != (height, width):
        high, wide = labels.shape
        name = "drawing" if isinstance(item, Drawing) else item.name
        reason = f"the mask {name} has {wide}x{high} pixels, the picture {width}x{height}"
        return (height, width), nothing, reason
    return (height, width), np.bincount(labels.reshape(-1), minlength=256) > 0, ""


def _with_labels(found: Survey, drawn: Annotations) -> Survey:
    """Add the faults of labels that no class has, where the classes are known."""
    if not drawn.classes:
        return found
    known = np.zeros(256, dtype=bool)
    known[list(drawn.facts["values"])] = True
    known[[*drawn.facts.get("ignored", ()), IGNORED]] = True
    faults = dict(found.faults)
    for row in np.flatnonzero((found.labels & ~known).any(1)).tolist():
        labels = np.flatnonzero(found.labels[row] & ~known).tolist()
        shown = ", ".join(map(str, labels[:5]))
        faults.setdefault(
            row, f"its mask has labels of no class: {shown} (there are {len(drawn.classes)})"
        )
    return Survey(found.sizes, found.labels, faults)


def named_classes(
    drawn: Annotations, labels: np.ndarray, *, known: Sequence[str] = ()
) -> tuple[Annotations, list[str]]:
    """Return mask annotations whose classes have names and values, and what was decided.

    labels   (N, 256) bool of the labels that were found
    Without a class list the classes are 0 to the highest label, called "class 3"; 255 is ignored.
    Masks of 0 and 255 alone are black and white: 255 is then a class, also where a list names two.
    known    classes of training: where those were black and white, masks of 0 alone are so too
    """
    present = np.flatnonzero(labels.any(0))
    if drawn.classes:
        two = drawn.facts["values"] == [0, 1] and "colours" not in drawn.facts
        if not two or present.tolist() not in ([0, IGNORED], [IGNORED]):
            return drawn, []
        note = f"masks of 0 and 255 alone: 255 is read as '{drawn.classes[1]}'"
        facts = {**drawn.facts, "values": [0, IGNORED], "ignored": []}
        return _named(drawn, drawn.classes, facts), [note]
    black = tuple(known) == TWO and present.tolist() == [0]
    if black or present.tolist() in ([0, IGNORED], [IGNORED]):
        facts = {**drawn.facts, "values": [0, IGNORED], "ignored": []}
        note = "masks of 0 and 255 alone: read as background and foreground"
        return _named(drawn, TWO, facts), [note]
    top = int(present[present < IGNORED].max(initial=0))
    names = tuple(f"class {i}" for i in range(top + 1))
    facts = {**drawn.facts, "values": list(range(top + 1)), "ignored": [IGNORED]}
    note = f"no class list: labels 0 to {top} are called class 0, class 1, ..."
    absent = top + 1 - int((present < IGNORED).sum())
    if absent:
        note += f"; {absent} of them {'is' if absent == 1 else 'are'} in no mask: is {top} one?"
    return _named(drawn, names, facts), [note]


def _named(drawn: Annotations, names: tuple[str, ...], facts: dict[str, object]) -> Annotations:
    return Annotations("mask", drawn.items, names, drawn.sizes, drawn.names, dict(facts))
