"""The stream: whole batches by index, the same bits in every mode, for every rank and worker count.

The order of epoch e is a permutation drawn from a generator seeded with (seed, "shuffle", e). Rank
r of w takes rows n*r//w .. n*(r+1)//w of every global batch of n rows; an empty share becomes one
row of weight 0, so that every rank takes part in every step.

Batches are gathered several at a time (a *chunk* that stays in the processor's cache) and are views
of it, which is why the hot path has no per-sample Python and next to no cost per batch.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from gipi.core.batch import Batch
from gipi.core.errors import ConfigError, DataError
from gipi.core.seed import derive
from gipi.data.buffers import Ring
from gipi.data.gather import Chunk, Fetched, Gather, Labels, Ragged, Resident
from gipi.data.masks import MaskFiles, Masks
from gipi.data.modes import Reader, ahead, choose_mode
from gipi.data.pictures import Pictures, resident
from gipi.data.tokens import Padder, Tokens, by_length, longest_first, widths
from gipi.data.windows import WindowGather, Windows

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from torch import Tensor

    from gipi.data.augment import Augment

HOST_CHUNK, DEVICE_CHUNK = 8 << 20, 256 << 20  # bytes gathered at once
TARGET = "target"  # what the ragged target is called beside the inputs
MOST_BATCHES = 64  # in a chunk: more views at once only cost memory


@dataclass(frozen=True)
class Columns:
    """All rows of a data set as the model will see them, on the host.

    inputs   name -> (N, ...) float32 or int64 tensor, `Pictures`, `Tokens`, or `Windows`
    target   (N,) int64 classes or float32 standardised values, (N, K) labels, (N, M, 6) boxes,
             (N, K, 3) keypoints, `Masks`, `Windows`, or `Tokens`; None where there is none
    weight   (N,) float32 row weights or None
    references  each row's target as a text of the data; () for other targets
    """

    inputs: dict[str, Tensor | Pictures | Tokens | Windows]
    target: Tensor | Masks | Windows | Tokens | None = None
    weight: Tensor | None = None
    references: Sequence[str] = ()


class RowStream:
    """Batches of one split (the `core.batch.Stream` of data that gipi holds).

    rows, batch_size, steps   of one epoch, over all ranks
    mode, mode_reason         where the rows live, and why
    seconds_waiting           time spent gathering so far (what the progress line calls data-wait)
    weighted                  True where rows carry weights

    Rows of tokens come in batches of about one length (`tokens.by_length`); without shuffling the
    longest come first, and `Batch.ids` say which they are.
    """

    def __init__(
        self, columns: Columns, ids: np.ndarray, *,
        batch_size: int | str, seed: int = 0, shuffle: bool = True,
        augment: Augment | None = None, device: torch.device | str = "cpu",
        rank: int = 0, world: int = 1, mode: str = "auto", workers: int = 0,
        channels_last: bool = False,
    ) -> None:  # fmt: skip
        if len(ids) == 0:
            raise DataError("no rows to read", "at least one row", "check the split and the data")
        self.rows = len(ids)
        self.batch_size = _batch_size(batch_size, self.rows)
        self.steps = -(-self.rows // self.batch_size)
        if not 0 <= rank < world:
            raise ConfigError(f"rank {rank} of {world}", "a rank from 0 to world-1", "correct it")
        self.rank, self.world = rank, world
        self.seed, self.shuffle, self.augment = seed, shuffle, augment
        self.device = torch.device(device)
        self.channels_last = channels_last
        self.seconds_waiting = 0.0
        self.weighted = columns.weight is not None
        self.ids = np.ascontiguousarray(ids, dtype=np.int64)
        pictures = [c for c in columns.inputs.values() if isinstance(c, Pictures)]
        self.mode, self.mode_reason = choose_mode(
            asked=mode,
            float_bytes=_float_bytes(columns, self.rows, lying=True),
            files=any(p.files is not None for p in pictures)
            or (isinstance(columns.target, Masks) and isinstance(columns.target.labels, MaskFiles)),
            device=self.device,
        )
        self._columns, self._workers, self._half = columns, workers, False
        self._readers: list[Reader] = []
        self._per_chunk = self._batches_per_chunk(columns)
        share = -(-self.batch_size // world) + (0 if augment is None else augment.partners)
        self._chunk_rows = self._per_chunk * share
        self._gathers = {k: self._gather_of(k, v, workers) for k, v in columns.inputs.items()}
        rows = torch.from_numpy(self.ids)
        self._ragged = self._lengths_of(columns)
        self._ids = rows.to(self.device)
        self._target, self._drawn = self._target_of(columns.target, rows, workers)
        self._weight = None if columns.weight is None else columns.weight[rows].to(self.device)

    def _lengths_of(self, columns: Columns) -> dict[str, Tensor]:
        """Return the tokens of each row in each ragged column; what is aligned shares a tensor."""
        found: dict[str, Tensor] = {}
        known: dict[int, Tensor] = {}
        for name, column in (*columns.inputs.items(), (TARGET, columns.target)):
            if isinstance(column, Tokens):
                at = id(column.offsets)
                known.setdefault(at, torch.from_numpy(column.lengths[self.ids]))
                found[name] = known[at]
        return found

    @property
    def _lengths(self) -> Tensor | None:
        """(N, K) int64 tokens of each row in columns that are not aligned; None without any."""
        different = {id(lengths): lengths for lengths in self._ragged.values()}
        return torch.stack([*different.values()], 1) if different else None

    def _gather_of(
        self, name: str, column: Tensor | Pictures | Tokens | Windows, workers: int
    ) -> Gather:
        if isinstance(column, Windows):
            rows = torch.from_numpy(self.ids)
            return WindowGather(column, rows, chunk_rows=self._chunk_rows, device=self.device)
        if isinstance(column, Tokens):
            place = self.device if self.mode == "resident" else torch.device("cpu")
            return Ragged(name, Padder(column, self.ids, place), self.device)
        if not isinstance(column, Pictures):
            data = column[torch.from_numpy(self.ids)].to(self.device)
            return Resident(data, permute=False, ring=Ring(self._chunk_rows, data))
        if self.mode == "resident":
            data = resident(column, self.ids, device=self.device, channels_last=self.channels_last)
            ring = Ring(self._chunk_rows, data)
            return Resident(data, permute=self.channels_last, ring=ring)
        streaming = self.mode == "streaming"
        reader = Reader(column, workers=workers if streaming else 0, threaded=not streaming)
        self._readers.append(reader)
        return Fetched(
            column, self.ids, reader, chunk_rows=self._chunk_rows, device=self.device,
            channels_last=self.channels_last,
        )  # fmt: skip

    def _target_of(
        self, target: Tensor | Masks | Windows | Tokens | None, rows: Tensor, workers: int
    ) -> tuple[Tensor | None, Gather | None]:
        """Return the targets of the split on the device, or what fetches them batch by batch."""
        if isinstance(target, Tokens):
            return None, self._gather_of(TARGET, target, workers)
        if isinstance(target, Windows):
            at = torch.from_numpy(self.ids)
            found = WindowGather(target, at, chunk_rows=self._chunk_rows, device=self.device)
            return None, found
        if isinstance(target, Masks):
            if self.mode == "resident":
                return torch.from_numpy(target.fetch(self.ids)).to(self.device), None
            streaming = self.mode == "streaming"
            reader = Reader(target, workers=workers if streaming else 0, threaded=not streaming)
            self._readers.append(reader)
            return None, Labels(self.ids, reader, self.device)
        return (None if target is None else target[rows].to(self.device)), None

    def _batches_per_chunk(self, columns: Columns) -> int:
        if self.mode == "streaming":
            return 1
        row = 8 + _float_bytes(columns, 1)
        size = DEVICE_CHUNK if self.device.type == "cuda" else HOST_CHUNK
        return min(MOST_BATCHES, max(1, size // (row * -(-self.batch_size // self.world))))

    def references(self, ids: Tensor) -> list[str]:
        """Return the targets of these rows as texts of the data."""
        return [self._columns.references[i] for i in ids.tolist()]  # sync

    @property
    def targets(self) -> Tensor | None:
        """The targets of all rows of this stream, in the order of `ids`."""
        return self._target

    @property
    def can_store(self) -> bool:
        """Whether `store` works: rows are resident, and not augmented in float32."""
        whole = not any(isinstance(g, WindowGather) for g in self._gathers.values())
        return self.mode == "resident" and self.augment is None and whole

    def store(self, *, half: bool, channels_last: bool) -> None:
        """Keep resident float rows in bf16 (`half`), and images in channels-last storage.

        Batches then need no conversion in each step. Rows stored in bf16 before are made anew from
        the columns when they are wanted as they are. Only where `can_store`.
        """
        if self._half and not half:
            columns = self._columns.inputs.items()
            self._gathers = {k: self._gather_of(k, v, self._workers) for k, v in columns}
        self._half = half
        for gather in self._gathers.values():
            if not isinstance(gather, Resident) or not gather.data.is_floating_point():
                continue
            if channels_last and gather.data.ndim == 4 and not gather.permute:
                gather.data = gather.data.permute(0, 2, 3, 1).contiguous()
                gather.permute = True
            if half:
                gather.data = gather.data.bfloat16()
            gather.ring = Ring(self._chunk_rows, gather.data)

    def close(self) -> None:
        """End worker processes and threads; the stream cannot be read afterwards."""
        for reader in self._readers:
            reader.close()

    def order(self, epoch: int) -> Tensor:
        """Return the (rows,) int64 positions of the split in the order of this epoch (host)."""
        lengths = self._lengths
        if not self.shuffle:
            if lengths is None:
                return torch.arange(self.rows)
            return longest_first(lengths)
        generator = torch.Generator().manual_seed(derive(self.seed, "shuffle", epoch))
        order = torch.randperm(self.rows, generator=generator)
        if lengths is None:
            return order
        return by_length(order, lengths, self.batch_size, generator=generator)

    def epoch(self, epoch: int, skip: int = 0) -> Iterator[Batch]:
        """Yield this rank's share of the batches of one epoch from batch number `skip` on."""
        clock = time.perf_counter
        gathers = self._gathers
        drawn = self._drawn
        depth = max((g.depth for g in gathers.values()), default=0)

        def start(chunk: Chunk) -> tuple[dict[str, Any], Any] | None:
            if chunk.span is not None:
                return None
            begun = {k: g.start(chunk) for k, g in gathers.items()}
            return begun, None if drawn is None else drawn.start(chunk)

        began = clock()
        for chunk, begun in ahead(self._chunks(epoch, skip), start, depth):
            batches = self._batches(chunk, begun, epoch)
            self.seconds_waiting += clock() - began
            yield from batches
            began = clock()

    def _chunks(self, epoch: int, skip: int) -> Iterator[Chunk]:
        order = self.order(epoch)
        on_device = order.to(self.device)
        partners = 0 if self.augment is None else self.augment.partners
        straight = not self.shuffle and self.world == 1 and self.mode == "resident"
        straight = straight and self.augment is None and not self._ragged
        straight = straight and not any(isinstance(g, WindowGather) for g in self._gathers.values())
        size, per = self.batch_size, self._per_chunk
        for first in range(skip, self.steps, per):
            last = min(first + per, self.steps)
            a, b = first * size, min(last * size, self.rows)
            rows = [min(size, self.rows - i * size) for i in range(first, last)]
            shared = {id(n): widths(order[a:b], rows, n) for n in self._ragged.values()}
            wide = {name: shared[id(n)] for name, n in self._ragged.items()}
            if self.world == 1:
                yield Chunk(
                    on_device[a:b], order[a:b], rows, rows, [False] * len(rows),
                    span=(a, b) if straight else None,
                    partner=_ring(rows, partners).to(self.device) if partners else None,
                    widths=wide,
                )  # fmt: skip
            else:
                yield self._share(order[a:b], rows, partners=partners, wide=wide)

    def _share(
        self, order: Tensor, rows: list[int], *, partners: int, wide: Mapping[str, Sequence[int]]
    ) -> Chunk:
        """Return this rank's share of consecutive global batches that begin at order[0].

        With mixing, the rows that follow a share in its global batch are read too: partner k of
        row j is row (j + k) mod n, k = 1 .. partners, whatever rank holds it.
        """
        r, w = self.rank, self.world
        index: list[int] = []
        keep: list[int] = []
        sizes, empty = [], []
        base = 0
        for n in rows:
            low, high = n * r // w, n * (r + 1) // w
            empty.append(low == high)
            if low == high:
                low, high = 0, 1
            keep.extend(range(len(index), len(index) + high - low))
            index.extend(range(base + low, base + high))
            index.extend(base + (high + k) % n for k in range(partners))
            sizes.append(high - low)
            base += n
        host = order[torch.tensor(index)]
        positions = host.to(self.device)
        if not partners:
            return Chunk(positions, host, sizes, rows, empty, widths=wide)
        kept = torch.tensor(keep, device=self.device)
        partner = torch.stack([kept + 1 + k for k in range(partners)])
        return Chunk(positions, host, sizes, rows, empty, partner=partner, keep=kept)

    def _batches(
        self, chunk: Chunk, begun: tuple[dict[str, Any], Any] | None, epoch: int
    ) -> list[Batch]:
        gathers, positions = self._gathers, chunk.positions
        target: Tensor | list[Tensor] | None = self._target
        weight = self._weight
        if begun is None and chunk.span is not None:
            a, b = chunk.span
            inputs: dict[str, Any] = {
                k: g.span(a, b) for k, g in gathers.items() if isinstance(g, Resident)
            }
            ids = self._ids[a:b]
            target = None if target is None else target[a:b]
            weight = None if weight is None else weight[a:b]
        else:
            assert begun is not None
            inputs = {k: g.finish(begun[0][k]) for k, g in gathers.items()}
            ids = self._ids.index_select(0, positions)
            if self._drawn is not None:
                target = self._drawn.finish(begun[1])
            elif self._target is not None:
                target = self._target.index_select(0, positions)
            weight = None if weight is None else weight.index_select(0, positions)
        if self.augment is not None:
            key = derive(self.seed, "augment", epoch)
            assert not isinstance(target, list)  # tokens are not augmented
            inputs, target = self.augment(
                inputs, target, ids, key=key, partner=chunk.partner, keep=chunk.keep
            )
            if self.channels_last:  # already so after steps that keep the layout: no copy then
                last = torch.channels_last
                inputs = {
                    k: v.contiguous(memory_format=last) if v.dim() == 4 else v
                    for k, v in inputs.items()
                }
            if chunk.keep is not None:
                weight = None if weight is None else weight[chunk.keep]
                ids = ids[chunk.keep]
        return _views(inputs, target, weight, ids, chunk)


