"""COCO's JSON of pictures and annotations: boxes, masks or keypoints (Lin et al. 2014).

    annotations.json beside the pictures or beside images/; instances_train.json, ..._val.json;
    annotations/instances_train2017.json and train2017/, val2017/; train/_annotations.coco.json

What the annotations hold decides the task: keypoints where there are any, else boxes; masks where
segmentation is asked for. A picture in the list without annotations is a picture of nothing.
"""

from __future__ import annotations

import contextlib
import math
import re
from typing import TYPE_CHECKING, Any

import numpy as np

from gipi.core.errors import DataError
from gipi.data.decode import header
from gipi.data.masks import Drawing, Shape
from gipi.data.source import TEST, TRAIN, VAL, Annotations, Source
from gipi.data.sources import coco_json
from gipi.data.sources.folder import is_there
from gipi.data.sources.voc import picture_source

if TYPE_CHECKING:
    from pathlib import Path

SIGMAS = (
    0.026, 0.025, 0.025, 0.035, 0.035, 0.079, 0.079, 0.072, 0.072, 0.062, 0.062, 0.107, 0.107,
    0.087, 0.087, 0.089, 0.089,
)  # fmt: skip
FARTHEST = 1e6  # pixels from the picture's corner: beyond them lies a slip, not a part of it
MARGIN = 0.125  # of a person's box on every side, where each person is a row of its own
_WORDS = re.compile(r"(^|[^a-z])(train|valid|val|test)", re.IGNORECASE)
_PARTS = {"train": TRAIN, "val": VAL, "valid": VAL, "test": TEST}


def read_coco(folder: Path, files: tuple[Path, ...], *, task: str | None = None) -> Source:
    """Return pictures and what is drawn on them; several files give a split by their names.

    task   "detect", "segment" or "pose"; None: by what the annotations hold
    """
    loaded = [(path, coco_json.load(path)) for path in files]
    kinds = {path: coco_json.kind_of(data) for path, data in loaded}
    bare = [path.name for path, _ in loaded if not kinds[path]]
    loaded = [(path, data) for path, data in loaded if kinds[path]]
    if not loaded:
        raise DataError(
            f"{', '.join(bare)}: no boxes, masks or keypoints", "annotations of the pictures",
            "name a file that has them",
        )  # fmt: skip
    wanted = {"detect": "boxes", "segment": "mask", "pose": "keypoints"}.get(task or "")
    kind = wanted or ("keypoints" if "keypoints" in kinds.values() else "boxes")
    if kind == "keypoints":
        loaded = [(p, d) for p, d in loaded if kinds[p] == "keypoints"]
    elif any(k != "keypoints" for k in kinds.values()):
        loaded = [(p, d) for p, d in loaded if kinds[p] != "keypoints"]
    if not loaded:
        raise DataError(
            f"{folder} has no keypoints in its annotations", "keypoints", "use --task detect"
        )
    categories = coco_json.categories(loaded)
    root = folder.absolute()
    rows = _Rows(kind, categories, root, alone=all(_alone(p, d) for p, d in loaded))
    for path, data in loaded:
        try:
            rows.read(path.absolute(), data, _part(path))
        except (TypeError, ValueError, KeyError, IndexError, OverflowError) as error:
            raise DataError(
                f"{path}: an annotation of '{rows.last}' cannot be read ({error})",
                "annotations as COCO has them", "correct the file",
            ) from error  # fmt: skip
    parts = set(rows.parts)
    split = np.array(rows.parts, np.int8) if len(parts) > 1 and TRAIN in parts else None
    tasks = {"boxes": "detect", "mask": "segment", "keypoints": "pose"}
    names = ", ".join(path.name for path, _ in loaded)
    notes = [f"{name} holds no boxes, masks or keypoints: left out" for name in bare]
    crops = np.array(rows.crops, dtype=np.float64) if rows.crops else None
    return picture_source(
        folder, root, rows.paths, kind, rows.annotations(), split=split,
        task=tasks[kind], reason=f"{names} holds {kind} in COCO's JSON",
        files=[path.absolute() for path, _ in loaded], notes=notes + rows.notes(), crops=crops,
        row_names=rows.names,
    )  # fmt: skip


