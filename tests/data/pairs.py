"""Small sets of pairs: lines of number words, and the same lines backwards."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from gipi.data import DataOptions, Dataset, open_data

if TYPE_CHECKING:
    from pathlib import Path

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def lines(rows: int, *, seed: int = 0, most: int = 6) -> list[tuple[str, str]]:
    """Return (line, the same words backwards), all lines different."""
    draw, found = random.Random(seed), {}
    while len(found) < rows:
        words = [draw.choice(WORDS) for _ in range(draw.randint(1, most))]
        found[" ".join(words)] = " ".join(reversed(words))
    return list(found.items())


def write_parallel(folder: Path, rows: dict[str, int], languages: tuple[str, str]) -> Path:
    """Write NAME.LANGUAGE for each part, two files whose lines belong together."""
    folder.mkdir(parents=True, exist_ok=True)
    pairs = lines(sum(rows.values()))
    start = 0
    for name, count in rows.items():
        part = pairs[start : start + count]
        start += count
        for k, language in enumerate(languages):
            text = "".join(f"{pair[k]}\n" for pair in part)
            (folder / f"{name}.{language}").write_text(text, encoding="utf-8")
    return folder


def write_table(path: Path, pairs: list[tuple[str, str]], header: tuple[str, str]) -> Path:
    """Write pairs with a tab between, under a header."""
    text = "".join(f"{a}\t{b}\n" for a, b in [header, *pairs])
    path.write_text(text, encoding="utf-8")
    return path


def dataset(rows: int = 60, *, most: int = 6, **options: object) -> Dataset:
    """Return pairs as a data set, in memory."""
    pairs = lines(rows, most=most)
    table = {"said": [a for a, _ in pairs], "back": [b for _, b in pairs]}
    chosen = DataOptions(task="translate", target="back", tokenizer="word", **options)  # type: ignore[arg-type]
    return open_data(table, chosen)
