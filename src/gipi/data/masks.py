"""Masks: one label a pixel, from label pictures, polygons and runs, to class indices.

A file of mode P, L, 1 or I holds labels as they are; RGB is grey saved as colour, or the colours of
a class list. With such a list the palette of P decides where it has these colours, for tools that
save pictures order palettes as they like; and L does where all colours of the list are grey.
Polygons are filled by the rule that a pixel belongs to a shape when its centre lies
inside (even-odd), so that the area is right to half a pixel at the edge. Runs are those of COCO:
lengths of 0s and 1s in turn down the columns, plain or in its text form.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from gipi.core.errors import DataError
from gipi.core.schema import IGNORED
from gipi.data.decode import open_picture
from gipi.data.placement import place, place_mask

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from PIL import Image

    from gipi.data.decode import Decoder
    from gipi.data.source import Annotations, ImageFiles

UNKNOWN = -1
VERSION = 2  # raise it when the same file gives other labels: caches are keyed by it


@dataclass(frozen=True)
class Shape:
    """One drawn object: its label, and polygons (x0, y0, x1, y1, ...) or runs (lengths or text)."""

    label: int
    polygons: tuple[tuple[float, ...], ...] = ()
    runs: tuple[int, ...] | str | None = None


@dataclass(frozen=True)
class Drawing:
    """A mask that is made of shapes, the later ones on top; label 0 where there is none."""

    height: int
    width: int
    shapes: tuple[Shape, ...]


def draw(drawing: Drawing) -> np.ndarray:
    """Return the (H, W) uint8 labels of a drawing; `ValueError` for runs of another size."""
    out = np.zeros((drawing.height, drawing.width), dtype=np.uint8)
    for shape in drawing.shapes:
        if shape.runs is not None:
            inside = _runs(shape.runs, drawing.height, drawing.width)
        else:
            inside = np.zeros(out.shape, dtype=bool)
            for polygon in shape.polygons:
                inside |= fill(np.asarray(polygon, dtype=np.float64).reshape(-1, 2), *out.shape)
        out[inside] = shape.label
    return out


def fill(corners: np.ndarray, height: int, width: int) -> np.ndarray:
    """Return (height, width) bool: pixels whose centre lies in the polygon of (n, 2) corners."""
    toggles = np.zeros((height, width + 1), dtype=np.int32)
    for (x0, y0), (x1, y1) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        if y0 == y1:
            continue
        first = int(np.clip(np.ceil(min(y0, y1) - 0.5), 0, height))
        last = int(np.clip(np.ceil(max(y0, y1) - 0.5), 0, height))
        rows = np.arange(first, last)
        x = x0 + (rows + 0.5 - y0) * (x1 - x0) / (y1 - y0)
        columns = np.clip(np.ceil(x - 0.5), 0, width).astype(np.int64)
        toggles[rows, columns] += 1
    return np.asarray(toggles.cumsum(1)[:, :width] % 2 == 1)


def _runs(runs: Sequence[int] | str, height: int, width: int) -> np.ndarray:
    numbers = _unpack(runs) if isinstance(runs, str) else list(runs)
    if min(numbers, default=0) < 0:
        raise ValueError("runs with a negative length")
    if sum(numbers) != height * width:  # before numpy: numbers may be beyond its 64 bits
        raise ValueError(f"runs of {sum(numbers)} pixels in a picture of {height * width}")
    lengths = np.asarray(numbers, dtype=np.int64)
    flat = np.repeat(np.arange(len(lengths)) % 2 == 1, lengths)
    return np.asarray(flat.reshape(width, height).T)


def _unpack(text: str) -> list[int]:
    """Return the run lengths of COCO's text form: 5 bits a sign, from the third run differences."""
    out: list[int] = []
    at = 0
    while at < len(text):
        value, shift, more = 0, 0, True
        while more:
            if at >= len(text):
                raise ValueError("runs that end in the middle of a number")
            code = ord(text[at]) - 48
            value |= (code & 0x1F) << shift
            more = bool(code & 0x20)
            at += 1
            shift += 5
            if not more and code & 0x10:
                value -= 1 << shift
        out.append(value + (out[-2] if len(out) > 2 else 0))
    return out


def read_mask(item: Path | Drawing, facts: dict[str, Any]) -> np.ndarray:
    """Return the (h, w) uint8 labels of a mask; `ValueError` says why it cannot be read.

    facts   of the `Annotations`: "colours" for RGB masks
    """
    if isinstance(item, Drawing):
        return draw(item)
    try:
        image = open_picture(item, item.name)
    except DataError as error:
        why = error.found.partition("cannot be decoded")[2]
        raise ValueError(
            "the mask is gone"
            if "is gone" in why
            else f"the mask {item.name} cannot be decoded{why}"
        ) from error
    return _labels(image, item.name, facts.get("colours"))


