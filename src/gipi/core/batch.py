"""A batch: the rows of one step as tensors, and the stream that yields them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from torch import cat

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import torch
    from torch import Tensor

UNLABELLED = -100
"""What fills up rows of tags: a position that counts neither in the loss nor in the score."""


@dataclass(slots=True)
class Batch:
    """Rows of one optimizer step (or the part of them that this rank or micro-batch holds).

    inputs   name -> (B, ...) tensors in the order of the model's positional arguments
    target   (B,) int64 classes, (B, K) float soft or several classes, (B,) / (B, T) float values,
             (B, T) int64 tokens or tags, (B, 2) int64 spans, (B, H, W) uint8 masks,
             (B, M, 6) boxes, (B, K, 3) keypoints (see `core.schema.Field`); None where nothing is
             known
    weight   (B,) float row weights, or None for all ones
    ids      (B,) int64 row ids of the data set, or None for a foreign stream
    rows     rows of the whole optimizer step over all ranks (the nominal divisor of the loss)
    """

    inputs: dict[str, Tensor]
    target: Tensor | None
    weight: Tensor | None = None
    ids: Tensor | None = None
    rows: int = 0

    def __len__(self) -> int:
        return len(next(iter(self.inputs.values())))

    def split(self, micro: int) -> list[Batch]:
        """Return consecutive pieces of at most `micro` rows (views); `rows` stays global."""
        size = len(self)
        if micro >= size:
            return [self]
        return [self.slice(a, min(a + micro, size)) for a in range(0, size, micro)]

    def slice(self, start: int, stop: int) -> Batch:
        """Return rows start..stop as views."""
        return Batch(
            {k: v[start:stop] for k, v in self.inputs.items()},
            None if self.target is None else self.target[start:stop],
            None if self.weight is None else self.weight[start:stop],
            None if self.ids is None else self.ids[start:stop],
            self.rows,
        )

    def to(self, device: torch.device, *, non_blocking: bool = True) -> Batch:
        """Return the batch on `device`."""

        def move(t: Tensor | None) -> Tensor | None:
            return None if t is None else t.to(device, non_blocking=non_blocking)

        return Batch(
            {k: v.to(device, non_blocking=non_blocking) for k, v in self.inputs.items()},
            move(self.target), move(self.weight), move(self.ids), self.rows,
        )  # fmt: skip


def joined(parts: Sequence[Tensor], *, fill: float = 0) -> Tensor:
    """Return the rows of several batches as one tensor; narrower ones are filled up on the right.

    fill  what stands behind the end of a narrower batch, in dimension 1

    >>> import torch
    >>> joined([torch.ones(1, 2), torch.ones(1, 1)], fill=-100)
    tensor([[   1.,    1.],
            [   1., -100.]])
    """
    widest = max((t.shape[1] for t in parts if t.ndim > 1), default=0)
    return cat([_widened(t, widest, fill) if t.ndim > 1 and t.shape[1] < widest else t
                for t in parts])  # fmt: skip


def _widened(values: Tensor, width: int, fill: float) -> Tensor:
    out = values.new_full((len(values), width, *values.shape[2:]), fill)
    out[:, : values.shape[1]] = values
    return out


class Stream(Protocol):
    """What the loop needs of data: its size, and the batches of one epoch in a fixed order.

    `epoch(e, skip)` yields this rank's share of every global batch of epoch `e`, beginning with
    batch number `skip`; it is a pure function of (seed, e), so a resumed run sees the same rows.
    """

    rows: int
    batch_size: int
    steps: int

    def epoch(self, epoch: int, skip: int = 0) -> Iterator[Batch]:
        """Yield the batches of one epoch."""
        ...