def _views(
    inputs: dict[str, Tensor | list[Tensor]], target: Tensor | list[Tensor] | None,
    weight: Tensor | None, ids: Tensor, chunk: Chunk,
) -> list[Batch]:  # fmt: skip
    """Cut a chunk into batches that are views of it; tokens come cut already."""
    sizes = chunk.sizes
    none: Sequence[Tensor | None] = [None] * len(sizes)
    targets = none if target is None else _pieces(target, sizes)
    weights = none if weight is None else weight.split_with_sizes(sizes)
    if any(chunk.empty):
        nothing = torch.zeros(1, device=ids.device)
        weights = [nothing if e else w for e, w in zip(chunk.empty, weights, strict=True)]
    cut = zip(targets, weights, ids.split_with_sizes(sizes), chunk.rows, strict=True)
    if len(inputs) == 1:
        ((name, values),) = inputs.items()
        return [
            Batch({name: x}, *rest) for x, rest in zip(_pieces(values, sizes), cut, strict=True)
        ]
    parts = zip(*(_pieces(v, sizes) for v in inputs.values()), strict=True)
    return [
        Batch(dict(zip(inputs, xs, strict=True)), *rest)
        for xs, rest in zip(parts, cut, strict=True)
    ]


def _pieces(values: Tensor | list[Tensor], sizes: list[int]) -> Sequence[Tensor]:
    return values if isinstance(values, list) else values.split_with_sizes(sizes)


