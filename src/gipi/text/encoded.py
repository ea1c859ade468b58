"""What comes out of a tokenizer: the tokens of one text, or of many as one ragged array.

Shapes: T tokens of one text, N tokens of a whole batch, B texts.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np

from gipi.core.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator


@dataclass(frozen=True)
class Encoded:
    """One text, or a pair of texts, as tokens.

    ids           (T,) int32
    offsets       (T, 2) int32, token t covers the characters [a, b) of its text; (0, 0) where the
                  token was added
    segments      (T,) int32, 0 for the first text and 1 for the second
    special_mask  (T,) bool, true where the token was added and stands for no character
    words         (T,) int32, number of the word a token belongs to, -1 where it was added
    """

    ids: np.ndarray
    offsets: np.ndarray
    segments: np.ndarray
    special_mask: np.ndarray
    words: np.ndarray

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class Encodings:
    """B texts as one ragged array: the tokens of row i are `values[offsets[i] : offsets[i + 1]]`.

    values    (N,) int32
    offsets   (B + 1,) int64
    segments  (N,) int32 where there were pairs, else None
    spans     (N, 2) int32 characters [a, b) of each token, where asked for, else None
    words     (N,) int32 word of each token, -1 where it was added, where asked for, else None
    """

    values: np.ndarray
    offsets: np.ndarray
    segments: np.ndarray | None = None
    spans: np.ndarray | None = None
    words: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, row: int) -> np.ndarray:
        if not -len(self) <= row < len(self):
            raise IndexError(row)
        row %= len(self)
        return self.values[self.offsets[row] : self.offsets[row + 1]]

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self[row] for row in range(len(self)))


def check_texts(texts: Iterable[Any], *, first_row: int = 0, what: str = "row") -> None:
    """Raise the `DataError` of the first row that is no text, naming it."""
    for row, text in enumerate(texts, first_row):
        if not isinstance(text, str):
            raise DataError(
                f"{what} {row} is {text!r:.60} ({type(text).__name__})",
                "a text in every row",
                "drop the row, or write an empty text",
            )
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise DataError(
                f"{what} {row} holds half of a surrogate pair, {text[error.start]!r} at character "
                f"{error.start}",
                "Unicode text",
                "decode the file as UTF-8, or drop the character",
            ) from error


def flat(rows: Iterable[Iterable[Any]]) -> np.ndarray:
    """Return the numbers of all rows end to end, int32."""
    return np.fromiter(chain.from_iterable(rows), np.int32)


def joined(parts: list[np.ndarray]) -> np.ndarray:
    """Return arrays end to end, an empty int32 one where there are none."""
    return np.concatenate(parts) if parts else np.empty(0, np.int32)
