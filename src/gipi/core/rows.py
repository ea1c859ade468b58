"""Rows: what a run logs, one JSON object a line, appended and never rewritten while it goes on."""

from __future__ import annotations

import json
import math
import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from gipi.core.atomic import storage_error, write_file

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

NONFINITE = "nonfinite"
"""Key of a row under which its non-finite values are named: {"train/loss": "nan"}."""


def plain(value: Any) -> Any:
    """Turn a NumPy or 0-d tensor scalar into a Python number, and a path into text."""
    if hasattr(value, "item"):
        return value.item()
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"a row cannot hold a {type(value).__name__}")


def _mark(value: Any) -> Any:
    """Return `value` with every non-finite number as null, named under `NONFINITE` beside it."""
    if isinstance(value, dict):
        out: dict[str, Any] = {}
        marks: dict[str, str] = {}
        for key, raw in value.items():
            item = raw.item() if hasattr(raw, "item") else raw
            if isinstance(item, float) and not math.isfinite(item):
                out[key], marks[key] = None, str(item)
            else:
                out[key] = _mark(item)
        return {**out, NONFINITE: marks} if marks else out
    if isinstance(value, (list, tuple)):
        items = (v.item() if hasattr(v, "item") else v for v in value)
        return [str(v) if isinstance(v, float) and v - v != 0 else _mark(v) for v in items]
    return value


def _unmark(row: Any) -> Any:
    """Undo `_mark`: the named nulls become nan, inf or -inf again."""
    if not isinstance(row, dict):
        return row
    marks = row.pop(NONFINITE, {})
    out = {key: _unmark(value) for key, value in row.items()}
    if isinstance(marks, dict):
        out.update((k, float(v)) for k, v in marks.items() if v in ("nan", "inf", "-inf"))
    return out


_ENCODE = json.JSONEncoder(allow_nan=False, separators=(",", ":"), default=plain).encode


def encode_row(row: Mapping[str, Any]) -> bytes:
    """Return one line of rows.jsonl. Non-finite numbers stay visible: null plus their name."""
    try:
        text = _ENCODE(row)
    except ValueError:
        text = _ENCODE(_mark(dict(row)))
    return text.encode() + b"\n"


class Rows:
    """The append-only writer of rows.jsonl: one write a row, to the disk only with `sync`.

    A line torn by a crash of an earlier process is dropped when the file is opened; a line torn
    by a full disk is taken back before the `StorageError` is raised.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
            self._size = _whole_lines(self._fd)
            os.ftruncate(self._fd, self._size)
        except OSError as error:
            raise storage_error(error, path) from error

    def write(self, row: Mapping[str, Any]) -> None:
        """Append one row. Raises `StorageError`; the file then ends as before the call."""
        line = encode_row(row)
        try:
            written = os.write(self._fd, line)
            while written < len(line):  # a nearly full disk writes a part and then says so
                written += os.write(self._fd, line[written:])
        except OSError as error:
            with suppress(OSError):
                os.ftruncate(self._fd, self._size)
            raise storage_error(error, self.path) from error
        self._size += len(line)

    def sync(self) -> None:
        """Flush the rows to the disk; called where a checkpoint refers to them."""
        try:
            os.fsync(self._fd)
        except OSError as error:
            raise storage_error(error, self.path) from error

    def close(self) -> None:
        """Close the file; a second call does nothing."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _whole_lines(fd: int) -> int:
    """Return the size of the file up to and including its last line break."""
    end = os.fstat(fd).st_size
    while end:
        start = max(0, end - 65536)
        os.lseek(fd, start, os.SEEK_SET)
        at = os.read(fd, end - start).rfind(b"\n")
        if at >= 0:
            return start + at + 1
        end = start
    return 0


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a run; none where the file does not exist yet.

    A torn last line is the trace of a crash and is passed over. Any other line that cannot be read
    becomes a row {"step", "event": "damaged row", "reason"}: it is neither fatal nor hidden.
    """
    rows: list[dict[str, Any]] = []
    for number, row, _ in _lines(path):
        if row is None:
            step = rows[-1].get("step", 0) if rows else 0
            reason = f"line {number} of {path.name} cannot be read"
            rows.append({"step": step, "event": "damaged row", "reason": reason})
        else:
            rows.append(_unmark(row))
    return rows


def truncate_rows(path: Path, step: int) -> int:
    """Drop every row after `step` in one step (for a resumed run); return how many were dropped."""
    kept, dropped = [], 0
    for _, row, line in _lines(path):
        if row is not None and _step(row) > step:
            dropped += 1
        else:
            kept.append(line)
    if path.exists():
        write_file(path, b"".join(kept))
    return dropped


def _step(row: dict[str, Any]) -> float:
    value = row.get("step", 0)
    return value if isinstance(value, (int, float)) else 0


def _lines(path: Path) -> Iterator[tuple[int, dict[str, Any] | None, bytes]]:
    """Yield (line number, row or None when unreadable, bytes) of every complete line."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return
    except OSError as error:
        raise storage_error(error, path) from error
    for number, line in enumerate(data.split(b"\n")[:-1], 1):  # what follows the last is torn
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        yield number, row if isinstance(row, dict) else None, line + b"\n"
