"""Folders of pictures: one sub-folder a class, and above them, if wished, train, val and test.

    photos/cat/1.jpg, photos/dog/2.png                     classes
    photos/train/cat/1.jpg, photos/test/dog/2.png          classes and a given split
    photos/1.jpg, photos/2.png                             pictures without labels, for prediction

Hidden files are ignored; everything else that is left out is said in the notes.
"""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import replace
from pathlib import Path

import numpy as np

from gipi.core.errors import DataError
from gipi.data.source import TEST, TRAIN, VAL, Column, ImageFiles, Source
from gipi.data.sources.compressed import fingerprint_files

IMAGES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".pbm")
SPLITS = {
    "train": TRAIN, "training": TRAIN, "val": VAL, "valid": VAL, "validation": VAL, "dev": VAL,
    "test": TEST, "testing": TEST,
}  # fmt: skip
MOSTLY = 0.5  # share of a column that must be names of pictures, where it is one of pictures
_TRIED = 20  # names that are looked for, so that one lost picture does not hide the others
JUNK = ("Thumbs.db", "desktop.ini", "__MACOSX")


def is_image(path: Path) -> bool:
    """Return whether the suffix is that of a picture."""
    return path.suffix.lower() in IMAGES


def is_there(path: Path) -> bool:
    """Return whether a file is there; not where no file could have such a name."""
    try:
        return path.is_file()
    except (OSError, ValueError):  # too long, or with a sign that none has
        return False


def read_images(paths: list[Path], name: str = "pictures") -> Source:
    """Return the given picture files, in this order, without labels."""
    for path in paths:
        if not is_there(path):
            raise DataError(f"{path} does not exist", "a picture file", "check the path")
    root = Path(os.path.commonpath([p.parent.absolute() for p in paths]))
    whole = [p.absolute() for p in paths]
    return _source(name, whole, labels=None, split=None, root=root, notes=[])


def read_folder(folder: Path) -> Source:
    """Return the pictures under `folder` with the label of their class folder."""
    entries = entries_of(folder)
    parts = {p: SPLITS[p.name.lower()] for p in entries if p.is_dir() and p.name.lower() in SPLITS}
    notes: list[str] = []
    if parts and TRAIN in parts.values():
        others = [p.name for p in entries if p.is_dir() and p not in parts and _has_image(p)]
        if others:
            notes.append(f"beside train, val and test, left out: {', '.join(others)}")
        found = [_read_part(p, part, notes) for p, part in parts.items()]
    else:
        found = [_read_part(folder, None, notes)]
    paths = [p for part in found for p in part[0]]
    labels = [label for part in found for label in part[1]]
    if not paths:
        raise DataError(
            f"{folder} has no pictures" + (f" ({notes[0]})" if notes else ""),
            f"class folders with pictures ({', '.join(s[1:] for s in IMAGES[:7])})",
            "put the pictures of each class into a folder with the name of the class",
        )
    split = None
    if len(parts) > 1 and TRAIN in parts.values():
        split = np.concatenate([np.full(len(p[0]), p[2], np.int8) for p in found])
    labelled = labels if any(label is not None for label in labels) else None
    root = folder.absolute()
    whole = [p.absolute() for p in paths]
    return _source(root.name, whole, labels=labelled, split=split, root=root, notes=notes)


def link_pictures(source: Source, folder: Path, *, table: Path | None = None) -> Source:
    """Return a table in which columns of picture paths (relative to `folder`) are pictures.

    table   the file itself: pictures may lie in a folder that is named after it
    Raises `DataError` naming the first row whose picture does not exist.
    """
    columns, hints = dict(source.columns), dict(source.schema_hints)
    found: list[Path] = []
    for name, named in named_pictures(source).items():
        column = np.asarray(source.columns[name])
        place = pictures_beside(table or folder / source.name, column[named])
        if place is None:
            said = (
                f"column '{name}' names pictures ({column[named][0]!r}), but none of them lies "
                "beside the table: they are taken as words"
            )
            source = replace(source, notes=(*source.notes, said))
            continue
        if not named.all():
            row = int(named.argmin())
            found_there = "is empty" if column[row] is None else f"is {column[row]!r}"
            raise DataError(
                f"{source.row_name(row)}: the picture in the column '{name}' {found_there}",
                "a picture file in every row", "fill it in, or remove the row",
            )  # fmt: skip
        paths = [(place / v).absolute() for v in column]
        for i, path in enumerate(paths):
            if not is_there(path):
                raise DataError(
                    f"{source.row_name(i)}: the picture '{column[i]}' does not exist",
                    f"a picture file below {place}",
                    "restore the file or remove the row",
                )
        found += paths
        columns[name], hints[name] = ImageFiles(tuple(paths), place.absolute()), "image"
    if hints == source.schema_hints:
        return source
    pictures, of = fingerprint_files(found, folder.absolute(), quick=True)
    whole = hashlib.sha256(f"{source.fingerprint} {pictures}".encode()).hexdigest()
    return replace(
        source, columns=columns, schema_hints=hints, fingerprint=whole, fingerprint_of=of
    )