def _labels(image: Image.Image, name: str, colours: Sequence[Sequence[int]] | None) -> np.ndarray:
    if image.mode in ("P", "L", "1"):
        stored = np.asarray(image).astype(np.uint8)
        return stored if colours is None else _by_colour(image, stored, colours)
    if image.mode in ("I", "F") or image.mode.startswith("I;"):
        wide = np.asarray(image)
        odd = wide[~((wide >= 0) & (wide <= 255) & (wide == np.floor(wide)))]
        if odd.size:
            raise ValueError(
                f"the mask {name} has the label {odd.flat[0]}: labels are whole numbers, none "
                "negative, none above 255"
            )
        return wide.astype(np.uint8)
    values = np.asarray(image.convert("L" if image.mode == "LA" else "RGB"))
    if values.ndim == 2:
        return values
    if colours is None:
        if (values == values[..., :1]).all():
            return np.ascontiguousarray(values[..., 0])
        raise ValueError(f"the mask {name} is coloured, and no class list says what colours mean")
    found = _in_list(values, colours)
    strange = found == UNKNOWN
    if strange.any():
        y, x = np.argwhere(strange)[0]
        raise ValueError(f"the mask {name} has a colour of no class: {values[y, x].tolist()}")
    return np.asarray(found.astype(np.uint8))


def _by_colour(
    image: Image.Image, stored: np.ndarray, colours: Sequence[Sequence[int]]
) -> np.ndarray:
    """Return the labels of a palette or grey mask by a list of colours, or as they are stored."""
    if image.mode != "P" and any(len(set(colour)) > 1 for colour in colours):
        return stored
    used = np.unique(stored)
    table = np.zeros((256, 3), dtype=np.int64)
    if image.mode == "P":
        palette = np.array(image.getpalette("RGB"), dtype=np.int64).reshape(-1, 3)
        table[: len(palette)] = palette
    else:
        table[:] = np.arange(256)[:, None] * (255 if image.mode == "1" else 1)
    found = _in_list(table, colours)
    return stored if (found[used] == UNKNOWN).any() else np.asarray(found[stored].astype(np.uint8))


def _in_list(values: np.ndarray, colours: Sequence[Sequence[int]]) -> np.ndarray:
    """Return the position of each colour (..., 3) in the list, `UNKNOWN` where it is not there."""
    packed = values.astype(np.int64) @ np.array([65536, 256, 1])
    known = np.array(colours, dtype=np.int64) @ np.array([65536, 256, 1])
    order = np.argsort(known)
    at = np.clip(np.searchsorted(known[order], packed), 0, len(known) - 1)
    return np.asarray(np.where(known[order[at]] == packed, order[at], UNKNOWN))


def label_table(
    values: Sequence[int], classes: Sequence[str], ignored: Sequence[int], wanted: Sequence[str]
) -> np.ndarray:
    """Return (256,) int16: label -> index in `wanted`, `IGNORED`, or `UNKNOWN`.

    values   the label of each class of `classes`
    wanted   class names in the order of training
    """
    index = {name: i for i, name in enumerate(wanted)}
    table = np.full(256, UNKNOWN, dtype=np.int16)
    for value, name in zip(values, classes, strict=True):
        table[value] = index.get(name, UNKNOWN)
    table[list(ignored)] = IGNORED
    return table


@dataclass(frozen=True)
class MaskFiles:
    """Masks that are read when they are needed: what to read, and how to lay it.

    sizes   (N, 2) height and width of the pictures
    table   (256,) int16 of `label_table`
    """

    annotations: Annotations
    files: ImageFiles
    sizes: np.ndarray
    table: np.ndarray
    decoder: Decoder

    def __len__(self) -> int:
        return len(self.annotations)

    def read(self, row: int) -> np.ndarray:
        """Return the (H, W) uint8 prepared mask of one row."""
        target = (self.decoder.height, self.decoder.width)
        item = self.annotations.items[row]
        if item is None:
            return np.full(target, IGNORED, dtype=np.uint8)
        try:
            labels = read_mask(item, self.annotations.facts)
        except ValueError as error:
            raise DataError(
                f"{self.files.name(row)}: {error}", "a mask for each picture",
                "restore the file, or leave such rows out with bad_rows=skip",
            ) from error  # fmt: skip
        codes = self.table[labels].astype(np.uint8)
        h, w = self.sizes[row].tolist()
        placed = place((h, w), target, self.decoder.fit, crop=self.files.crop(row))
        return place_mask(codes, placed, target, IGNORED)


@dataclass(frozen=True)
class Masks:
    """A column of prepared masks: (N, H, W) uint8 in memory or a map, or still as files."""

    labels: np.ndarray | MaskFiles

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of a mask."""
        if isinstance(self.labels, MaskFiles):
            return self.labels.decoder.height, self.labels.decoder.width
        _, high, wide = self.labels.shape
        return high, wide

    def fetch(self, rows: np.ndarray) -> np.ndarray:
        """Return (n, H, W) uint8 of these rows in this order."""
        if isinstance(self.labels, MaskFiles):
            out = np.empty((len(rows), *self.shape), dtype=np.uint8)
            for i, row in enumerate(rows.tolist()):
                out[i] = self.labels.read(row)
            return out
        return self.labels.take(rows, axis=0)
