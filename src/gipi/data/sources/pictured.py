"""Which reader takes a folder or a table of annotated pictures, and the named sets of that kind."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from gipi.core.errors import DataError
from gipi.data import multilabel
from gipi.data.source import TEST, TRAIN, Annotations, ImageFiles, Source
from gipi.data.sources import coco, coco_json, folder, maskfolder, points, voc
from gipi.data.sources.adult import recognise
from gipi.data.sources.compressed import fingerprint_files
from gipi.data.sources.table import read_table
from gipi.data.sources.unpack import unpacked

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

CAMVID = (
    "sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian",
    "bicyclist",
)  # fmt: skip
FACE_FLIP = (
    *((i, 16 - i) for i in range(8)), *((17 + i, 26 - i) for i in range(5)), (31, 35), (32, 34),
    (36, 45), (37, 44), (38, 43), (39, 42), (40, 47), (41, 46), (48, 54), (49, 53), (50, 52),
    (59, 55), (58, 56), (60, 64), (61, 63), (67, 65),
)  # fmt: skip
"""Pairs of the 68 points of a face (Sagonas et al. 2013) that a mirror swaps."""


def read_drawn(path: Path, task: str | None) -> Source | None:
    """Return the annotated pictures of a folder; None where it holds none, or other is asked for.

    task   None, or the task that was asked for
    """
    if task in ("classify", "regress"):
        return None
    for child in (path, *_only_child(path)):
        place = voc.voc_root(child)
        if task == "segment" and (child / "SegmentationClass").is_dir():
            return voc.read_voc_masks(path, child)
        if place is not None and task in (None, "detect"):
            return voc.read_voc(path, place)
        files = coco_json.coco_files(child)
        pairs = maskfolder.pairs_in(child)
        if files and (task is not None or not pairs):
            return coco.read_coco(child, files, task=task)
        if pairs and task in (None, "segment"):
            return maskfolder.read_mask_folder(child, pairs)
        table = points.table_in(child) if task in (None, "pose") else None
        if table is not None and not _has_classes(child):
            return _by_picture(read_picture_table(table, task=task))
        lacking = maskfolder.lacking(child) if task in (None, "segment") else ""
        if lacking:
            raise DataError(
                lacking, "a mask of the same name for each picture, as PNG (or BMP, TIFF, GIF)",
                "put the masks there, or use --task classify if these are folders of classes",
            )  # fmt: skip
    return None


def _by_picture(source: Source) -> Source:
    """Return a table whose rows are called by their pictures, where each has one of its own."""
    files = next((c for c in source.columns.values() if isinstance(c, ImageFiles)), None)
    if files is None or files.root is None or len(set(files.paths)) < len(files.paths):
        return source
    root = files.root
    return replace(source, row_names=tuple(p.relative_to(root).as_posix() for p in files.paths))


def _has_classes(place: Path) -> bool:
    """Return whether pictures lie in several folders, as those of classes or parts do."""
    inside = [p for p in folder.entries_of(place) if p.is_dir()]
    return sum(any(map(folder.is_image, folder.files_of(p))) for p in inside) > 1


def _only_child(path: Path) -> tuple[Path, ...]:
    inside = [p for p in path.iterdir() if not p.name.startswith((".", "__"))]
    return (inside[0],) if len(inside) == 1 and inside[0].is_dir() else ()


def read_picture_table(path: Path, *, task: str | None = None) -> Source:
    """Return a table; its picture column, keypoints and several labels a row are recognised."""
    source = folder.link_pictures(recognise(read_table(path)), path.parent, table=path)
    if not any(isinstance(c, ImageFiles) for c in source.columns.values()):
        _pictures_are_there(source, path, task)
        return source
    if task in (None, "pose"):
        source = points.as_keypoints(source, task=task)
    others = [n for n, c in source.columns.items() if isinstance(c, np.ndarray)]
    labels = multilabel.label_columns(source)
    if task in (None, "classify") and len(labels) > 1 and len(labels) == len(others):
        source = multilabel.join(source, labels)
    return source


def _pictures_are_there(source: Source, path: Path, task: str | None) -> None:
    """Raise where none of the pictures that a table names is there, and they are all it has.

    That is a table of keypoints, or one of pictures with at most a target beside them.
    """
    named = folder.named_pictures(source)
    lost = next(iter(named.items()), None)
    pointed = task == "pose" or (task is None and bool(points.point_columns(source)))
    if lost is None or not (pointed or len(source.columns) - len(named) <= 1):
        return
    column, row = np.asarray(source.columns[lost[0]]), int(lost[1].argmax())
    raise DataError(
        f"{path.name} {source.row_name(row)}: the picture {column[row]!r} does not exist, and none "
        f"of the column '{lost[0]}' does",
        f"the pictures beside {path.name}, or in images/ there",
        "put them there, or take that column out of the table",
    )


# ------------------------------------------------------------------ named sets


def holds(pattern: str, inside: Callable[[Path], bool]) -> Callable[[Path], bool]:
    """Return whether a folder holds a zip of this pattern, or the set unpacked."""
    return lambda place: next(place.glob(pattern), None) is not None or inside(place)


def content(place: Path, pattern: str) -> Path:
    """Return the folder of an unpacked set: its zip's content, or the folder itself."""
    archive = next(iter(sorted(place.glob(pattern))), None)
    inside = place if archive is None else unpacked(archive)
    children = _only_child(inside)
    return children[0] if children else inside


