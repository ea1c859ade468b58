"""Folders of pictures and masks of the same stems, for segmentation.

    images/a.jpg + masks/a.png                         also img, JPEGImages; labels, annotations ...
    train/images/a.jpg + train/masks/a.png, val/...    parts outside
    images/train/a.jpg + masks/train/a.png, ...        parts inside
    train/a.jpg + trainannot/a.png, val/...            as CamVid is published
    images/, masks/, train.txt, val.txt, test.txt      parts by lists of stems or paths

A mask may be called as its picture with _mask, _label, _gt, _L or _labelIds after it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from gipi.core.errors import DataError
from gipi.data.source import TEST, TRAIN, VAL, Annotations, ImageFiles, Source
from gipi.data.sources.classlist import find_list, read_list
from gipi.data.sources.compressed import fingerprint_files
from gipi.data.sources.folder import SPLITS, is_image
from gipi.data.sources.plain import read_text

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PICTURES = ("images", "image", "imgs", "img", "jpegimages", "pictures", "photos")
MASKS = (
    "masks", "mask", "labels", "label", "annotations", "annots", "segmentationclass", "gt",
    "groundtruth", "ground_truth", "segmentation",
)  # fmt: skip
BESIDE = ("annot", "_labels", "_masks", "_label", "_mask", "labels", "masks")
TAILS = ("", "_mask", "_masks", "_label", "_labels", "_gt", "_L", "_labelIds", "_seg", "-mask")
MASK_SUFFIXES = (".png", ".bmp", ".tif", ".tiff", ".gif", ".pgm", ".ppm", ".webp")


@dataclass(frozen=True)
class Pair:
    """A folder of pictures, the folder of their masks, and the part of the split they are."""

    pictures: Path
    masks: Path
    part: int | None = None


def pairs_in(folder: Path) -> tuple[Pair, ...]:
    """Return the picture and mask folders of a segmentation set, () where it is none."""
    inside = _folders(folder)
    one = _pair(inside)
    if one is not None:
        left, right = _folders(one[0]), _folders(one[1])
        parts = [n for n in left if n in SPLITS and n in right]
        if parts and "train" in parts:
            return tuple(Pair(left[n], right[n], SPLITS[n]) for n in parts)
        return (Pair(*one),)
    found = []
    for name, place in inside.items():
        if name not in SPLITS:
            continue
        within = _pair(_folders(place))
        beside = next((inside[name + b] for b in BESIDE if name + b in inside), None)
        if within is not None:
            found.append(Pair(*within, SPLITS[name]))
        elif beside is not None:
            found.append(Pair(place, beside, SPLITS[name]))
    return tuple(found) if any(p.part == TRAIN for p in found) else ()


def _folders(folder: Path) -> dict[str, Path]:
    return {
        p.name.lower(): p
        for p in sorted(folder.iterdir())
        if p.is_dir() and not p.name.startswith(".")
    }


def _pair(inside: dict[str, Path]) -> tuple[Path, Path] | None:
    pictures = next((inside[n] for n in PICTURES if n in inside), None)
    masks = next((inside[n] for n in MASKS if n in inside and _has_masks(inside[n])), None)
    return None if pictures is None or masks is None else (pictures, masks)


def _has_masks(folder: Path) -> bool:
    return next(_masks_below(folder), None) is not None


def _masks_below(folder: Path) -> Iterator[Path]:
    return (p for p in folder.rglob("*") if p.suffix.lower() in MASK_SUFFIXES and p.is_file())


def lacking(folder: Path) -> str:
    """Return what is wrong with a folder of pictures beside one that is called as masks are.

    Empty where there is no such pair, or where other folders show that they are classes.
    """
    inside = _folders(folder)
    for place in (folder, *(inside[n] for n in inside if n in SPLITS)):
        within = _folders(place)
        pictures = next((within[n] for n in PICTURES if n in within), None)
        drawn = next((within[n] for n in MASKS if n in within), None)
        if pictures is None or drawn is None or _has_masks(drawn):
            continue
        others = [p for p in within.values() if p not in (pictures, drawn)]
        if any(is_image(file) for other in others for file in other.rglob("*")):
            continue
        stems = {p.stem for p in pictures.rglob("*") if is_image(p)}
        if not stems:
            continue
        named = f"{place.name}/{drawn.name}" if place is not folder else drawn.name
        found = {p.stem for p in drawn.rglob("*") if is_image(p)}
        if not found:
            return f"{named}/ has no masks for the {len(stems)} pictures in {pictures.name}/"
        if len(found & {stem + tail for stem in stems for tail in TAILS}) * 2 >= len(found):
            return (
                f"the masks in {named}/ are {', '.join(sorted(_suffixes(drawn)))}: "
                "a format that changes labels"
            )
    return ""


def _suffixes(folder: Path) -> set[str]:
    return {p.suffix.lower() for p in folder.rglob("*") if is_image(p)}


def read_mask_folder(folder: Path, pairs: tuple[Pair, ...]) -> Source:
    """Return pictures and their masks; a picture without a mask is a row without an annotation."""
    root = folder.absolute()
    notes: list[str] = []
    pictures: list[Path] = []
    masks: list[Path | None] = []
    parts: list[int] = []
    for pair in pairs:
        found, drawn = _matched(pair, notes)
        pictures += found
        masks += drawn
        parts += [TRAIN if pair.part is None else pair.part] * len(found)
    if not pictures:
        raise DataError(
            f"{folder} has no pictures in {pairs[0].pictures.name}", "pictures and masks",
            "put pictures into images/ and masks of the same names into masks/",
        )  # fmt: skip
    split = np.array(parts, dtype=np.int8)
    lists = _lists(root, pairs[0].pictures.absolute(), pictures) if len(pairs) == 1 else None
    if lists is not None:
        keep = np.flatnonzero(lists >= 0)
        left = len(pictures) - len(keep)
        if left:
            notes.append(f"{left} {'picture is' if left == 1 else 'pictures are'} in no list: left "
                         "out")  # fmt: skip
        pictures, masks = [pictures[i] for i in keep], [masks[i] for i in keep]
        split = lists[keep].astype(np.int8)
    listed = find_list([root, *(p.masks for p in pairs), *(p.masks.parent for p in pairs)])
    classes, facts = read_list(listed) if listed is not None else ((), {})
    drawn_names = tuple("" if m is None else m.relative_to(root).as_posix() for m in masks)
    everything = [*pictures, *(m for m in masks if m is not None), *([listed] if listed else [])]
    fingerprint, of = fingerprint_files(everything, root, quick=True)
    files = ImageFiles(tuple(pictures), root)
    shown = next((p for p in pairs if p.part == TRAIN), pairs[0])
    return Source(
        name=root.name,
        columns={
            "image": files,
            "mask": Annotations("mask", tuple(masks), classes, None, drawn_names, facts),
        },
        rows=len(pictures),
        row_names=[files.name(i) for i in range(len(files))],
        given_split=split if len(set(split.tolist())) > 1 else None,
        target="mask",
        task="segment",
        task_reason=f"{shown.masks.name}/ holds masks of the pictures in {shown.pictures.name}/",
        schema_hints={"image": "image", "mask": "mask"},
        fingerprint=fingerprint,
        fingerprint_of=of,
        origin=root,
        notes=tuple(notes),
    )


def _matched(pair: Pair, notes: list[str]) -> tuple[list[Path], list[Path | None]]:
    by_stem: dict[str, Path] = {}
    for path in sorted(_masks_below(pair.masks)):
        relative = path.relative_to(pair.masks)
        by_stem.setdefault((relative.parent / relative.stem).as_posix(), path.absolute())
    pictures = sorted(p for p in pair.pictures.rglob("*") if p.is_file() and is_image(p))
    pictures = [p.absolute() for p in pictures if not p.name.startswith(".")]
    masks: list[Path | None] = []
    used = set()
    for path in pictures:
        relative = path.relative_to(pair.pictures.absolute())
        stem = (relative.parent / relative.stem).as_posix()
        name = next((stem + t for t in TAILS if stem + t in by_stem), None)
        masks.append(None if name is None else by_stem[name])
        used.add(name)
    left = sorted(set(by_stem) - used)
    if left:
        shown = ", ".join(left[:3]) + (", ..." if len(left) > 3 else "")
        count = "1 mask" if len(left) == 1 else f"{len(left)} masks"
        notes.append(f"{count} without a picture in {pair.masks.name}: {shown}")
    return pictures, masks


def _lists(root: Path, folder: Path, pictures: list[Path]) -> np.ndarray | None:
    """Return (N,) the part of each picture by list files, -1 in none; None without lists.

    A line names a picture by its path (below the root or the folder of pictures, with or without
    a suffix), or by its stem where only one picture has it.
    Raises `DataError` naming the line of a picture that is not there, or is in two lists.
    """
    files = {"train.txt": TRAIN, "val.txt": VAL, "valid.txt": VAL, "test.txt": TEST}
    places = [root, root / "splits", root / "ImageSets" / "Segmentation", root / "lists"]
    place = next((p for p in places if (p / "train.txt").is_file()), None)
    if place is None:
        return None
    known = _called(root, folder, pictures)
    out = np.full(len(pictures), -1)
    for name, part in files.items():
        if not (place / name).is_file():
            continue
        for number, line in enumerate(read_text(place / name).split("\n"), 1):
            if not line.strip():
                continue
            rows = _named(line.strip(), known)
            if len(rows) != 1:
                what = "no picture is called so" if not rows else "several pictures are called so"
                raise DataError(
                    f"{name} line {number}: {line.strip()!r}: {what}",
                    f"a picture of {folder.name}/ in every line", "correct the list",
                )  # fmt: skip
            (row,) = rows
            if out[row] not in (-1, part):
                raise DataError(
                    f"{name} line {number}: {line.strip()!r} is in another list as well",
                    "every picture in one list", "take it out of one of them",
                )  # fmt: skip
            out[row] = part
    return out


def _called(root: Path, folder: Path, pictures: list[Path]) -> dict[str, set[int]]:
    """Return name -> rows that it may mean: paths below root and folder, and stems."""
    known: dict[str, set[int]] = {}
    for row, path in enumerate(pictures):
        for base in (root, folder):
            whole = path.relative_to(base)
            for name in (whole.as_posix(), whole.with_suffix("").as_posix()):
                known.setdefault(name, set()).add(row)
        for name in (path.name, path.stem):
            known.setdefault("//" + name, set()).add(row)
    return known


def _named(line: str, known: dict[str, set[int]]) -> set[int]:
    """Return the rows that a line of a list names: all of it, or its first word."""
    for text in (line, line.split(maxsplit=1)[0]):
        name = text.removeprefix("./").removeprefix("/")
        last = name.rpartition("/")[2]
        for called in (name, name.rpartition(".")[0], "//" + last, "//" + last.rpartition(".")[0]):
            if called in known:
                return known[called]
    return set()
