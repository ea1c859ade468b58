from __future__ import annotations

import numpy as np
import pytest
import torch

from gipi.data import buffers
from gipi.data.buffers import BLOCKS, Ring
from gipi.data.stream import Columns, RowStream


def test_a_block_is_lent_again_only_when_nobody_looks_at_it() -> None:
    ring = Ring(8, torch.empty(0, 3))
    first = ring.lend(8)
    place = first.data_ptr()
    view = first[2:4].t()
    others = [ring.lend(5) for _ in range(BLOCKS + 2)]
    assert len({t.data_ptr() for t in (first, *others)}) == BLOCKS + 3
    del first
    assert all(ring.lend(8).data_ptr() != place for _ in range(2 * BLOCKS)), "a view is left"
    del view
    assert ring.lend(8).data_ptr() == place


def test_a_block_that_a_graph_holds_is_not_lent() -> None:
    ring = Ring(4, torch.empty(0, 3))
    layer = torch.nn.Linear(3, 2)
    rows = ring.lend(4).copy_(torch.arange(12.0).view(4, 3))
    wanted = rows.sum(0)
    loss = layer(rows).sum()
    del rows
    for _ in range(3 * BLOCKS):
        ring.lend(4).zero_()
    loss.backward()
    assert layer.weight.grad is not None
    assert torch.equal(layer.weight.grad[0], wanted)


def test_without_a_way_to_ask_memory_is_always_fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(buffers, "_use_count", None)
    ring = Ring(4, torch.empty(0, 3))
    kept = [ring.lend(4) for _ in range(5)]
    assert len({t.data_ptr() for t in kept}) == 5
    assert ring.lend(9).shape == (9, 3)


def test_batches_that_are_kept_stay_as_they_are() -> None:
    rows = torch.arange(64.0)[:, None].repeat(1, 5)
    stream = RowStream(Columns({"numbers": rows}, rows[:, 0]), np.arange(64), batch_size=4)
    stream._per_chunk = 2
    kept = [batch for epoch in range(4) for batch in stream.epoch(epoch)]
    for batch in kept:
        assert batch.target is not None
        assert torch.equal(batch.inputs["numbers"], batch.target[:, None].repeat(1, 5))


def test_rows_stored_in_half_and_back() -> None:
    rows = torch.rand(40, 3)
    stream = RowStream(Columns({"numbers": rows}, rows[:, 0]), np.arange(40), batch_size=8)
    plain = [b.inputs["numbers"] for b in stream.epoch(0)]
    assert stream.can_store
    stream.store(half=True, channels_last=False)
    half = [b.inputs["numbers"] for b in stream.epoch(0)]
    assert all(torch.equal(a.bfloat16(), b) for a, b in zip(plain, half, strict=True))
    stream.store(half=False, channels_last=False)
    assert all(
        torch.equal(a, b.inputs["numbers"]) for a, b in zip(plain, stream.epoch(0), strict=True)
    )


def test_a_block_that_was_first_lent_in_inference_mode_can_be_filled_outside_of_it() -> None:
    ring = Ring(4, torch.empty(0, 3))
    with torch.inference_mode():
        ring.lend(4).zero_()
    rows = torch.ones(6, 3)
    out = ring.lend(2)
    assert torch.index_select(rows, 0, torch.tensor([1, 4]), out=out).sum() == 6