class _Rows:
    """Rows gathered from one or more files."""

    def __init__(
        self, kind: str, categories: dict[int | str, dict[str, Any]], root: Path, *, alone: bool
    ) -> None:
        self.kind, self.categories, self.root, self.alone = kind, categories, root, alone
        self.index = {c: i for i, c in enumerate(categories)}
        self.paths: list[Path] = []
        self.items: list[Any] = []
        self.sizes: list[tuple[int, int]] = []
        self.where: list[str] = []
        self.names: list[str] = []
        self.crops: list[list[float]] = []
        self.parts: list[int] = []
        self.lost: list[str] = []
        self.unreadable: dict[int, str] = {}
        self.without = self.strange = 0
        self.last = "the beginning"

    def read(self, path: Path, data: dict[str, Any], part: int) -> None:
        by_picture, strange = coco_json.by_picture(path, data)
        self.strange += strange
        for picture in data["images"]:
            self.last = str(picture.get("file_name", ""))
            file = self._find(path, str(picture.get("file_name", "")))
            if file is None:
                self.lost.append(f"{path.name}: {picture.get('file_name')}")
                continue
            size = (int(picture.get("height") or 0), int(picture.get("width") or 0))
            found = by_picture.get(picture.get("id"), [])
            if self.kind == "keypoints":
                self._points(file, path, size, _people(found), part)
            elif self.kind == "boxes":
                self._add(file, path, size, self._boxes(found), part)
            else:
                self._mask(file, path, size, found, part)
        if self.lost:
            lost = len(self.lost)
            raise DataError(
                f"{'1 picture is' if lost == 1 else f'{lost} pictures are'} not there: "
                f"{', '.join(self.lost[:5])}",
                "a file for every picture of the list", "restore them, or correct the list",
            )  # fmt: skip

    def _add(self, file: Path, source: Path, size: tuple[int, int], item: Any, part: int) -> None:
        self.paths.append(file)
        self.items.append(item)
        self.sizes.append(size)
        self.where.append(source.name)
        inside = file.is_relative_to(self.root)
        self.names.append(file.relative_to(self.root).as_posix() if inside else file.as_posix())
        self.parts.append(part)

    def _find(self, path: Path, name: str) -> Path | None:
        name = name.replace("\\", "/")
        stem = path.stem.lower()
        year = re.search(r"(train|val|test)\d{4}", stem)
        part = _WORDS.search(stem)
        inner = [year.group(0)] if year else []
        inner += [part.group(2).lower()] if part else []
        for base in (path.parent, path.parent.parent, self.root):
            for place in ("", "images", *inner, *(f"images/{n}" for n in inner)):
                file = base / place / name
                if name and is_there(file):
                    return file
        return None

    def _boxes(self, found: list[dict[str, Any]]) -> np.ndarray:
        out = []
        for one in found:
            box = one.get("bbox")
            if not isinstance(box, list) or len(box) != 4:
                box = [math.nan] * 4
            x, y, w, h = (float(v) if isinstance(v, int | float) else math.nan for v in box)
            code = self.index.get(one.get("category_id", -1), -1)
            out.append([x, y, x + w, y + h, code, float(bool(one.get("iscrowd")))])
        return np.array(out, dtype=np.float64).reshape(-1, 6)

    def _mask(
        self, file: Path, source: Path, size: tuple[int, int], found: list[dict[str, Any]],
        part: int,
    ) -> None:  # fmt: skip
        """Add the mask of one picture, or what is wrong with the first annotation that has none."""
        drawn_on = size
        if not all(size):  # not stated: that of the picture; without one the survey names it
            with contextlib.suppress(DataError):
                drawn_on = header(file, file.name)[1:]
        shapes: list[Shape] = []
        for at, one in enumerate(found, 1):
            shape = self._shape(one, drawn_on)
            if isinstance(shape, str):
                self.unreadable[len(self.items)] = f"annotation {at} of it {shape}"
                break
            shapes.append(shape)
        whole = Drawing(*drawn_on, tuple(shapes)) if len(shapes) == len(found) else None
        self._add(file, source, size, whole, part)

    def _shape(self, one: dict[str, Any], size: tuple[int, int]) -> Shape | str:
        """Return the shape of one annotation, or what is wrong with it."""
        drawn, number = one.get("segmentation"), one.get("category_id")
        if number not in self.index:
            return f"has an unknown class (category_id {number!r})"
        label = self.index[number] + 1
        if isinstance(drawn, dict):
            counts = drawn.get("counts", [])
            runs = counts if isinstance(counts, str) else tuple(int(v) for v in counts)
            return Shape(label, runs=runs)
        polygons = tuple(tuple(float(v) for v in p) for p in drawn or () if len(p) >= 6)
        if not polygons:
            return "has no segmentation"
        if any(len(p) % 2 for p in polygons):
            return "has a polygon with an odd number of coordinates"
        values = np.array([v for p in polygons for v in p]).reshape(-1, 2)
        if not np.isfinite(values).all():
            return "has a corner that is no number"
        height, width = size
        beside = (values.max(0) <= 0) | (values.min(0) >= (width, height))
        if height and (beside.any() or np.abs(values).max() > FARTHEST):
            return f"lies outside the picture of {width}x{height} pixels"
        return Shape(label, polygons)

    def _points(
        self, file: Path, source: Path, size: tuple[int, int], people: list[dict[str, Any]],
        part: int,
    ) -> None:  # fmt: skip
        """Add one row a person; its part of the picture where pictures show several."""
        if not people:
            self.without += 1
        for number, one in enumerate(people, 1):
            points = np.array(one["keypoints"], dtype=np.float64)
            self._add(file, source, size, points.reshape(-1, 3), part)
            if self.alone:
                continue
            self.names[-1] += f"#{number}"
            x, y, w, h = one.get("bbox") or _around(points.reshape(-1, 3))
            if not (w > 0 and h > 0):  # a part without area: named by the survey
                self.crops.append([float(x), float(y), float(x), float(y)])
                continue
            self.crops.append(
                [
                    float(math.floor(x - MARGIN * w)), float(math.floor(y - MARGIN * h)),
                    float(math.ceil(x + (1 + MARGIN) * w)), float(math.ceil(y + (1 + MARGIN) * h)),
                ]
            )  # fmt: skip

    def notes(self) -> list[str]:
        """Return what was decided about the rows."""
        out = []
        if self.without:
            shown = "1 picture shows" if self.without == 1 else f"{self.without} pictures show"
            out.append(f"{shown} nobody with keypoints: left out")
        if self.strange:
            out.append(f"{self.strange} annotations of pictures that are not listed: left out")
        if self.crops:
            out.append("pictures show several objects with keypoints: each is a row of its own")
        return out

    def annotations(self) -> Annotations:
        """Return the column of what is drawn."""
        classes = tuple(str(c.get("name", i)) for i, c in self.categories.items())
        sizes = np.array(self.sizes, dtype=np.int64).reshape(-1, 2)
        facts: dict[str, Any] = {}
        if self.kind == "mask":
            classes = ("background", *classes)
            if len(classes) > 254:
                raise DataError(
                    f"{len(classes)} classes of masks", "at most 254", "use --task detect"
                )
            facts = {
                "values": list(range(len(classes))), "ignored": [255],
                "unreadable": self.unreadable,
            }  # fmt: skip
        if self.kind == "keypoints":
            classes, facts = _point_names(self.categories, self.items)
        return Annotations(self.kind, tuple(self.items), classes, sizes, tuple(self.where), facts)


