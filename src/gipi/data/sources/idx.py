"""IDX files, the format of MNIST: a magic number, the sizes, then unsigned bytes.

Layout (big endian): 0x00 0x00 type dimensions, one uint32 per dimension, the values in C order.
Type 0x08 is uint8, the only one that the image sets use (LeCun, Cortes and Burges 1998).
"""

from __future__ import annotations

import hashlib
import struct
from typing import TYPE_CHECKING

import numpy as np

from gipi.core.errors import DataError
from gipi.data.cache import keep, key_of
from gipi.data.source import TEST, TRAIN, Source
from gipi.data.sources.compressed import find_file, fingerprint_files, read_bytes

if TYPE_CHECKING:
    from pathlib import Path

UINT8 = 0x08
PARTS = (("train", "train", TRAIN), ("t10k", "test", TEST))


def read_idx(path: Path) -> np.ndarray:
    """Return the uint8 array in one IDX file, compressed or not."""
    data = read_bytes(path)
    try:
        zeros, kind, dims = struct.unpack_from(">HBB", data)
        shape = struct.unpack_from(f">{dims}I", data, 4)
    except struct.error as error:
        raise _damaged(path, "it ends within its header") from error
    if zeros != 0 or kind != UINT8:
        raise _damaged(path, "its first bytes are not those of an IDX file of unsigned bytes")
    start, size = 4 + 4 * dims, int(np.prod(shape))
    if len(data) - start != size:
        raise _damaged(path, f"{len(data) - start:,} bytes of values where {size:,} belong")
    return np.frombuffer(data, np.uint8, offset=start).reshape(shape)


def _kept(path: Path) -> np.ndarray:
    """Return the pictures of an IDX file; those of .xz and .bz2 are unpacked once, to the cache.

    LZMA takes a second for 60,000 small pictures; the check of the cached bytes a twentieth of it.
    """
    if path.suffix not in (".xz", ".bz2"):
        return read_idx(path)
    raw = hashlib.sha256(path.read_bytes()).hexdigest()
    return keep(key_of("idx", raw), lambda: {"x": read_idx(path)}, name=path.name)["x"]


def _damaged(path: Path, why: str) -> DataError:
    return DataError(f"{path} is damaged: {why}", "a whole IDX file", "get the file again")


def _file(folder: Path, prefix: str, what: str) -> Path | None:
    name = f"{prefix}-{'images-idx3' if what == 'images' else 'labels-idx1'}-ubyte"
    dotted = name.replace("-idx", ".idx")  # some copies are called train-images.idx3-ubyte
    return find_file(folder, name) or find_file(folder, dotted)


def is_idx_folder(folder: Path) -> bool:
    """Return whether `folder` holds the four files of an MNIST-like set."""
    return all(_file(folder, p, w) for p, _, _ in PARTS for w in ("images", "labels"))


def read_idx_folder(folder: Path, name: str, classes: tuple[str, ...]) -> Source:
    """Return the training rows, then the official test rows, of an MNIST-like folder.

    classes  names of the labels 0, 1, ...; empty: the numbers themselves
    """
    images, labels, split, paths = [], [], [], []
    for prefix, _, part in PARTS:
        files = [_file(folder, prefix, w) for w in ("images", "labels")]
        if files[0] is None or files[1] is None:
            raise DataError(
                f"{folder} has no {prefix}-images-idx3-ubyte and {prefix}-labels-idx1-ubyte",
                "the four files of an MNIST-like set (as they are, .gz or .xz)",
                "check the folder",
            )
        x, y = _kept(files[0]), read_idx(files[1])
        if x.ndim != 3 or y.ndim != 1 or len(x) != len(y):
            raise _damaged(files[0], f"{x.shape} pictures and {y.shape} labels do not belong")
        paths += [files[0], files[1]]
        images.append(x)
        labels.append(y)
        split.append(np.full(len(y), part, np.int8))
    codes = np.concatenate(labels)
    if not classes:
        classes = tuple(str(i) for i in range(int(codes.max()) + 1))
    if codes.max() >= len(classes):
        raise _damaged(paths[1], f"label {codes.max()} where 0..{len(classes) - 1} belong")
    fingerprint, of = fingerprint_files(paths, folder)
    return Source(
        name=name,
        columns={
            "image": np.concatenate(images)[..., None],
            "label": np.array(classes, dtype=object)[codes],
        },
        rows=len(codes),
        parts=tuple((word, len(y)) for (_, word, _), y in zip(PARTS, labels, strict=True)),
        given_split=np.concatenate(split),
        target="label",
        task="classify",
        classes={"label": classes},
        schema_hints={"image": "image", "label": "category"},
        fingerprint=fingerprint,
        fingerprint_of=of,
        origin=folder,
    )
