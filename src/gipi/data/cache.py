"""Decoded columns on disk: memory-mapped, shared by runs, checked, and never more than a budget.

One entry is a folder `<key>/` with one file of columns, each beginning at a multiple of 64 bytes,
and `entry.json` (layout, SHA-256 of the columns, name), written last. A folder appears under its
final name in one rename. A lock per key lets one process decode while others wait. A damaged entry
is found by its hash and decoded again. The entries used longest ago make room for new ones.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gipi.core.atomic import digest_file, storage_error, write_file
from gipi.core.errors import StorageError

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

Layout = Mapping[str, tuple[tuple[int, ...], str]]
Fill = Callable[[dict[str, np.ndarray]], None]

ALIGN = 64
FORMAT = 1
_ENTRY, _DATA, _USED = "entry.json", "columns.bin", "used"


def default_folder() -> Path:
    """Return the cache folder: `GIPI_CACHE`, else the platform's place for caches."""
    if os.environ.get("GIPI_CACHE"):
        return Path(os.environ["GIPI_CACHE"])
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local"))
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "gipi"


def key_of(*parts: object) -> str:
    """Return the key of an entry: a hash of content, settings and versions."""
    return hashlib.sha256(repr((FORMAT, *parts)).encode()).hexdigest()[:32]


@dataclass(frozen=True)
class CacheEntry:
    """One entry for people: what it holds, its size, and when it was last used (Unix time)."""

    key: str
    name: str
    bytes: int
    used: float


@dataclass(frozen=True)
class Opened:
    """Columns of an entry, mapped copy-on-write, and what had to be done to get them."""

    columns: dict[str, np.ndarray]
    note: str = ""


def cache_info(folder: Path | None = None) -> list[CacheEntry]:
    """Return the entries of a cache folder, the last used first."""
    root = folder or default_folder()
    found = []
    for path in sorted(root.glob("*")) if root.is_dir() else []:
        meta = _read_meta(path)
        if meta is not None:
            try:
                size = sum(f.stat().st_size for f in path.iterdir())
            except FileNotFoundError:  # another process has just deleted it
                continue
            found.append(CacheEntry(path.name, meta["name"], size, _used(path)))
    return sorted(found, key=lambda e: -e.used)


def clear(folder: Path | None = None, *, keys: Sequence[str] | None = None) -> int:
    """Delete the entries (of these keys) and return the bytes freed."""
    root = folder or default_folder()
    freed = 0
    for entry in cache_info(root):
        if keys is None or entry.key in keys:
            shutil.rmtree(root / entry.key, ignore_errors=True)
            freed += entry.bytes
    if keys is None and root.is_dir():
        for left in root.glob(".*.tmp"):
            shutil.rmtree(left, ignore_errors=True)
    return freed