def read_bccd(place: Path) -> Source:
    """Return blood cells: 205 training, 87 validation and 72 test pictures with boxes."""
    inside = content(place, "*.zip")
    root = voc.voc_root(inside)
    if root is None:
        raise DataError(f"{place} has no Annotations/ with XML", "BCCD's folder", "check it")
    return voc.read_voc(inside, root)


def read_camvid(place: Path) -> Source:
    """Return road scenes with 11 classes; label 11 (void) is ignored."""
    inside = content(place, "*.zip")
    source = maskfolder.read_mask_folder(inside, maskfolder.pairs_in(inside))
    drawn = source.columns["mask"]
    assert isinstance(drawn, Annotations)
    facts = {"values": list(range(len(CAMVID))), "ignored": [len(CAMVID), 255]}
    named = replace(drawn, classes=CAMVID, facts=facts)
    return replace(source, columns={**source.columns, "mask": named})


def read_face_keypoints(place: Path) -> Source:
    """Return faces with 68 points; the rows of test_keypoints.csv are the test rows."""
    inside = content(place, "*.zip")
    tables = [(_table(inside, w), part) for w, part in (("train", TRAIN), ("test", TEST))]
    parts = [read_picture_table(path, task="pose") for path, _ in tables]
    files = [p.columns["image"] for p in parts]
    drawn = [p.columns["keypoints"] for p in parts]
    assert all(isinstance(f, ImageFiles) for f in files)
    assert all(isinstance(d, Annotations) for d in drawn)
    paths = [path for f in files if isinstance(f, ImageFiles) for path in f.paths]
    pictures = ImageFiles(tuple(paths), inside)
    faces = Annotations(
        "keypoints",
        tuple(item for d in drawn if isinstance(d, Annotations) for item in d.items),
        tuple(f"point {i}" for i in range(68)),
        None,
        tuple(
            f"{path.name} row {i + 1}"
            for (path, _), p in zip(tables, parts, strict=True) for i in range(p.rows)
        ),
        {"flip": [list(pair) for pair in FACE_FLIP]},
    )  # fmt: skip
    fingerprint, of = fingerprint_files([p for p, _ in tables] + paths, inside, quick=True)
    split = np.repeat(np.array([TRAIN, TEST], np.int8), [p.rows for p in parts])
    people = [person(path.stem) for path in paths]
    trained = {name for name, part in zip(people, split.tolist(), strict=True) if part == TRAIN}
    both = sum(n in trained for n, p in zip(people, split.tolist(), strict=True) if p == TEST)
    said = (
        f"{both} of {parts[1].rows} test pictures show a person who is in training too: the test "
        "rows are as published"
    )
    return Source(
        name="face-keypoints",
        columns={"image": pictures, "keypoints": faces},
        rows=len(paths),
        row_names=[pictures.name(i) for i in range(len(paths))],
        given_split=split,
        bound=np.unique(people, return_inverse=True)[1].reshape(-1).astype(np.int64),
        bound_by="person",
        target="keypoints",
        task="pose",
        task_reason="the tables have x and y of 68 points on each face",
        schema_hints={"image": "image", "keypoints": "keypoints"},
        fingerprint=fingerprint,
        fingerprint_of=of,
        origin=inside,
        notes=(said,),
    )


def person(stem: str) -> str:
    """Return who a frame shows, by its name: the last number tells the video and the frame.

    >>> person("Carla_Gugino_31"), person("2370961440_6bc8ce346c")
    ('Carla_Gugino', '2370961440_6bc8ce346c')
    """
    return re.sub(r"_\d\d$", "", stem)


def _table(place: Path, word: str) -> Path:
    found = [p for p in sorted(place.glob("*.csv")) if re.search(word, p.name)]
    if not found:
        raise DataError(f"{place} has no table of {word} keypoints", "two tables", "check it")
    return found[0]


def read_hymenoptera(place: Path) -> Source:
    """Return ants and bees: 244 training and 153 validation pictures."""
    return folder.read_folder(content(place, "*.zip"))