def _ring(sizes: list[int], partners: int) -> Tensor:
    """Return (partners, rows): for rows of consecutive batches the next rows of the same batch."""
    size = torch.tensor(sizes).repeat_interleave(torch.tensor(sizes))
    first = (torch.tensor(sizes).cumsum(0) - torch.tensor(sizes)).repeat_interleave(
        torch.tensor(sizes)
    )
    within = torch.arange(sum(sizes)) - first
    return torch.stack([first + (within + 1 + k) % size for k in range(partners)])


def _batch_size(asked: int | str, rows: int) -> int:
    if asked == "full":
        return rows
    if not isinstance(asked, int) or isinstance(asked, bool) or asked < 1:
        raise ConfigError(
            f"batch_size {asked!r}", "a whole number from 1 up, or 'full'", "set batch_size=128"
        )
    return min(asked, rows)


def _float_bytes(columns: Columns, rows: int, *, lying: bool = False) -> int:
    """Return the bytes of `rows` rows in a batch, or as they lie in memory: windows overlap."""
    total = 0
    for column in columns.inputs.values():
        if isinstance(column, Windows):
            total += column.values.nbytes if lying else column.row_bytes() * rows
        elif isinstance(column, Pictures):
            total += 4 * int(np.prod(column.shape)) * rows
        elif isinstance(column, Tokens):  # 8 bytes a token of a batch, 4 where they are stored
            total += (8 * column.values.size // max(len(column), 1) + 16) * rows
        else:
            total += column[:1].numel() * column.element_size() * rows
    if isinstance(columns.target, Masks):
        total += int(np.prod(columns.target.shape)) * rows
    elif isinstance(columns.target, Tokens):
        total += (8 * len(columns.target.values) // max(len(columns.target), 1) + 16) * rows
    elif isinstance(columns.target, Windows):
        total += columns.target.values.nbytes if lying else columns.target.row_bytes() * rows
    elif columns.target is not None:
        total += columns.target[:1].numel() * columns.target.element_size() * rows
    return total