def ragged(arrays: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Return values laid end to end and (N + 1,) int64 offsets: row i is values[o[i]:o[i + 1]]."""
    offsets = np.zeros(len(arrays) + 1, dtype=np.int64)
    np.cumsum([len(a) for a in arrays], out=offsets[1:])
    values = np.concatenate(arrays) if arrays else np.empty(0, dtype=np.float32)
    return values, offsets


def ragged_take(values: np.ndarray, offsets: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip  # noqa: E501
    """Return the ragged column of these rows in this order, without a loop over rows."""
    lengths = offsets[rows + 1] - offsets[rows]
    out = np.zeros(len(rows) + 1, dtype=np.int64)
    np.cumsum(lengths, out=out[1:])
    index = np.arange(out[-1]) - np.repeat(out[:-1], lengths) + np.repeat(offsets[rows], lengths)
    return values[index], out


@dataclass(frozen=True)
class Cache:
    """A cache folder and the bytes it may take."""

    folder: Path
    budget_bytes: int

    @staticmethod
    def of(folder: Path | None = None, budget_bytes: int | None = None) -> Cache:
        """Return the cache at `folder`; the default budget is a tenth of the free space and it."""
        root = folder or default_folder()
        if budget_bytes is None:
            place = root
            while not place.exists():
                place = place.parent
            held = sum(entry.bytes for entry in cache_info(root))
            budget_bytes = held + shutil.disk_usage(place).free // 10
        return Cache(root, budget_bytes)

    def open(self, key: str, layout: Layout, fill: Fill, *, name: str) -> Opened:
        """Return the columns of `key`, calling `fill` to write them where they are not there.

        layout   column -> (shape, dtype)
        fill     writes into the arrays that it is given; may raise, then nothing remains
        Raises `StorageError` where the folder cannot be written.
        """
        path = self.folder / key
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise storage_error(error, self.folder) from error
        with _lock(self.folder / f".{key}.lock"):
            note = ""
            if path.exists():
                if _intact(path, layout):
                    (path / _USED).touch()
                    return Opened(_map(path, layout))
                shutil.rmtree(path, ignore_errors=True)
                note = f"the cached pixels of {name} were damaged and have been decoded again"
            need = sum(_place(layout)[1].values()) + 4096
            self._make_room(need, keep=key)
            self._write(path, layout, fill, name)
            return Opened(_map(path, layout), note)

    def _make_room(self, need: int, *, keep: str) -> None:
        entries = cache_info(self.folder)
        held = sum(entry.bytes for entry in entries)
        for entry in reversed(entries):
            if held + need <= self.budget_bytes:
                return
            if entry.key != keep:
                shutil.rmtree(self.folder / entry.key, ignore_errors=True)
                held -= entry.bytes

    def _write(self, path: Path, layout: Layout, fill: Fill, name: str) -> None:
        temp = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        shutil.rmtree(temp, ignore_errors=True)
        try:
            temp.mkdir()
            data = temp / _DATA
            total = _total(layout)
            with data.open("wb") as f:
                _reserve(f.fileno(), total)
            columns = _map(temp, layout, mode="r+")
            fill(columns)
            for column in columns.values():
                if isinstance(column, np.memmap):
                    column.flush()
            columns.clear()
            meta = {"name": name, "layout": _plain(layout), "sha256": digest_file(data)}
            write_file(temp / _ENTRY, json.dumps(meta))
            (temp / _USED).touch()
            temp.rename(path)
        except OSError as error:
            shutil.rmtree(temp, ignore_errors=True)
            raise storage_error(error, path) from error
        except BaseException:
            shutil.rmtree(temp, ignore_errors=True)
            raise


def keep(
    key: str, make: Callable[[], dict[str, np.ndarray]], *, name: str, folder: Path | None = None
) -> dict[str, np.ndarray]:
    """Return columns that are slow to make: from the cache, else made and kept there.

    The layout is what the entry says. Where there is no place for a cache they are only made.
    """
    store = Cache.of(folder)
    meta = _read_meta(store.folder / key)
    made: dict[str, np.ndarray] = {}
    try:
        if meta is None:
            made = make()
            layout: Layout = {k: (v.shape, v.dtype.str) for k, v in made.items()}
        else:
            layout = {k: (tuple(shape), dtype) for k, (shape, dtype) in meta["layout"].items()}
        if sum(_place(layout)[1].values()) > store.budget_bytes:
            return made or make()

        def fill(columns: dict[str, np.ndarray]) -> None:
            for column, values in (made or make()).items():
                columns[column][...] = values

        return store.open(key, layout, fill, name=name).columns
    except StorageError:
        return made or make()


def _reserve(fd: int, total: int) -> None:
    """Give a file its size, with the disk space behind it where the system can promise it."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(fd, 0, max(total, 1))  # a full disk is found here, not by SIGBUS later
    else:
        os.truncate(fd, max(total, 1))


def _plain(layout: Layout) -> dict[str, Any]:
    return {name: [list(shape), dtype] for name, (shape, dtype) in layout.items()}


def _place(layout: Layout) -> tuple[dict[str, int], dict[str, int]]:
    """Return the offset and the size in bytes of each column."""
    offsets, sizes, at = {}, {}, 0
    for name, (shape, dtype) in layout.items():
        offsets[name] = at
        sizes[name] = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
        at += -(-sizes[name] // ALIGN) * ALIGN
    return offsets, sizes


def _total(layout: Layout) -> int:
    offsets, sizes = _place(layout)
    return max((offsets[n] + -(-sizes[n] // ALIGN) * ALIGN for n in offsets), default=0)


def _map(path: Path, layout: Layout, mode: str = "c") -> dict[str, np.ndarray]:
    offsets, sizes = _place(layout)
    found: dict[str, np.ndarray] = {}
    for name, (shape, dtype) in layout.items():
        if sizes[name] == 0:
            found[name] = np.empty(shape, dtype)
        else:
            found[name] = np.memmap(path / _DATA, dtype, mode, offsets[name], shape)  # type: ignore[call-overload]
    return found


def _read_meta(path: Path) -> dict[str, Any] | None:
    try:
        meta = json.loads((path / _ENTRY).read_bytes())
    except (OSError, ValueError):
        return None
    if isinstance(meta, dict) and {"name", "layout", "sha256"} <= set(meta):
        return meta
    return None


def _used(path: Path) -> float:
    try:
        return (path / _USED).stat().st_mtime
    except OSError:
        return 0.0


def _intact(path: Path, layout: Layout) -> bool:
    meta = _read_meta(path)
    data = path / _DATA
    if meta is None or meta["layout"] != _plain(layout) or not data.is_file():
        return False
    return data.stat().st_size >= _total(layout) and digest_file(data) == meta["sha256"]


@contextmanager
def _lock(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on `path`, waiting for whoever holds it; freed if the process dies."""
    try:
        handle = path.open("a+b")
    except OSError as error:
        raise storage_error(error, path) from error
    with handle:
        if sys.platform == "win32":
            while True:
                try:
                    handle.seek(0)
                    msvcrt.locking(handle.fileno(), msvcrt.LK_NBLCK, 1)
                    break
                except OSError:
                    time.sleep(0.05)
        else:
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