def named_pictures(source: Source) -> dict[str, np.ndarray]:
    """Return the columns that mostly hold names of pictures, and (N,) bool where they do."""
    out = {}
    for name, column in source.columns.items():
        if isinstance(column, np.ndarray) and column.dtype.kind == "O" and column.ndim == 1:
            named = np.array([v is not None and is_image(Path(str(v))) for v in column], dtype=bool)
            if named.mean() >= MOSTLY:
                out[name] = named
    return out


def pictures_beside(path: Path, column: np.ndarray) -> Path | None:
    """Return the folder below which the pictures that a table names lie, None where none does.

    Beside the table, in images/, or in the folder that its name begins with: training/ for
    training_keypoints.csv.
    """
    first = [str(v) for v in column[:_TRIED]]
    stem = re.split(r"[_.-]", path.stem)[0].lower()
    inside = [p for p in sorted(path.parent.iterdir()) if p.is_dir()]
    named = [p for p in inside if p.name.lower() in (stem, "images", "img", "imgs", "pictures")]
    places = (path.parent, *named)
    return next((p for name in first for p in places if is_there(p / name)), None)


def entries_of(folder: Path) -> list[Path]:
    """Return what a folder holds, in order, without hidden files; raise where it is closed."""
    try:
        found = sorted(folder.iterdir(), key=lambda p: p.name)
    except OSError as error:
        raise DataError(
            f"{folder} cannot be read: {error.strerror or error}",
            "a folder that this user may read",
            "check the path and its permissions",
        ) from error
    return [p for p in found if not p.name.startswith(".") and p.name not in JUNK]


def _has_image(folder: Path) -> bool:
    return any(is_image(p) for p in files_of(folder))


def files_of(folder: Path) -> list[Path]:
    """Return all files below `folder` in the order of their paths, each folder once."""
    found: list[Path] = []
    seen: set[str] = set()
    for where, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(where)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(f for f in folders if not f.startswith(".") and f not in JUNK)
        found += [Path(where, n) for n in sorted(names) if not n.startswith(".") and n not in JUNK]
    return found


def _read_part(
    folder: Path, part: int | None, notes: list[str]
) -> tuple[list[Path], list[str | None], int]:
    paths: list[Path] = []
    labels: list[str | None] = []
    entries = entries_of(folder)
    loose = [p for p in entries if p.is_file() and is_image(p)]
    strange: list[Path] = []
    for entry in entries:
        if not entry.is_dir():
            continue
        files = files_of(entry)
        pictures = [p for p in files if is_image(p)]
        strange += [p for p in files if not is_image(p)]
        if not pictures:
            notes.append(f"folder '{entry.name}' has no pictures: left out")
        paths += pictures
        labels += [entry.name] * len(pictures)
    if loose and paths:
        notes.append(
            f"{len(loose)} pictures directly in '{folder.name}' belong to no class: left out"
        )
    elif loose and part in (VAL, TEST):
        notes.append(f"'{folder.name}' has {len(loose)} pictures without labels: left out")
    elif loose:
        paths, labels = loose, [None] * len(loose)
    if strange:
        shown = ", ".join(p.name for p in strange[:3]) + (", ..." if len(strange) > 3 else "")
        notes.append(f"{len(strange)} files that are no pictures: left out ({shown})")
    return paths, labels, TRAIN if part is None else part


def _source(
    name: str,
    paths: list[Path],
    *,
    labels: list[str | None] | None,
    split: np.ndarray | None,
    root: Path,
    notes: list[str],
) -> Source:
    files = ImageFiles(tuple(paths), root)
    columns: dict[str, Column] = {"image": files}
    if labels is not None:
        columns["label"] = np.array(labels, dtype=object)
    names = [files.name(i) for i in range(len(files))]
    fingerprint, of = fingerprint_files(paths, root, quick=True)
    return Source(
        name=name,
        columns=columns,
        rows=len(paths),
        row_names=names,
        given_split=split,
        target="label" if labels is not None else None,
        task="classify" if labels is not None else None,
        task_reason="one folder per class" if labels is not None else "",
        schema_hints={"image": "image", "label": "category"} if labels else {"image": "image"},
        fingerprint=fingerprint,
        fingerprint_of=of,
        origin=root,
        notes=tuple(notes),
    )
