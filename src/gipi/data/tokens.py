"""A column of token ids: rows of different lengths, laid end to end, padded batch by batch.

Nothing is padded in storage. A batch is as wide as its longest row, rounded up to a multiple of
`MULTIPLE`; to keep that narrow, the batches of an epoch are made of rows of about one length
(`by_length`). Which rows meet is a pure function of (seed, epoch), whatever the number of ranks,
the micro-batch and the place where the tokens lie.

Shape suffixes: N rows, B rows of a batch, T positions.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch

from gipi.data.cache import ragged_take

if TYPE_CHECKING:
    from torch import Tensor

MULTIPLE = 8  # widths of batches: fewer different shapes, and what products of matrices like
POOL = 50  # batches whose rows are sorted by length together
FEWEST_POOLS = 4  # a small set would else have nearly the same batches in every epoch


@dataclass(frozen=True)
class Tokens:
    """Token ids (or segments) of N rows.

    values   (total,) int32 ids, or uint8 segments, of all rows in order; (total, C) where
             each token has several, such as the letters of a word
    offsets  (N + 1,) int64: row i is values[offsets[i]:offsets[i + 1]]
    pad      the id that stands behind the end of a row
    vocab    number of ids
    """

    values: np.ndarray
    offsets: np.ndarray
    pad: int = 0
    vocab: int = 0

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @cached_property
    def lengths(self) -> np.ndarray:
        """(N,) int64 tokens of each row."""
        return np.diff(self.offsets)

    @property
    def longest(self) -> int:
        """Tokens of the longest row."""
        return int(self.lengths.max(initial=0))

    def take(self, rows: np.ndarray) -> Tokens:
        """Return the tokens of these rows in this order."""
        values, offsets = ragged_take(self.values, self.offsets, rows)
        return Tokens(values, offsets, self.pad, self.vocab)

    def row(self, place: int) -> np.ndarray:
        """Return the tokens of one row."""
        return self.values[self.offsets[place] : self.offsets[place + 1]]


class Padder:
    """The tokens of one split, and how batches are cut out of them.

    place  where the tokens lie; gathering happens there, without a loop over rows. On the host that
           is where they lie already, perhaps mapped from the disk: nothing is copied.
    """

    def __init__(self, tokens: Tokens, ids: np.ndarray, place: torch.device) -> None:
        if place.type != "cpu":
            tokens, ids = tokens.take(ids), np.arange(len(ids))
        self.pad, self.place = tokens.pad, place
        values = tokens.values
        if not len(values):  # nothing but empty rows: all that is read of them is padding
            values = np.full((1, *values.shape[1:]), tokens.pad, dtype=values.dtype)
        self._values = _as_tensor(values).to(place)
        self._starts = torch.from_numpy(tokens.offsets[ids]).to(place)
        self._counts = torch.from_numpy(tokens.lengths[ids]).to(place)

    def cut(self, positions: Tensor, width: int) -> Tensor:
        """Return (B, T) int64 tokens of the rows at `positions`, right-padded to T = `width`.

        (B, T, C) where each token has C values.
        """
        steps = torch.arange(width, device=self.place)
        index_BT = self._starts.index_select(0, positions)[:, None] + steps
        # A row is read to the width of its batch: the last one must not run over the end.
        flat = index_BT.view(-1).clamp_max_(len(self._values) - 1)
        found = self._values.index_select(0, flat)
        found = found.view(*index_BT.shape, *found.shape[1:])
        beyond = steps >= self._counts.index_select(0, positions)[:, None]
        if found.ndim > 2:
            beyond = beyond[..., None]
        return found.long().masked_fill_(beyond, self.pad)


def _as_tensor(values: np.ndarray) -> Tensor:
    """Return the values as a tensor that shares their memory, which is only read."""
    if values.flags.writeable:
        return torch.from_numpy(values)
    with warnings.catch_warnings():  # torch warns of what is mapped for reading alone
        warnings.filterwarnings("ignore", "The given NumPy array is not writ", UserWarning)
        return torch.from_numpy(values)


def width_of(longest: int) -> int:
    """Return the width of a batch whose longest row has this many tokens.

    >>> width_of(0), width_of(8), width_of(9)
    (8, 8, 16)
    """
    return max(1, -(-longest // MULTIPLE)) * MULTIPLE


def widths(order: Tensor, sizes: list[int], lengths: Tensor) -> list[int]:
    """Return the width of consecutive batches of `sizes` rows; `order` are their rows.

    lengths  (N,) tokens of each row
    """
    found = lengths.index_select(0, order).split_with_sizes(sizes)
    return [width_of(int(part.max())) for part in found]


def by_length(
    order: Tensor, lengths: Tensor, batch_size: int, *, generator: torch.Generator
) -> Tensor:
    """Return `order` so that the rows of a batch have about one length, batches in random order.

    order     (N,) int64 rows in random order
    lengths   (N,) int64 tokens of each row, or (N, K) of its K texts

    Rows are cut into pools of `POOL` batches, sorted by width within their pool (rows of one width
    stay in random order; of several texts the last counts first), and the batches are shuffled. The
    rows of a last, smaller batch are drawn from all rows and come last.
    """
    full = len(order) // batch_size * batch_size
    if full <= batch_size:
        return order
    batches = full // batch_size
    pool = max(1, min(POOL, batches // FEWEST_POOLS)) * batch_size
    rows = order[:full]
    width = (lengths.index_select(0, rows) + MULTIPLE - 1) // MULTIPLE
    key = _joined(torch.arange(full) // pool, width)
    together = rows[key.argsort(stable=True)].view(batches, batch_size)
    mixed = together[torch.randperm(batches, generator=generator)]
    return torch.cat([mixed.reshape(-1), order[full:]])


def longest_first(lengths: Tensor) -> Tensor:
    """Return (N,) int64 rows by their lengths (N,) or (N, K), the longest first.

    Of K texts the last counts first: writing takes longer than reading.
    """
    none = torch.zeros(len(lengths), dtype=torch.int64)
    return _joined(none, lengths).argsort(descending=True, stable=True)


def _joined(key: Tensor, numbers: Tensor) -> Tensor:
    """Return keys (N,) that sort by `key`, then by the numbers (N,) or (N, K), the last first."""
    for column in reversed(numbers.view(len(numbers), -1).unbind(1)):
        key = key * (int(column.max()) + 1) + column
    return key
