"""Memory that is used again: fresh pages cost more than the rows that are copied into them.

The system hands out memory page by page, on first touch, and takes freed blocks back; a chunk that
is allocated anew every few steps can cost several times its copy. A `Ring` lends the same few
blocks again, but only where nobody looks at them any more: batches that are kept stay as they are.
"""

from __future__ import annotations

import torch
from torch import Tensor

BLOCKS = 3  # one being filled, one being read, one held by the last step's graph

_use_count = getattr(torch._C, "_storage_Use_Count", None)  # noqa: SLF001  no public way to ask


class Ring:
    """Blocks of memory for rows of one shape and dtype, at most `rows` rows at a time."""

    def __init__(self, rows: int, like: Tensor) -> None:
        self.rows, self.like = rows, like[:0]
        self._blocks: list[tuple[Tensor, int]] = []
        self._next = 0

    def lend(self, rows: int) -> Tensor:
        """Return uninitialised memory for `rows` rows, a block that is free or fresh memory."""
        shape = self.like.shape[1:]
        if _use_count is None or rows > self.rows or self.like.device.type != "cpu":
            return self.like.new_empty((rows, *shape))
        for _ in range(len(self._blocks)):
            block, unused = self._blocks[self._next]
            self._next = (self._next + 1) % len(self._blocks)
            if _count(block) == unused:
                return block[:rows]
        with torch.inference_mode(mode=False):  # whoever asks next may be outside of it
            block = self.like.new_empty((self.rows, *shape))
        if len(self._blocks) < BLOCKS:
            self._blocks.append((block, _count(block)))
        return block[:rows]


def _count(block: Tensor) -> int:
    """Return how many tensors and views look at the memory of a block."""
    count: int = _use_count(block.untyped_storage()._cdata)  # type: ignore[misc]  # noqa: SLF001
    return count
