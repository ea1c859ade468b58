"""The stream of a language model: windows of running text, their targets one token further.

In training a window begins anywhere, each place equally likely: epoch e draws as many windows as
the text has, from a generator of (seed, e), so that every token is seen once an epoch on average.
In evaluation the windows lie side by side and every token but the first is predicted once.
Rank r of w takes windows n·r//w .. n·(r+1)//w of each step, as everywhere.

For a net that remembers, the windows of a step go on where those of the step before ended: the
text is cut into B long stretches that are read beside each other. Each epoch of training begins a
little later than the others (`gipi.text.streams`); in evaluation nothing is left out.

B windows of a step, T tokens of a window.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from gipi.core.batch import Batch
from gipi.core.errors import ConfigError
from gipi.core.schema import IGNORED_TOKEN
from gipi.text.packing import random_windows, streams

if TYPE_CHECKING:
    from collections.abc import Iterator

CHUNK_TOKENS = 1 << 16  # read at once: several steps of a small model, one of a large one
STRETCH = 16  # windows of a stretch in evaluation, at least: fewer would hardly be a memory


@dataclass(frozen=True)
class Running:
    """All parts as one row of tokens.

    tokens  (N,) uint16 or uint32, memory-mapped where they are many
    spans   part -> [a, b) of the tokens
    length  T, tokens of a window
    pad     id behind the end of a last window
    vocab   number of ids
    """

    tokens: np.ndarray
    spans: dict[str, tuple[int, int]]
    length: int
    pad: int
    vocab: int

    def windows(self, part: str) -> int:
        """Return in how many windows a part is read once, the last of them perhaps shorter."""
        a, b = self.spans[part]
        return -(-(b - a - 1) // self.length)

    @property
    def splits(self) -> dict[str, np.ndarray]:
        """Part -> numbers of its windows."""
        return {k: np.arange(self.windows(k), dtype=np.int64) for k in self.spans}


class WindowStream:
    """Batches of one part of a running text (a `core.batch.Stream`).

    rows, batch_size, steps   of one epoch, over all ranks; in training all steps are full
    inputs {"tokens": (B, T) int64}, target (B, T) int64; ids (B,) where the windows begin
    seconds_waiting           time spent reading so far
    places                    with `carry`: stretches that are read beside each other, else 0; the
                              inputs are then also "place" (B,) int64, the number of its stretch,
                              and "fresh" (B,) bool, whether nothing came before
    """

    weighted = False
    mode, mode_reason = "mapped", "windows are cut out of one row of tokens"

    def __init__(
        self, running: Running, part: str, *, batch_size: int | str, seed: int = 0,
        shuffle: bool = True, device: torch.device | str = "cpu", rank: int = 0, world: int = 1,
        carry: bool = False,
    ) -> None:  # fmt: skip
        if not 0 <= rank < world:
            raise ConfigError(f"rank {rank} of {world}", "a rank from 0 to world-1", "correct it")
        self._running = running
        self._begin, end = running.spans[part]
        self._tokens = running.tokens[self._begin : end]
        self.length = running.length
        windows, T = running.windows(part), running.length
        most = windows
        if carry:
            most = max(1, (len(self._tokens) - 1) // T if shuffle else windows // STRETCH)
        self.batch_size = _batch_size(batch_size, most)
        self.places = self.batch_size if carry else 0
        self.shuffle = shuffle
        full = (len(self._tokens) - T) // T if carry else windows  # wherever an epoch begins
        self.steps = max(1, full // self.batch_size) if shuffle else -(-windows // self.batch_size)
        self.rows = self.steps * self.batch_size if shuffle else windows
        self.seed, self.rank, self.world = seed, rank, world
        self.device = torch.device(device)
        self.seconds_waiting = 0.0
        per = self.batch_size * self.length
        self._per_chunk = max(1, min(64, CHUNK_TOKENS // max(per, 1)))
        self._places = torch.arange(self.places, device=self.device)
        self._fresh = torch.ones(self.places, dtype=torch.bool, device=self.device)

    def close(self) -> None:
        """Do nothing: no worker reads for this stream."""

    def starts(self, epoch: int) -> np.ndarray:
        """Return (rows,) int64: where the windows of this epoch begin within the part."""
        if not self.shuffle:
            return self._in_order() * self.length
        if self.places:
            found = streams(len(self._tokens), self.length, rows=self.places, seed=self.seed,
                            epoch=epoch)  # fmt: skip
            return found[: self.steps].reshape(-1)
        return random_windows(
            len(self._tokens), self.length + 1, number=self.rows, seed=self.seed, epoch=epoch
        )

    def _in_order(self) -> np.ndarray:
        """Return (rows,) int64: the numbers of all windows, step after step.

        With stretches, the first ones have a window more where they cannot all be equal.
        """
        if not self.places:
            return np.arange(self.rows, dtype=np.int64)
        each, more = divmod(self.rows, self.places)
        counts = each + (np.arange(self.places) < more)
        first = np.cumsum(counts) - counts
        steps = np.arange(self.steps)[:, None]
        return np.asarray((first + steps)[steps < counts], np.int64)

    def epoch(self, epoch: int, skip: int = 0) -> Iterator[Batch]:
        """Yield this rank's share of the batches of one epoch from batch number `skip` on."""
        starts, size = self.starts(epoch), self.batch_size
        for first in range(skip, self.steps, self._per_chunk):
            began = time.perf_counter()
            last = min(first + self._per_chunk, self.steps)
            sizes = [min(size, self.rows - step * size) for step in range(first, last)]
            batches = self._cut(starts[first * size : last * size], sizes, first=first)
            self.seconds_waiting += time.perf_counter() - began
            yield from batches

    def _cut(self, starts: np.ndarray, sizes: list[int], *, first: int) -> list[Batch]:
        """Return the batches of consecutive steps that begin at starts[0], with step `first`."""
        r, w = self.rank, self.world
        shares, empty, keep, own, base = [], [], [], [], 0
        for n in sizes:
            low, high = n * r // w, n * (r + 1) // w
            empty.append(low == high)
            if low == high:  # every rank takes part in every step
                low, high = 0, 1
            keep.append(slice(base + low, base + high))
            own.append(slice(low, high))
            shares.append(high - low)
            base += n
        mine = starts if w == 1 else np.concatenate([starts[part] for part in keep])
        tokens, target = self._read(mine)
        ids = torch.from_numpy(mine + self._begin).to(self.device)
        nothing = torch.zeros(1, device=self.device) if any(empty) else None
        cut = zip(tokens.split(shares), target.split(shares), ids.split(shares), sizes, empty,
                  strict=True)  # fmt: skip
        batches = [Batch({"tokens": x}, y, nothing if none else None, i, rows)
                   for x, y, i, rows, none in cut]  # fmt: skip
        if self.places:
            begins, goes_on = self._fresh, ~self._fresh
            for number, (batch, part) in enumerate(zip(batches, own, strict=True), first):
                batch.inputs["place"] = self._places[part]
                batch.inputs["fresh"] = (goes_on if number else begins)[part]
        return batches

    def _read(self, starts: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        """Return tokens and targets, (rows, T) int64 each, on the device."""
        T, total = self.length, len(self._tokens)
        if len(starts) and int(starts.max()) + T + 1 > total:  # the last window of an evaluation
            at = starts[:, None] + np.arange(T + 1)
            rows = self._tokens[np.minimum(at, total - 1)].astype(np.int64)
            rows[at >= total] = self._running.pad
            target = np.where(at >= total, IGNORED_TOKEN, rows)[:, 1:]
        else:
            view = np.lib.stride_tricks.sliding_window_view(self._tokens, T + 1)
            rows = view[starts]
            target = rows[:, 1:].astype(np.int64)
        tokens = rows[:, :-1].astype(np.int64)
        found = torch.from_numpy(tokens), torch.from_numpy(np.ascontiguousarray(target))
        if self.device.type == "cpu":
            return found
        return found[0].to(self.device), found[1].to(self.device)


def _batch_size(asked: int | str, windows: int) -> int:
    if asked == "full":
        return windows
    if not isinstance(asked, int) or isinstance(asked, bool) or asked < 1:
        raise ConfigError(
            f"batch_size {asked!r}", "a whole number from 1 up, or 'full'", "set batch_size=32"
        )
    return min(asked, windows)
