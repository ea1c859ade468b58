"""CIFAR-10 from its binary version or from lossless sheets of tiles.

The binary version holds one record of 3,073 bytes a picture: the label, then 32x32 red, green and
blue values (Krizhevsky 2009). The Python version is a pickle and is not read. A folder of sheets
holds six WebP pictures of 100x100 tiles, `labels.csv` (sheet, index, label, filename) and
`classes.txt`.
"""

from __future__ import annotations

import csv
import hashlib
import io
import tarfile
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from gipi.core.errors import DataError
from gipi.data.cache import keep, key_of
from gipi.data.source import TEST, TRAIN, Source
from gipi.data.sources.compressed import find_file, fingerprint_files, read_bytes

if TYPE_CHECKING:
    from pathlib import Path

ARCHIVE = "cifar-10-binary.tar.gz"
RECORD, SIDE = 3073, 32
BINARIES = (*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin")
TILES = 100
CLASSES = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip


def is_cifar_folder(folder: Path) -> bool:
    """Return whether `folder` holds CIFAR-10 in one of the readable forms."""
    return _form(folder) is not None


def _form(folder: Path) -> str | None:
    if (folder / ARCHIVE).is_file():
        return "archive"
    for place in (folder, folder / "cifar-10-batches-bin"):
        if all((place / name).is_file() for name in BINARIES):
            return "binary"
    sheets = find_file(folder, "labels.csv") and (folder / "test.webp").is_file()
    return "sheets" if sheets else None


def read_cifar_folder(folder: Path) -> Source:
    """Return 50,000 training rows, then 10,000 official test rows."""
    form = _form(folder)
    if form == "sheets":
        return _read_sheets(folder)
    if form is None:
        raise DataError(
            f"{folder} does not hold CIFAR-10",
            f"{ARCHIVE}, its unpacked .bin files, or the six sheets with labels.csv.gz",
            "check the folder",
        )
    if form == "archive":
        records, paths = _unpack(folder / ARCHIVE), [folder / ARCHIVE]
    else:
        place = folder if (folder / BINARIES[0]).is_file() else folder / "cifar-10-batches-bin"
        paths = [place / name for name in BINARIES]
        records = {name: (place / name).read_bytes() for name in BINARIES}
    data = np.concatenate([_records(records[n], n, folder) for n in BINARIES])
    images = data[:, 1:].reshape(-1, 3, SIDE, SIDE).transpose(0, 2, 3, 1)
    test_rows = len(records[BINARIES[-1]]) // RECORD
    split = np.full(len(data), TRAIN, np.int8)
    split[len(data) - test_rows :] = TEST
    names = [f"{n}/{i}" for n in BINARIES for i in range(len(records[n]) // RECORD)]
    images = np.ascontiguousarray(images)
    return _source(folder, images=images, codes=data[:, 0], split=split, names=names, paths=paths)


def _records(raw: bytes, name: str, folder: Path) -> np.ndarray:
    if not raw or len(raw) % RECORD:
        raise DataError(
            f"{name} in {folder} has {len(raw):,} bytes",
            f"a multiple of {RECORD:,}, one record a picture",
            "get the file again",
        )
    return np.frombuffer(raw, np.uint8).reshape(-1, RECORD)


def _unpack(path: Path) -> dict[str, bytes]:
    try:
        with tarfile.open(path) as tar:
            found = {m.name.rpartition("/")[2]: m for m in tar.getmembers() if m.isfile()}
            files = {n: tar.extractfile(found[n]) for n in BINARIES if n in found}
            return {n: f.read() for n, f in files.items() if f is not None}
    except (tarfile.TarError, OSError, EOFError) as error:
        raise DataError(
            f"{path} is damaged: {error}", "the whole archive", "delete it and try again"
        ) from error


def _read_sheets(folder: Path) -> Source:
    table = find_file(folder, "labels.csv")
    if table is None:
        raise DataError(f"{folder} has no labels.csv", "the labels", "check the folder")
    rows = list(csv.DictReader(io.StringIO(read_bytes(table).decode())))
    sheets = sorted({row["sheet"] for row in rows}, key=lambda s: (s.startswith("test"), s))
    order = {name: i for i, name in enumerate(sheets)}
    rows.sort(key=lambda r: (order[r["sheet"]], int(r["index"])))
    sums = [hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in sheets]
    images = keep(
        key_of("cifar", *sums),
        lambda: {"x": np.concatenate([_tiles(folder / name) for name in sheets])},
        name="cifar10",
    )["x"]
    position = np.array([order[r["sheet"]] * TILES**2 + int(r["index"]) for r in rows])
    split = np.array([TEST if r["sheet"].startswith("test") else TRAIN for r in rows], np.int8)
    codes = np.array([int(r["label"]) for r in rows])
    if len(position) != len(images) or (position != np.arange(len(images))).any():
        images = images[position]
    names = [r["filename"] for r in rows]
    paths = [table, *(folder / name for name in sheets)]
    return _source(folder, images=images, codes=codes, split=split, names=names, paths=paths)


def _tiles(path: Path) -> np.ndarray:
    side = TILES * SIDE
    try:
        with Image.open(path) as sheet:
            pixels = np.asarray(sheet.convert("RGB"))
    except (OSError, SyntaxError, ValueError) as error:
        raise DataError(
            f"{path} cannot be read: {error}", "a WebP sheet", "get it again"
        ) from error
    if pixels.shape != (side, side, 3):
        raise DataError(f"{path} is {pixels.shape}", f"({side}, {side}, 3)", "get it again")
    grid = pixels.reshape(TILES, SIDE, TILES, SIDE, 3).transpose(0, 2, 1, 3, 4)
    return grid.reshape(-1, SIDE, SIDE, 3)


def _source(
    folder: Path,
    *,
    images: np.ndarray,
    codes: np.ndarray,
    split: np.ndarray,
    names: list[str],
    paths: list[Path],
) -> Source:
    if len(codes) and int(codes.max()) >= len(CLASSES):
        raise DataError(f"{folder} has label {codes.max()}", "labels 0..9", "get the files again")
    fingerprint, of = fingerprint_files(paths, folder)
    return Source(
        name="cifar10",
        columns={"image": images, "label": np.array(CLASSES, dtype=object)[codes]},
        rows=len(codes),
        row_names=names,
        given_split=split,
        target="label",
        task="classify",
        classes={"label": CLASSES},
        schema_hints={"image": "image", "label": "category"},
        fingerprint=fingerprint,
        fingerprint_of=of,
        origin=folder,
    )
