"""Plain text files: UTF-8 or a named error, lines that end only where lines end, parts by name."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np

from gipi.core.errors import DataError
from gipi.data.source import TEST, TRAIN, VAL
from gipi.data.sources.compressed import read_bytes, stem_of

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_WORDS = re.compile(r"[a-z]+")
_PARTS = {
    "train": TRAIN, "training": TRAIN, "trn": TRAIN,
    "val": VAL, "valid": VAL, "validation": VAL, "dev": VAL, "development": VAL, "testa": VAL,
    "newsdev": VAL, "test": TEST, "testb": TEST, "tst": TEST, "devtest": TEST, "newstest": TEST,
}  # fmt: skip


def read_text(path: Path) -> str:
    """Return the text of a file, compressed or not; UTF-16 where it begins with that mark.

    Nothing else is guessed: text in another encoding would be learned as rubbish. Raises
    `DataError` with the position of the first byte that is no UTF-8, or of a null byte.
    """
    data = read_bytes(path)
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        try:
            return data.decode("utf-16")
        except UnicodeDecodeError as error:
            raise DataError(
                f"{path} begins as UTF-16 and is none at byte {error.start:,}",
                "whole text",
                "save it as UTF-8",
            ) from error
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # "utf-8-sig" counts from behind the mark, where there is one.
        at = error.start + 3 * data.startswith(b"\xef\xbb\xbf")
        line = data.count(b"\n", 0, at) + 1
        raise DataError(
            f"{path}: byte 0x{data[at]:02X} at position {at:,} (line {line:,}) is not UTF-8",
            "UTF-8 text",
            "convert it, for instance: iconv -f latin1 -t utf-8 (Korean: -f cp949)",
        ) from error
    if "\0" in text:
        at = data.index(b"\0")
        raise DataError(
            f"{path}: a null byte at position {at:,} (line {data.count(bytes([10]), 0, at) + 1:,})",
            "text",
            "remove it, or check that this is a text file",
        )
    return text


def lines_of(path: Path) -> list[str]:
    """Return the lines of a file without their ends (LF or CR LF).

    Other characters that Unicode calls line ends stay within their line: in aligned files they
    would move every line behind them. Raises `DataError` as `read_text`, and for an empty file.
    """
    lines = read_text(path).split("\n")
    if not lines[-1]:
        lines.pop()
    if not lines:
        raise DataError(f"{path} is empty", "at least one line", "check the file")
    return [line.removesuffix("\r") for line in lines]


def part_of(path: Path) -> int | None:
    """Return `TRAIN`, `VAL` or `TEST` where the file's name says it, else None.

    >>> from pathlib import Path
    >>> [part_of(Path(n)) for n in ("eng.testa", "wiki.train.tokens.gz", "latest.txt")]
    [1, 0, None]
    """
    found = {_PARTS[w] for w in _WORDS.findall(f"{stem_of(path)} {path.name}".lower())
             if w in _PARTS}  # fmt: skip
    return found.pop() if len(found) == 1 else None


def split_of(
    paths: Sequence[Path], rows: Sequence[int], *, lenient: bool = False
) -> np.ndarray | None:
    """Return (N,) int8 parts of the rows of these files; None unless each is named, one for train.

    lenient  None as well where some files are named for training and for test, and others are not;
             else `DataError`: rows of a published test must not be split anew

    Without training rows a published split is of no use: the rows are then split as any others.
    """
    parts = [part_of(path) for path in paths]
    if not lenient and is_half_named(paths):
        lone = [path.name for path, part in zip(paths, parts, strict=True) if part is None]
        raise DataError(
            f"{', '.join(lone[:3])}{', ...' if len(lone) > 3 else ''} beside files that are called "
            "train and valid or test",
            "names that say which part each file is",
            "put train, valid or test into its name, or move it elsewhere",
        )
    if None in parts or TRAIN not in parts or len(set(parts)) < 2:
        return None
    return np.repeat(np.array(parts, dtype=np.int8), rows)


def is_half_named(paths: Sequence[Path]) -> bool:
    """Return whether some files are named as training text and as held back, and others as none."""
    parts = {part_of(path) for path in paths}
    return {None, TRAIN} <= parts and len(parts) > 2


def objects(values: Sequence[object]) -> np.ndarray:
    """Return (N,) object array whose items are these values, tuples too."""
    out = np.empty(len(values), dtype=object)
    for i, value in enumerate(values):
        out[i] = value
    return out
