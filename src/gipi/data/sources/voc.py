"""Folders in the layout of Pascal VOC: boxes in Annotations/*.xml, or masks (Everingham 2010).

    Annotations/a.xml, JPEGImages/a.jpg, ImageSets/Main/train.txt ...        detection
    annotations/a.xml, images/a.jpg; a.xml beside a.jpg                      detection
    SegmentationClass/a.png, JPEGImages/a.jpg, ImageSets/Segmentation/...    segmentation

VOC counts pixels from 1 and takes both ends in: xmin..xmax covers x from xmin - 1 to xmax. An
object that is marked difficult is kept as a crowd: found or not, it does not count.
"""

from __future__ import annotations

import glob
import xml.etree.ElementTree as ET
from typing import TYPE_CHECKING

import numpy as np

from gipi.core.errors import DataError
from gipi.data.source import TEST, TRAIN, VAL, Annotations, ImageFiles, Source
from gipi.data.sources.classlist import without_void
from gipi.data.sources.compressed import fingerprint_files, read_head
from gipi.data.sources.folder import is_image
from gipi.data.sources.plain import read_text

if TYPE_CHECKING:
    from pathlib import Path

SETS = (("train", TRAIN), ("val", VAL), ("test", TEST))
PLACES = ("JPEGImages", "images", "Images", "imgs", "img")
XML_PLACES = ("annotations", "annotation", "xml", "xmls")
CLASSES = (
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair",
    "cow", "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa",
    "train", "tvmonitor",
)  # fmt: skip


def voc_root(folder: Path) -> Path | None:
    """Return the folder that holds annotations in XML, this one or its only child."""
    inside = [p for p in sorted(folder.iterdir()) if p.is_dir() and not p.name.startswith(".")]
    places: list[Path] = [folder, *(inside if len(inside) == 1 else [])]
    for place in places:
        if xml_folder(place) is not None:
            return place
    return None


def xml_folder(root: Path) -> Path | None:
    """Return where the XML of a folder lies: in Annotations/, or beside the pictures."""
    for place in sorted(root.iterdir()):
        if place.name.lower() in XML_PLACES and any(place.glob("*.xml")):
            return place
    first = next(iter(sorted(root.glob("*.xml"))), None)
    if first is None or not any(is_image(p) for p in root.glob(f"{glob.escape(first.stem)}.*")):
        return None
    return root if b"<annotation" in read_head(first, 4096) else None


def read_voc(folder: Path, root: Path) -> Source:
    """Return pictures and boxes of a VOC folder."""
    root = root.absolute()
    notes: list[str] = []
    where = xml_folder(root) or root
    xml = {p.stem: p for p in sorted(where.glob("*.xml"))}
    pictures = _pictures(root, notes)
    stems, split = _stems(root / "ImageSets" / "Main", sorted(pictures), notes)
    _all_there(stems, pictures, root, "Main")
    left = len(set(xml) - set(stems))
    if left:
        notes.append(f"{left} annotations without a listed picture: left out")
    found: list[tuple[list[tuple[str, list[float]]], tuple[int, int]] | None] = []
    unreadable: dict[int, str] = {}
    for row, stem in enumerate(stems):
        try:
            found.append(_objects(xml[stem]) if stem in xml else None)
        except DataError as error:
            found.append(None)
            unreadable[row] = error.found
    names = sorted({name for one in found if one is not None for name, _ in one[0]})
    index = {name: i for i, name in enumerate(names)}
    items = tuple(
        None
        if one is None
        else np.array([[*box[:4], index[n], box[4]] for n, box in one[0]]).reshape(-1, 6)
        for one in found
    )
    sizes = np.array([(0, 0) if one is None else one[1] for one in found], dtype=np.int64)
    drawn = Annotations(
        "boxes",
        items,
        tuple(names),
        sizes,
        tuple((where.relative_to(root) / f"{s}.xml").as_posix() for s in stems),
        {"unreadable": unreadable},
    )
    used = [xml[s] for s in stems if s in xml]
    return picture_source(
        folder, root, [pictures[s] for s in stems], "boxes", drawn, split=split, task="detect",
        reason=f"{where.name}/ holds boxes in VOC's XML", files=used, notes=notes,
    )  # fmt: skip


def read_voc_masks(folder: Path, root: Path) -> Source:
    """Return pictures and class masks of a VOC folder with SegmentationClass/."""
    root = root.absolute()
    notes: list[str] = []
    masks = {p.stem: p.absolute() for p in sorted((root / "SegmentationClass").glob("*.png"))}
    pictures = _pictures(root, notes)
    stems, split = _stems(
        root / "ImageSets" / "Segmentation", sorted(set(masks) & set(pictures)), notes
    )
    _all_there(stems, pictures, root, "Segmentation")
    classes, facts = without_void(CLASSES, range(len(CLASSES)))
    items = tuple(masks.get(s) for s in stems)
    shown = tuple(f"SegmentationClass/{s}.png" for s in stems)
    drawn = Annotations("mask", items, classes, None, shown, facts)
    return picture_source(
        folder, root, [pictures[s] for s in stems], "mask", drawn, split=split, task="segment",
        reason="SegmentationClass/ holds masks in VOC's layout",
        files=[m for m in items if m is not None], notes=notes,
    )  # fmt: skip


