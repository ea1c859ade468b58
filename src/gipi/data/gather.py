"""What gathers the rows of several batches at once, one kind for each kind of column.

A *chunk* is consecutive batches that are gathered together; it stays in the processor's cache.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import torch

from gipi.data.buffers import Ring
from gipi.data.pictures import Pictures, normalise

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from torch import Tensor

    from gipi.data.modes import Reader
    from gipi.data.tokens import Padder


@dataclass(frozen=True)
class Chunk:
    """Consecutive batches gathered together: positions of their rows, sizes, and global rows.

    positions, host   the same positions on the device and on the host
    partner   (partners, n) index within the chunk of the rows that each row is mixed with
    keep      index of the rows that belong to this rank where extra partner rows were added
    widths    column -> width of each global batch where rows are ragged: a rank's share is as wide
              as the whole
    """

    positions: Tensor
    host: Tensor
    sizes: list[int]
    rows: list[int]
    empty: list[bool]
    span: tuple[int, int] | None = None
    partner: Tensor | None = None
    keep: Tensor | None = None
    widths: Mapping[str, Sequence[int]] = field(default_factory=dict)


class Gather(Protocol):
    """One input column of a stream: `start` begins to read a chunk, `finish` gives its rows."""

    @property
    def depth(self) -> int:
        """Chunks that are read ahead."""
        ...

    def start(self, chunk: Chunk) -> Any:
        """Begin to read the rows of a chunk."""
        ...

    def finish(self, begun: Any) -> Tensor | list[Tensor]:
        """Return the rows of a chunk, or those of each of its batches."""
        ...


@dataclass
class Resident:
    """Rows on the device in their final form; (n, H, W, C) storage where `permute` is set."""

    data: Tensor
    permute: bool
    ring: Ring
    depth: int = 0

    def start(self, chunk: Chunk) -> Tensor:
        """Return the places of the rows: nothing is read ahead."""
        return chunk.positions

    def finish(self, begun: Tensor) -> Tensor:
        """Return the rows at these places."""
        rows = torch.index_select(self.data, 0, begun, out=self.ring.lend(len(begun)))
        return rows.permute(0, 3, 1, 2) if self.permute else rows

    def span(self, start: int, stop: int) -> Tensor:
        """Return neighbouring rows without a copy."""
        rows = self.data[start:stop]
        return rows.permute(0, 3, 1, 2) if self.permute else rows


class Fetched:
    """Raw pixels fetched by a `Reader`, normalised on the device."""

    def __init__(
        self, pictures: Pictures, ids: np.ndarray, reader: Reader,
        *, chunk_rows: int, device: torch.device, channels_last: bool,
    ) -> None:  # fmt: skip
        self.ids, self.reader, self.device = ids, reader, device
        self.depth = reader.depth
        self.ring = Ring(chunk_rows, torch.empty((0, *pictures.shape), device=device))
        self.shift, self.scale = pictures.constants(device, channels_last=False)
        self.channels_last = channels_last

    def start(self, chunk: Chunk) -> Any:
        """Begin to fetch the pixels of a chunk."""
        return self.reader.submit(self.ids[chunk.host.numpy()])

    def finish(self, begun: Any) -> Tensor:
        """Return the pixels, normalised."""
        raw = torch.from_numpy(self.reader.result(begun))
        if self.device.type == "cuda":
            raw = raw.pin_memory().to(self.device, non_blocking=True)
        rows = normalise(raw, self.shift, self.scale, out=self.ring.lend(len(raw)))
        return rows.contiguous(memory_format=torch.channels_last) if self.channels_last else rows


class Labels:
    """Masks fetched by a `Reader`; they stay uint8."""

    def __init__(self, ids: np.ndarray, reader: Reader, device: torch.device) -> None:
        self.ids, self.reader, self.device = ids, reader, device
        self.depth = reader.depth

    def start(self, chunk: Chunk) -> Any:
        """Begin to fetch the masks of a chunk."""
        return self.reader.submit(self.ids[chunk.host.numpy()])

    def finish(self, begun: Any) -> Tensor:
        """Return the masks."""
        raw = torch.from_numpy(self.reader.result(begun))
        if self.device.type == "cuda":
            raw = raw.pin_memory().to(self.device, non_blocking=True)
        return raw


@dataclass
class Ragged:
    """Tokens, one tensor a batch: each batch has its own width."""

    name: str
    padder: Padder
    device: torch.device
    depth: int = 0

    def start(self, chunk: Chunk) -> Chunk:
        """Return the chunk: nothing is read ahead."""
        return chunk

    def finish(self, begun: Chunk) -> list[Tensor]:
        """Return (B, T) int64 tokens of each batch."""
        positions = begun.host if self.padder.place.type == "cpu" else begun.positions
        parts = zip(positions.split_with_sizes(begun.sizes), begun.widths[self.name], strict=True)
        found = [self.padder.cut(part, width) for part, width in parts]
        if self.device == self.padder.place:
            return found
        pinned = [t.pin_memory() if self.device.type == "cuda" else t for t in found]
        return [t.to(self.device, non_blocking=True) for t in pinned]
