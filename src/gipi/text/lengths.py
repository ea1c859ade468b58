"""Rows that are longer than a model can read: cut where asked for, and the share that is lost told.

Nothing is cut silently: `fit_length` returns how many rows and which share of the tokens went.
Shapes: N tokens, B rows.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from gipi.core.errors import ConfigError

if TYPE_CHECKING:
    from gipi.text.encoded import Encodings


@dataclass(frozen=True)
class Fitted:
    """Rows of at most some length, and what that cost.

    rows   how many rows were cut
    share  share of all tokens that were cut away
    """

    encodings: Encodings
    rows: int
    share: float

    def sentence(self) -> str:
        """Return what happened, for people; "" where nothing was cut."""
        if not self.rows:
            return ""
        return f"{self.rows} of {len(self.encodings)} texts are too long: {self.share:.1%} of all tokens cut"  # fmt: skip  # noqa: E501


def fit_length(
    encodings: Encodings, length: int, *, ends: int = 1, special: tuple[int, ...] = ()
) -> Fitted:
    """Return encodings whose rows have at most `length` tokens.

    ends     tokens that a text has after it and that stay, such as the one [SEP]
    special  ids that are never cut away, for pairs: there the longer of the two texts is cut,
             token by token, until the pair fits
    A single text loses its end, a pair what its longer text has too much. Spans and words are cut
    along. Raises `ConfigError` where the special tokens alone do not fit.
    """
    lengths = np.diff(encodings.offsets)
    long = np.flatnonzero(lengths > length)
    keep = np.ones(len(encodings.values), bool)
    for row in long.tolist():
        a, b = int(encodings.offsets[row]), int(encodings.offsets[row + 1])
        too_many = b - a - length
        if encodings.segments is None:
            if length <= ends:
                raise _too_short(length, ends)
            keep[b - ends - too_many : b - ends] = False
            continue
        body = ~np.isin(encodings.values[a:b], special)
        second = encodings.segments[a:b] == 1
        first_at, second_at = np.flatnonzero(body & ~second), np.flatnonzero(body & second)
        m, n = len(first_at), len(second_at)
        if m + n < too_many:
            raise _too_short(length, b - a - m - n)
        # Take from the longer one until both are equal, then from both in turn.
        left = m + n - too_many
        m_left = min(m, max(left - n, left - left // 2))
        keep[a + first_at[m_left:]] = False
        keep[a + second_at[left - m_left :]] = False
    if not len(long):
        return Fitted(encodings, 0, 0.0)
    offsets = np.zeros_like(encodings.offsets)
    kept_before = np.concatenate([[0], np.cumsum(keep)])
    offsets[:] = kept_before[encodings.offsets]
    cut = replace(
        encodings,
        values=encodings.values[keep],
        offsets=offsets,
        segments=None if encodings.segments is None else encodings.segments[keep],
        spans=None if encodings.spans is None else encodings.spans[keep],
        words=None if encodings.words is None else encodings.words[keep],
    )
    return Fitted(cut, len(long), float(1 - keep.mean()))


def _too_short(length: int, special: int) -> ConfigError:
    return ConfigError(
        f"length = {length}",
        f"more than the {special} special tokens of a row",
        "allow longer rows",
    )
