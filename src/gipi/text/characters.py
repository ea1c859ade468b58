"""Characters as ids by one look into a table: a text needs no pieces where each letter is a token.

The general way cuts a text into words, looks each up and keeps its place: for single characters
that is far more work than `table[codes]`. The result is the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@dataclass(frozen=True)
class CharacterTable:
    """The id of every code point.

    ids     (highest known code point + 2,) int32; the last place is for everything above
    before  ids put before each text
    after   ids put after each text
    """

    ids: np.ndarray
    before: tuple[int, ...]
    after: tuple[int, ...]

    @staticmethod
    def of(
        vocabulary: Mapping[str, int], unknown: int, *, around: tuple[tuple[int, ...], ...]
    ) -> CharacterTable:
        """Return the table of a vocabulary.

        around  ids before and ids after each text
        """
        known = {ord(token): i for token, i in vocabulary.items() if len(token) == 1}
        ids = np.full(max(known, default=0) + 2, unknown, np.int32)
        ids[list(known)] = list(known.values())
        return CharacterTable(ids, *around)

    def encode(self, texts: Sequence[str], *, special: bool) -> tuple[np.ndarray, np.ndarray]:
        """Return (values (N,) int32, offsets (B + 1,) int64) of texts.

        Raises `UnicodeEncodeError` or `TypeError` for what is no text.
        """
        codes = np.frombuffer("".join(texts).encode("utf-32-le"), np.uint32)
        values = self.ids[np.minimum(codes, len(self.ids) - 1)]
        offsets = np.zeros(len(texts) + 1, np.int64)
        np.cumsum([len(text) for text in texts], out=offsets[1:])
        added = len(self.before) + len(self.after)
        if not special or not added:
            return values, offsets
        ends = [*self.after, *self.before]  # where one text ends, the next begins
        inner = np.repeat(offsets[1:-1], added)
        values = np.insert(values, inner, np.tile(ends, max(len(texts) - 1, 0)))
        if len(texts):
            values = np.concatenate([self.before, values, self.after]).astype(np.int32)
        return values, offsets + added * np.arange(len(offsets))
