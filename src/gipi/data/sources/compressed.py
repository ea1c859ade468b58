"""Bytes of files that may be compressed: .gz, .xz and .bz2 are read as if they were not."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import lzma
import zlib
from typing import TYPE_CHECKING

from gipi.core.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path

SUFFIXES = {".gz": gzip.decompress, ".xz": lzma.decompress, ".bz2": bz2.decompress}
WHOLE_FILE = 1 << 30  # larger files are recognised by path, size and time instead of contents
QUICK_BYTES, QUICK_FILES = 256 << 20, 10_000  # pictures whose contents are read in under a second


def kind_of(path: Path) -> str:
    """Return the suffix that says what is inside, lower case: ".csv" for "A.CSV.gz"."""
    if path.suffix.lower() in SUFFIXES:
        path = path.with_suffix("")
    return path.suffix.lower()


def stem_of(path: Path) -> str:
    """Return the name without the suffixes of format and compression."""
    if path.suffix.lower() in SUFFIXES:
        path = path.with_suffix("")
    return path.stem


def read_raw(path: Path) -> bytes:
    """Return the bytes of the file as they lie on the disk; raise `DataError` with the reason."""
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist", "a file", "check the path") from error
    except IsADirectoryError as error:
        raise DataError(f"{path} is a folder", "a file", "name a file in it") from error
    except OSError as error:
        raise DataError(
            f"{path} cannot be read: {error.strerror or error}",
            "a file that this user may read",
            "check its permissions",
        ) from error


def decompress(raw: bytes, path: Path) -> bytes:
    """Return `raw` decompressed as the suffix of `path` says."""
    inflate = SUFFIXES.get(path.suffix.lower())
    if inflate is None:
        return raw
    try:
        return inflate(raw)
    except (OSError, EOFError, zlib.error, lzma.LZMAError, ValueError) as error:
        raise DataError(
            f"{path} is damaged or not a {path.suffix} file ({error})",
            f"a whole {path.suffix} file",
            "get the file again",
        ) from error


def read_bytes(path: Path) -> bytes:
    """Return the decompressed bytes of a file."""
    return decompress(read_raw(path), path)


def read_head(path: Path, size: int) -> bytes:
    """Return the first bytes of a file, decompressed; b"" where it cannot be read."""
    try:
        if path.suffix.lower() in SUFFIXES:
            return read_bytes(path)[:size]
        with path.open("rb") as file:
            return file.read(size)
    except (OSError, DataError):
        return b""


def find_file(folder: Path, name: str) -> Path | None:
    """Return `folder/name`, compressed or not, or None where it is not there."""
    for suffix in ("", *SUFFIXES):
        path = folder / (name + suffix)
        if path.is_file():
            return path
    return None


def fingerprint_files(paths: list[Path], root: Path, *, quick: bool = False) -> tuple[str, str]:
    """Return (SHA-256, what of): contents, or paths, sizes and times where there is over 1 GB.

    quick   contents only where they are read in under a second: folders of many pictures
    Raises `DataError` for a file that is not there or may not be read.
    """
    try:
        return _fingerprint(paths, root, QUICK_BYTES if quick else WHOLE_FILE, quick=quick)
    except OSError as error:
        raise DataError(
            f"{error.filename} cannot be read: {error.strerror or error}",
            "files that this user may read", "check them and their permissions",
        ) from error  # fmt: skip


def _fingerprint(paths: list[Path], root: Path, most: int, *, quick: bool) -> tuple[str, str]:
    sizes = [path.stat() for path in paths]
    total = hashlib.sha256()
    whole = sum(s.st_size for s in sizes) <= most and not (quick and len(paths) > QUICK_FILES)
    for path, stat in zip(paths, sizes, strict=True):
        name = path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name
        total.update(repr((name, stat.st_size)).encode())
        if whole:
            total.update(hashlib.sha256(path.read_bytes()).digest())
        else:
            total.update(str(stat.st_mtime_ns).encode())
    return total.hexdigest(), "contents" if whole else "paths, sizes and times"