def _alone(path: Path, data: dict[str, Any]) -> bool:
    """Return whether no picture shows more than one object with keypoints."""
    return all(len(_people(f)) <= 1 for f in coco_json.by_picture(path, data)[0].values())


def _people(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the annotations that have keypoints and are no crowd."""
    return [
        one for one in found if any((one.get("keypoints") or [])[2::3]) and not one.get("iscrowd")
    ]


def _around(points: np.ndarray) -> tuple[float, float, float, float]:
    seen = points[points[:, 2] > 0][:, :2]
    low, high = seen.min(0), seen.max(0)
    w, h = np.maximum(high - low, 1.0).tolist()
    return float(low[0]), float(low[1]), w, h


def _point_names(
    categories: dict[int | str, dict[str, Any]], items: list[Any]
) -> tuple[tuple[str, ...], dict[str, Any]]:
    counts = {len(item) for item in items}
    if len(counts) > 1:
        raise DataError(
            f"objects with different numbers of keypoints: {sorted(counts)}",
            "the same points for every object", "keep one category",
        )  # fmt: skip
    count = counts.pop() if counts else 0
    listed: list[Any] = next(
        (c["keypoints"] for c in categories.values() if c.get("keypoints")), []
    )
    names = tuple(map(str, listed))
    if len(names) != count or len(set(names)) < count:  # answers are told apart by these names
        names = tuple(f"point {i}" for i in range(count))
    facts: dict[str, Any] = {"flip": mirrored(names)}
    if count == len(SIGMAS) and names[:1] == ("nose",):
        facts["sigmas"] = list(SIGMAS)
    return names, facts


def mirrored(names: tuple[str, ...]) -> list[list[int]]:
    """Return the pairs of points that a mirror swaps, by "left" and "right" in their names.

    >>> mirrored(("nose", "left_eye", "right_eye"))
    [[1, 2]]
    """
    index = {name.lower(): i for i, name in enumerate(names)}
    pairs = []
    for name, i in index.items():
        other = index.get(name.replace("left", "right"))
        if "left" in name and other is not None:
            pairs.append([i, other])
    return pairs


def _part(path: Path) -> int:
    found = _WORDS.search(path.stem) or _WORDS.search(path.parent.name)
    return _PARTS[found.group(2).lower()] if found else TRAIN
