"""Which tokens go into which row: three samplers, each a pure function of (seed, epoch).

    random_windows   anywhere in the corpus, as often as asked: the language model's usual diet
    pack_documents   whole documents side by side in rows, as little padding as possible
    streams          row b goes on in step t + 1 where it ended in step t, for a carried state

None of them reads a token; they return places, and `rows_at` and `fill` then copy. Nothing depends
on who asks, so workers and ranks agree, and a run that is resumed goes on with the same rows.
Shapes: N tokens, B rows, T tokens of a row, S steps.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from gipi.core.errors import ConfigError, DataError
from gipi.core.seed import derive

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


def generator(seed: int, purpose: str, epoch: int) -> np.random.Generator:
    """Return the random numbers of one purpose in one epoch."""
    return np.random.Generator(np.random.Philox(key=derive(seed, purpose, epoch)))


# ------------------------------------------------------------------------ random windows


def random_windows(total: int, length: int, *, number: int, seed: int, epoch: int) -> np.ndarray:
    """Return (number,) int64 starts of windows of `length` tokens, each place equally likely.

    total  tokens of the corpus
    Ask for length + 1 where the targets are the inputs moved by one. Raises `DataError` where the
    corpus is shorter than a window.
    """
    _check_total(total, length)
    return generator(seed, "windows", epoch).integers(0, total - length + 1, number)


def rows_at(tokens: np.ndarray, starts: ArrayLike, length: int) -> np.ndarray:
    """Return (B, length) int64: the tokens from each start on."""
    at = np.asarray(starts, np.int64)[:, None] + np.arange(length)
    rows: np.ndarray = tokens[at]
    return rows.astype(np.int64)


# ------------------------------------------------------------------------ documents


@dataclass(frozen=True)
class Packing:
    """M pieces of documents and where they lie in the rows, row after row and from the left.

    start, length  (M,) int64 of each piece in the corpus
    row, column    (M,) int64 where it lies
    rows           number of rows
    width          T
    """

    start: np.ndarray
    length: np.ndarray
    row: np.ndarray
    column: np.ndarray
    rows: int
    width: int

    @property
    def padding(self) -> float:
        """Share of the places in all rows that hold no token."""
        return 1.0 - float(self.length.sum()) / (self.rows * self.width) if self.rows else 0.0


def pack_documents(
    offsets: np.ndarray, length: int, *, seed: int, epoch: int, shuffle: bool = True
) -> Packing:
    """Lay whole documents side by side into rows of `length`; every token is used exactly once.

    offsets  (D + 1,) int64 where documents begin
    A document longer than a row is cut into rows. The pieces are laid longest first into the row
    that they fill best (best-fit decreasing: Johnson 1973, "Near-optimal bin packing algorithms");
    chance decides among equals and about the order of rows.
    """
    _check_length(length)
    start, size = _cut(np.asarray(offsets, np.int64), length)
    random = generator(seed, "pack", epoch)
    order = random.permutation(len(start)) if shuffle else np.arange(len(start))
    order = order[np.argsort(-size[order], kind="stable")]
    row, column = np.zeros(len(start), np.int64), np.zeros(len(start), np.int64)
    room: dict[int, list[int]] = {}  # free places -> rows that have as many
    sizes: list[int] = []
    rows = 0
    for piece in order.tolist():
        need = int(size[piece])
        at = bisect_left(sizes, need)
        if at == len(sizes):
            left, into = length, rows
            rows += 1
        else:
            left = sizes[at]
            into = room[left].pop()
            if not room[left]:
                del room[left], sizes[at]
        row[piece], column[piece] = into, length - left
        if left - need:
            if left - need not in room:
                insort(sizes, left - need)
            room.setdefault(left - need, []).append(into)
    if shuffle:
        row = random.permutation(rows)[row]
    place = np.lexsort((column, row))
    return Packing(start[place], size[place], row[place], column[place], rows, length)


def _cut(offsets: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Return starts and lengths of pieces of at most `length` tokens; empty documents have none."""
    sizes = np.diff(offsets)
    pieces = -(-sizes // length)
    of = np.repeat(np.arange(len(sizes)), pieces)
    number = np.arange(len(of)) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    start = offsets[of] + number * length
    return start, np.minimum(length, offsets[of + 1] - start) if len(of) else start


def fill(
    tokens: np.ndarray, packing: Packing, *, rows: ArrayLike, pad: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the packed rows: ids, document numbers and positions, each (B, T) int64.

    rows       which rows
    documents  1, 2, ... in a row, 0 where there is padding: tokens may look only at their own
    positions  place in the piece, from 0
    """
    wanted = np.asarray(rows, np.int64)
    ids = np.full((len(wanted), packing.width), pad, np.int64)
    documents, positions = np.zeros_like(ids), np.zeros_like(ids)
    first = np.searchsorted(packing.row, wanted)
    last = np.searchsorted(packing.row, wanted, side="right")
    for b, (low, high) in enumerate(zip(first.tolist(), last.tolist(), strict=True)):
        for number, piece in enumerate(range(low, high), 1):
            a, n, c = packing.start[piece], packing.length[piece], packing.column[piece]
            ids[b, c : c + n] = tokens[a : a + n]
            documents[b, c : c + n] = number
            positions[b, c : c + n] = np.arange(n)
    return ids, documents, positions


# ------------------------------------------------------------------------ streams


def streams(total: int, length: int, *, rows: int, seed: int, epoch: int) -> np.ndarray:
    """Return (S, B) int64 starts: row b of step t + 1 begins where row b of step t ended.

    total  tokens of the corpus
    rows   B, the corpus is cut into as many streams of the same length
    A window read at a start may have length + 1 tokens, for targets that are moved by one. Each
    epoch begins a little later, by less than `length` tokens, so that windows do not always end at
    the same place. What does not fill a step is left out: at most B·(2·length) tokens.
    """
    _check_total(total, rows * length + 1)
    shift = int(generator(seed, "streams", epoch).integers(0, length))
    shift = min(shift, total - rows * length - 1)
    steps = (total - shift - 1) // rows // length
    begin = shift + np.arange(rows, dtype=np.int64) * (steps * length)
    return begin[None, :] + np.arange(steps, dtype=np.int64)[:, None] * length


# ------------------------------------------------------------------------ errors


def _check_total(total: int, length: int) -> None:
    _check_length(length)
    if total < length:
        raise DataError(
            f"a corpus of {total} tokens",
            f"at least {length} tokens for one batch",
            "give more text, or choose a shorter length or fewer rows",
        )


def _check_length(length: int) -> None:
    if length < 1:
        raise ConfigError(f"length = {length}", "1 or more", "choose a larger length")
