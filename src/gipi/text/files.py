"""Text files: read strictly as UTF-8, line by line, and what is wrong named with its place.

A byte that is no UTF-8 is an error with its position, its line and a guess at the encoding: text
that is half guessed trains a model on something nobody wrote. Files that end in .gz are unpacked.
"""

from __future__ import annotations

import gzip
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from gipi.core.errors import ConfigError, DataError
from gipi.text.training import train_tokenizer

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from gipi.text.tokenizer import Tokenizer

Unit = Literal["line", "paragraph", "file"]
UNITS = ("line", "paragraph", "file")
_MARKS = {b"\xff\xfe": "UTF-16LE", b"\xfe\xff": "UTF-16BE"}
_GUESSES = ("cp949", "shift_jis", "gb18030", "cp1252")


def read_lines(path: Path) -> Iterator[str]:
    """Yield the lines of a text file, line breaks included, a byte order mark left out.

    Raises `DataError` for a file that cannot be read, and for a byte that is no UTF-8.
    """
    at = 0
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if number == 1 and line[:2] in _MARKS:
                    raise _wrong_encoding(path, 0, 1, line, _MARKS[line[:2]])
                try:
                    text = line.decode("utf-8")
                except UnicodeDecodeError as error:
                    guess = _guess(line)
                    raise _wrong_encoding(path, at + error.start, number, line, guess) from error
                yield text.removeprefix("\ufeff") if number == 1 else text
                at += len(line)
    except (OSError, EOFError) as error:
        raise DataError(
            f"{path} cannot be read ({getattr(error, 'strerror', None) or error})",
            "a text file",
            "check the path and the file",
        ) from error


def read_documents(paths: Iterable[str | Path], *, unit: Unit = "line") -> Iterator[str]:
    """Yield the documents of text files, in order.

    unit  line: each line that is not blank, without its line break; paragraph: lines up to a blank
          one; file: each file whole
    """
    if unit not in UNITS:
        raise ConfigError(f"unit = {unit}", "one of " + ", ".join(UNITS), "use unit='line'")
    for path in paths:
        if unit == "file":
            yield "".join(read_lines(Path(path)))
            continue
        block: list[str] = []
        for line in read_lines(Path(path)):
            if unit == "line":
                if line.strip():
                    yield line.rstrip("\r\n")
            elif line.strip():
                block.append(line)
            elif block:
                yield "".join(block)
                block = []
        if block:
            yield "".join(block)


@dataclass(frozen=True)
class Trained:
    """What training a tokenizer from files gave.

    texts, bytes  lines read and their size in UTF-8
    seconds       wall time of reading and training
    """

    tokenizer: Tokenizer
    path: Path
    texts: int
    bytes: int
    seconds: float


def train_from_files(
    paths: Sequence[str | Path],
    kind: str,
    *,
    vocab: int,
    out: str | Path,
    lowercase: bool | None = None,
    min_count: int | None = None,
) -> Trained:
    """Train a tokenizer on text files and save it.

    paths  UTF-8 text, .gz too; every line is a text, its line break included
    out    a .json file, or a folder
    Everything else as in `train_tokenizer`. Raises its errors, and those of reading and writing.
    """
    seen = [0, 0]

    def lines() -> Iterator[str]:
        for path in paths:
            for line in read_lines(Path(path)):
                seen[0] += 1
                seen[1] += len(line.encode())
                yield line

    began = time.perf_counter()
    trained = train_tokenizer(
        lines(), kind=kind, vocab=vocab, lowercase=lowercase, min_count=min_count
    )
    took = time.perf_counter() - began
    return Trained(trained, trained.save(out), seen[0], seen[1], took)


def _guess(line: bytes) -> str:
    """Return an encoding in which the line is text of one script, as far as that can be told."""
    for name in _GUESSES:
        try:
            line.decode(name)
        except UnicodeDecodeError:
            continue
        return name.upper()
    return ""


def _wrong_encoding(path: Path, at: int, number: int, line: bytes, guess: str) -> DataError:
    byte = line[0] if guess.startswith("UTF-16") else line[_bad(line)]
    do = f"iconv -f {guess} -t UTF-8" if guess else "save the file as UTF-8"
    return DataError(
        f"{path}: byte {at} (line {number}) is 0x{byte:02x}, which is no UTF-8",
        "text files in UTF-8",
        f"convert the file; it may be {guess}: {do}" if guess else do,
    )


def _bad(line: bytes) -> int:
    try:
        line.decode("utf-8")
    except UnicodeDecodeError as error:
        return error.start
    return 0
