"""Rows of tokens: padding, length buckets, and the same batches for every rank and mode."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gipi.data.cache import ragged
from gipi.data.stream import Columns, RowStream
from gipi.data.tokens import MULTIPLE, Padder, Tokens, by_length, width_of

ROWS, BATCH = 203, 16


def tokens(rows: int = ROWS, longest: int = 60) -> Tokens:
    """Rows of 0 to `longest` tokens; the first token is the number of the row."""
    draw = np.random.default_rng(0)
    parts = [draw.integers(1, 99, n).astype(np.int32) for n in draw.integers(0, longest, rows)]
    values, offsets = ragged(parts)
    return Tokens(values, offsets, pad=0, vocab=99)


def columns(rows: int = ROWS) -> Columns:
    found = tokens(rows)
    segments = Tokens((found.values % 2).astype(np.uint8), found.offsets)
    target = torch.arange(rows) % 3
    return Columns({"tokens": found, "segments": segments}, target)


def stream(**options: object) -> RowStream:
    return RowStream(columns(), np.arange(ROWS), batch_size=BATCH, seed=4, **options)  # type: ignore[arg-type]


def test_a_batch_is_as_wide_as_its_longest_row_and_padded_behind() -> None:
    column = tokens()
    seen = []
    for batch in stream().epoch(0):
        assert batch.ids is not None
        ids, found = batch.ids.tolist(), batch.inputs["tokens"]
        assert found.dtype == torch.int64
        longest = max(int(column.lengths[i]) for i in ids)
        assert found.shape == (len(ids), width_of(longest))
        assert batch.inputs["segments"].shape == found.shape
        for i, row, part in zip(ids, found, batch.inputs["segments"], strict=True):
            n = int(column.lengths[i])
            assert row[:n].tolist() == column.row(i).tolist()
            assert part[:n].tolist() == (column.row(i) % 2).tolist()
            assert not row[n:].any()
            assert not part[n:].any()
        seen += ids
    assert sorted(seen) == list(range(ROWS))


def test_a_pad_that_is_not_zero_fills_the_rest() -> None:
    values, offsets = ragged([np.array([5, 6], np.int32), np.array([7], np.int32)])
    padder = Padder(Tokens(values, offsets, pad=9), np.array([1, 0]), torch.device("cpu"))
    assert padder.cut(torch.tensor([0, 1]), 4).tolist() == [[7, 9, 9, 9], [5, 6, 9, 9]]


def test_on_the_host_the_tokens_stay_where_they_lie() -> None:
    values, offsets = ragged([np.array([5, 6], np.int32), np.array([7], np.int32)])
    values.setflags(write=False)  # as what is mapped from the disk
    padder = Padder(Tokens(values, offsets, pad=9), np.array([1]), torch.device("cpu"))
    assert padder._values.data_ptr() == values.ctypes.data
    assert padder.cut(torch.tensor([0, 0]), 8).tolist() == [[7] + [9] * 7] * 2
    empty, offsets = ragged([np.zeros(0, np.int32)] * 3)
    padder = Padder(Tokens(empty, offsets, pad=4), np.array([2, 0]), torch.device("cpu"))
    assert padder.cut(torch.tensor([1, 0]), 2).tolist() == [[4, 4], [4, 4]]


def test_rows_of_a_batch_have_about_one_length_and_epochs_differ() -> None:
    found = stream()
    padded = sum(b.inputs["tokens"].numel() for b in found.epoch(0))
    real = int(tokens().lengths.sum())
    unsorted = ROWS * width_of(tokens().longest)
    assert real <= padded < real + 0.5 * (unsorted - real)
    assert not torch.equal(found.order(0), found.order(1))
    first, second = (sorted(b.ids.tolist() for b in found.epoch(e)) for e in (0, 1))
    assert first != second
    assert torch.equal(found.order(0), stream().order(0))


@pytest.mark.parametrize("rows", [1, BATCH - 1, BATCH, BATCH + 1, 3 * BATCH, 1000])
def test_buckets_keep_every_row_once_and_the_small_batch_last(rows: int) -> None:
    lengths = torch.from_numpy(tokens(rows).lengths)
    order = torch.randperm(rows, generator=torch.Generator().manual_seed(1))
    found = by_length(order, lengths, BATCH, generator=torch.Generator().manual_seed(2))
    assert sorted(found.tolist()) == list(range(rows))
    tail = rows % BATCH
    assert found[rows - tail :].tolist() == order[rows - tail :].tolist()


def test_rows_of_one_width_stay_in_random_order() -> None:
    lengths = torch.full((160,), 5)
    order = torch.randperm(160, generator=torch.Generator().manual_seed(1))
    found = by_length(order, lengths, 16, generator=torch.Generator().manual_seed(2))
    batches = {tuple(b.tolist()) for b in order.split(16)}
    assert {tuple(b.tolist()) for b in found.split(16)} == batches


@pytest.mark.parametrize("world", [2, 3, 5])
@pytest.mark.parametrize("mode", ["resident", "mapped", "streaming"])
def test_ranks_share_the_batches_of_one(world: int, mode: str) -> None:
    whole = list(stream().epoch(3))
    assert len(whole[-1]) < BATCH
    shares = [list(stream(rank=r, world=world, mode=mode).epoch(3)) for r in range(world)]
    for step, batch in enumerate(whole):
        parts = [s[step] for s in shares if s[step].weight is None or s[step].weight.any()]
        for name, values in batch.inputs.items():
            assert torch.equal(torch.cat([p.inputs[name] for p in parts]), values)
        assert torch.equal(torch.cat([p.target for p in parts]), batch.target)
        assert all(p.rows == len(batch) for p in parts)


def test_modes_and_workers_change_nothing() -> None:
    plain = list(stream(mode="resident").epoch(1))
    for mode, workers in (("mapped", 0), ("streaming", 0), ("streaming", 2)):
        other = stream(mode=mode, workers=workers)
        for a, b in zip(plain, other.epoch(1), strict=True):
            assert all(torch.equal(a.inputs[k], b.inputs[k]) for k in a.inputs)
            assert torch.equal(a.ids, b.ids)
        other.close()


def test_skip_goes_on_where_the_epoch_was_left() -> None:
    every = list(stream().epoch(2))
    for skip in (0, 1, 7, len(every)):
        rest = list(stream().epoch(2, skip))
        assert len(rest) == len(every) - skip
        for a, b in zip(every[skip:], rest, strict=True):
            assert torch.equal(a.inputs["tokens"], b.inputs["tokens"])


def test_without_shuffling_the_longest_rows_come_first() -> None:
    found = list(stream(shuffle=False).epoch(0))
    widths = [b.inputs["tokens"].shape[1] for b in found]
    assert widths == sorted(widths, reverse=True)
    assert sorted(i for b in found for i in b.ids.tolist()) == list(range(ROWS))


def test_micro_batches_are_views_of_the_batch() -> None:
    batch = next(iter(stream().epoch(0)))
    pieces = batch.split(5)
    assert torch.equal(torch.cat([p.inputs["tokens"] for p in pieces]), batch.inputs["tokens"])


def test_widths_are_multiples() -> None:
    assert all(width_of(n) % MULTIPLE == 0 for n in range(40))
    assert all(width_of(n) >= n for n in range(40))
