"""Lists of class names beside masks: one name a line, with a number or a colour where wished.

    classes.txt, labels.txt, label_names.txt, class_names.txt, labelmap.txt, label_colors.txt, info,
    class_dict.csv

    road                 line number from 0 is the label
    7 road               the number is the label
    road 128 64 128      red, green, blue of coloured masks; also "128 64 128 road", with commas,
    road:128,64,128::    tabs or colons between
A class called void (or unlabelled, unlabeled, ignore, don't care) counts nowhere.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from gipi.core.errors import DataError
from gipi.core.schema import IGNORED

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

FILES = (
    "classes.txt", "labels.txt", "label_names.txt", "class_names.txt", "labelmap.txt",
    "label_colors.txt", "info.txt", "info", "class_dict.csv", "classes.csv",
)  # fmt: skip
NOWHERE = {"void", "unlabelled", "unlabeled", "ignore", "ignored", "dontcare"}
_HEADER = {"name", "class", "label", "r", "g", "b", "id"}


def find_list(folders: Sequence[Path]) -> Path | None:
    """Return the first class list in these folders, None where there is none."""
    return next((f / n for f in folders for n in FILES if (f / n).is_file()), None)


def read_list(path: Path) -> tuple[tuple[str, ...], dict[str, Any]]:
    """Return class names and the facts of `Annotations`: values, ignored and colours.

    Raises `DataError` naming the line that cannot be read or repeats a name.
    """
    names: list[str] = []
    values: list[int] = []
    colours: list[list[int]] = []
    for number, line in enumerate(path.read_text("utf-8-sig", errors="replace").split("\n"), 1):
        text = line.strip()
        if not text or text.startswith(("#", "//")):
            continue
        parts = [p for p in re.split(r"[,;:\t]+|\s+(?=\d+(?:\s|$))|(?<=\d)\s+", text) if p.strip()]
        parts = [p.strip() for p in parts]
        words = [p for p in parts if not p.isdecimal()]
        numbers = [int(p) for p in parts if p.isdecimal()]
        if words and all(w.lower() in _HEADER for w in words) and len(words) > 1:
            continue
        name = " ".join(words) if words else text
        if name in names or len(numbers) not in (0, 1, 3, 4):
            raise DataError(
                f"{path.name} line {number}: {text!r}",
                "one class a line: a name, and a number or a colour (r g b) where wished",
                "correct the class list",
            )
        values.append(numbers[0] if words and len(numbers) in (1, 4) else len(names))
        if len(numbers) >= 3:
            colours.append(numbers[-3:])
        names.append(name)
    if not names:
        raise DataError(f"{path} has no class", "one class name a line", "fill the list")
    return _facts(path, names, values, colours)


def _facts(
    path: Path, names: list[str], values: list[int], colours: list[list[int]]
) -> tuple[tuple[str, ...], dict[str, Any]]:
    if len(set(values)) < len(values) or max(values) > IGNORED:
        raise DataError(
            f"{path.name} gives two classes one label, or one above 255",
            "different labels from 0 to 255", "correct the class list",
        )  # fmt: skip
    if colours and len(colours) != len(names):
        raise DataError(
            f"{path.name} has colours for {len(colours)} of {len(names)} classes",
            "a colour for every class, or for none", "correct the class list",
        )  # fmt: skip
    again = [c for at, c in enumerate(colours) if c in colours[:at] or max(c) > IGNORED]
    if again:
        raise DataError(
            f"{path.name} gives two classes one colour, or one above 255: {again[0]}",
            "different colours of 0 to 255 each", "correct the class list",
        )  # fmt: skip
    if colours:
        values = list(range(len(names)))  # a coloured mask is read as positions in the list
    return without_void(tuple(names), values, colours=colours)


def without_void(
    names: Sequence[str], values: Sequence[int], *, colours: Sequence[Sequence[int]] = ()
) -> tuple[tuple[str, ...], dict[str, Any]]:
    """Return the names that count, and facts in which void classes and 255 are ignored.

    >>> without_void(("sky", "void", "car"), (0, 1, 2))
    (('sky', 'car'), {'values': [0, 2], 'ignored': [1, 255]})
    """
    nowhere = [re.sub(r"[^a-z]", "", n.lower()) in NOWHERE for n in names]
    kept = [i for i, out in enumerate(nowhere) if not out]
    ignored = sorted({*(v for v, out in zip(values, nowhere, strict=True) if out)})
    if IGNORED not in values:
        ignored.append(IGNORED)
    facts: dict[str, Any] = {"values": [values[i] for i in kept], "ignored": ignored}
    if colours:
        facts["colours"] = [list(c) for c in colours]
    return tuple(names[i] for i in kept), facts
