"""Small sets of texts that a net learns in a second."""

from __future__ import annotations

import csv
import random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

GOOD = ("lovely", "great", "fine", "superb", "warm", "bright", "happy", "delightful")
BAD = ("awful", "poor", "dull", "broken", "cold", "grim", "sad", "terrible")
FILL = ("the", "a", "of", "this", "film", "book", "and", "was", "it", "plot", "with", "very")


def reviews(rows: int = 200, seed: int = 0) -> list[tuple[str, str]]:
    """Return (text, label): one word of many decides."""
    draw = random.Random(seed)
    found = []
    for i in range(rows):
        words = [draw.choice(FILL) for _ in range(draw.randint(5, 20))]
        words.insert(draw.randrange(len(words)), draw.choice(GOOD if i % 2 else BAD))
        found.append((" ".join(words), "good" if i % 2 else "bad"))
    return found


def write_csv(path: Path, rows: int = 200, header: tuple[str, ...] = ("text", "label")) -> Path:
    """Write the reviews as a table."""
    return write_rows(path, [list(row) for row in reviews(rows)], header)


def write_rows(path: Path, rows: list[list[object]], header: tuple[str, ...]) -> Path:
    """Write any rows as CSV."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)
    return path


def write_folder(root: Path, rows: int = 40, parts: tuple[str, ...] = ()) -> Path:
    """Write the reviews as one file each, in a folder of their class, and of their part."""
    for k, (text, label) in enumerate(reviews(rows)):
        place = root / parts[k // 2 % len(parts)] / label if parts else root / label
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{k:03}.txt").write_text(text + "\n", encoding="utf-8")
    return root
