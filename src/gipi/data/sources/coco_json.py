"""One file of COCO's JSON: whether it is one, what it holds, and what is wrong with its form."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from gipi.core.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path

_NAME = re.compile(r"(annotation|instances|keypoints|coco|labels|train|val|test)", re.IGNORECASE)


def coco_files(folder: Path) -> tuple[Path, ...]:
    """Return the annotation files of a COCO set in this folder, () where there are none."""
    places = [
        folder,
        folder / "annotations",
        *(folder / n for n in ("train", "valid", "val", "test")),
    ]
    found = [p for place in places if place.is_dir() for p in sorted(place.glob("*.json"))]
    return tuple(p for p in found if _NAME.search(p.name) and is_coco(p))


def is_coco(path: Path) -> bool:
    """Return whether a JSON file looks like one of COCO: an object with pictures in it."""
    try:
        size = path.stat().st_size
        with path.open("rb") as f:
            head = f.read(1 << 16)
            f.seek(max(0, size - (1 << 16)))
            ends = head + f.read()
    except OSError:
        return False
    return head.lstrip()[:1] == b"{" and (b'"images"' in ends or b'"annotations"' in ends)


def load(path: Path) -> dict[str, Any]:
    """Return the content of a file; `DataError` naming what has not the form that it must have."""
    try:
        data = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path} is not JSON: {error}", "COCO's JSON", "correct it") from error
    lists = isinstance(data, dict) and all(
        isinstance(data.get(k, []), list) and all(isinstance(v, dict) for v in data.get(k, []))
        for k in ("images", "annotations", "categories")
    )
    if not lists or "images" not in data:
        raise DataError(
            f"{path} has no list of images", "images, annotations and categories as COCO has them",
            "correct the file",
        )  # fmt: skip
    number = "a number that the lists of images and categories have"
    for at, one in enumerate(data.get("annotations", []), 1):
        where = f"{path}: annotation {at}"
        _check(where, one, "image_id", int | str | None, number)
        _check(where, one, "category_id", int | str | None, number)
        _check(where, one, "keypoints", list | None, "x, y and visibility of every point")
    for at, one in enumerate(data.get("categories", []), 1):
        _check(f"{path}: category {at}", one, "id", int | str, "a number")
        _check(f"{path}: category {at}", one, "keypoints", list | None, "a list of names")
    for at, one in enumerate(data["images"], 1):
        _check(f"{path}: image {at}", one, "id", int | str | None, "a number")
    return dict(data)


def _check(where: str, one: dict[str, Any], key: str, kind: Any, needed: str) -> None:
    if key in one and not isinstance(one[key], kind):
        raise DataError(f"{where} has {key}={one[key]!r}", needed, "correct the file")


def kind_of(data: dict[str, Any]) -> str:
    """Return "keypoints", "boxes" (masks too), or "" for captions and for pictures alone."""
    if "annotations" not in data:
        return ""
    first = data["annotations"][:1000]
    if any(any((a.get("keypoints") or [])[2::3]) for a in first):
        return "keypoints"
    drawn = not first or any("bbox" in a or "segmentation" in a for a in first)
    return "boxes" if drawn else ""


def categories(loaded: list[tuple[Path, dict[str, Any]]]) -> dict[int | str, dict[str, Any]]:
    """Return id -> category that annotations use (all, where none is used), in order of ids.

    Raises `DataError` where files give one id to two classes.
    """
    found: dict[int | str, dict[str, Any]] = {}
    where: dict[int | str, Path] = {}
    for path, data in loaded:
        for one in data.get("categories", []):
            known = found.get(one.get("id", ""))
            if known is not None and known.get("name") != one.get("name"):
                raise DataError(
                    f"category {one['id']} is {known.get('name')!r} in {where[one['id']].name} "
                    f"and {one.get('name')!r} in {path.name}",
                    "the same classes in every file", "give each class one id",
                )  # fmt: skip
            if "id" in one:
                found[one["id"]], where[one["id"]] = one, path
    used = {a.get("category_id") for _, data in loaded for a in data.get("annotations", [])}
    order = sorted(found, key=lambda i: (isinstance(i, str), i))
    return {i: found[i] for i in order if i in used} or {i: found[i] for i in order}


def by_picture(path: Path, data: dict[str, Any]) -> tuple[dict[Any, list[dict[str, Any]]], int]:
    """Return picture id -> its annotations, and how many belong to no picture of the list.

    Raises `DataError` where none of them belongs to any, or two pictures have one id.
    """
    out: dict[Any, list[dict[str, Any]]] = {}
    for one in data["images"]:
        if one.get("id") in out:
            raise DataError(
                f"{path}: two images have the id {one.get('id')!r}, the second is "
                f"{one.get('file_name')!r}",
                "an id of its own for each image, for annotations name their picture by it",
                "correct the file",
            )
        out[one.get("id")] = []
    strange: list[Any] = []
    for one in data.get("annotations", []):
        if one.get("image_id") in out:
            out[one.get("image_id")].append(one)
        else:
            strange.append(one.get("image_id"))
    if strange and len(strange) == len(data["annotations"]):
        raise DataError(
            f"{path}: no annotation belongs to a picture of the list (image_id {strange[0]!r})",
            f"ids as the list of images has them, such as {next(iter(out), None)!r}",
            "correct the file",
        )
    return out, len(strange)