def _all_there(stems: list[str], pictures: dict[str, Path], root: Path, lists: str) -> None:
    lost = sorted(set(stems) - set(pictures))
    if lost:
        count = "1 listed picture is" if len(lost) == 1 else f"{len(lost)} listed pictures are"
        raise DataError(
            f"{count} not in {root}: {', '.join(lost[:5])}",
            "a picture for every listed name", f"restore them, or correct ImageSets/{lists}",
        )  # fmt: skip


def picture_source(
    folder: Path, root: Path, paths: list[Path], column: str, drawn: Annotations, *,
    split: np.ndarray | None, task: str, reason: str, files: list[Path], notes: list[str],
    crops: np.ndarray | None = None, row_names: list[str] | None = None,
) -> Source:  # fmt: skip
    """Return a source of pictures and one column that is drawn on them.

    files   what the annotations were read from (for the fingerprint)
    """
    if not paths:
        raise DataError(f"{folder} has no annotated pictures", "pictures", "check the folder")
    pictures = ImageFiles(tuple(p.absolute() for p in paths), root, crops)
    fingerprint, of = fingerprint_files([*dict.fromkeys(paths), *files], root, quick=True)
    names = row_names or [pictures.name(i) for i in range(len(pictures))]
    return Source(
        name=folder.absolute().stem,
        columns={"image": pictures, column: drawn},
        rows=len(paths),
        row_names=names,
        given_split=split,
        target=column,
        task=task,
        task_reason=reason,
        schema_hints={"image": "image", column: drawn.kind},
        fingerprint=fingerprint,
        fingerprint_of=of,
        origin=root,
        notes=tuple(notes),
    )


def _pictures(root: Path, notes: list[str]) -> dict[str, Path]:
    """Return stem -> picture; add a note where a stem has several."""
    place = next((root / n for n in PLACES if (root / n).is_dir()), root)
    found = [p.absolute() for p in sorted(place.iterdir()) if is_image(p) and p.is_file()]
    out = {p.stem: p for p in found}
    twin = next((p for p in found if out[p.stem] != p), None)
    if twin is not None:
        count = len(found) - len(out)
        notes.append(
            f"{count} picture{'s' * (count > 1)} beside another one of the same name left out, "
            f"such as {twin.name} beside {out[twin.stem].name}"
        )
    return out


def _stems(
    lists: Path, everything: list[str], notes: list[str]
) -> tuple[list[str], np.ndarray | None]:
    """Return the stems of all parts and the part of each; all pictures without lists."""
    stems: list[str] = []
    parts: list[int] = []
    files = [(n, p) for n, p in SETS if (lists / f"{n}.txt").is_file()]
    if not any(n == "train" for n, _ in files) and (lists / "trainval.txt").is_file():
        files = [("trainval", TRAIN), *files]
    for name, part in files:
        lines = read_text(lists / f"{name}.txt").split("\n")
        found = [line.split()[0] for line in lines if line.strip()]
        again = set(found) & set(stems)
        if again:
            notes.append(f"{len(again)} pictures are in two lists: taken from the first")
        new = [s for s in dict.fromkeys(found) if s not in again]
        stems += new
        parts += [part] * len(new)
    if not stems:
        return everything, None
    left = len(set(everything) - set(stems))
    if left:
        notes.append(f"{left} pictures are in no list of {lists.name}: left out")
    return stems, np.array(parts, np.int8) if len(set(parts)) > 1 else None


def _objects(path: Path) -> tuple[list[tuple[str, list[float]]], tuple[int, int]]:
    """Return (name, [x0, y0, x1, y1, crowd]) of each object, and the stated (height, width)."""
    try:
        text = path.read_text("utf-8", errors="replace")
        tree = _tree(text)
        objects = [_object(one) for one in tree.iter("object")]
        high, wide = (float(tree.findtext(f"size/{side}") or 0) for side in ("height", "width"))
        size = (round(high), round(wide))
    except (ET.ParseError, ValueError, OverflowError, OSError) as error:
        raise DataError(
            f"{path.name} cannot be read: {error}",
            "an annotation in VOC's XML",
            "correct the file",
        ) from error
    return objects, size


def _tree(text: str) -> ET.Element:
    if "<!ENTITY" in text or "<!DOCTYPE" in text:  # may be a bomb, and is never needed
        raise ValueError("it declares entities or a document type")
    tree = ET.fromstring(text)  # noqa: S314  no entities: checked above
    if tree.tag != "annotation":  # without objects it would be a picture of nothing
        raise ValueError(f"its root is <{tree.tag}>, not <annotation>")
    return tree


def _object(one: ET.Element) -> tuple[str, list[float]]:
    sides = ("xmin", "ymin", "xmax", "ymax")
    x0, y0, x1, y1 = (float(one.findtext(f"bndbox/{side}", "nan")) for side in sides)
    crowd = float((one.findtext("difficult") or "0").strip() == "1")
    name = (one.findtext("name") or "").strip()
    if not name:
        raise ValueError("an object has no name")
    return name, [x0 - 1, y0 - 1, x1, y1, crowd]
