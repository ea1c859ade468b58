from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pytest
import torch

from gipi.core.errors import ConfigError, DataError, RunError
from gipi.data import modes
from gipi.data.decode import Decoder
from gipi.data.modes import Reader, ahead, choose_mode
from gipi.data.pictures import Pictures
from gipi.data.stream import Columns, RowStream

CPU = torch.device("cpu")


def columns(n: int = 30) -> Columns:
    """Return numbers that name their row, a target and weights."""
    rows = torch.arange(n)
    return Columns({"numbers": rows.float()[:, None].repeat(1, 2)}, rows % 3, rows.float() + 1)


def test_every_row_once_an_epoch_in_another_order_each_time() -> None:
    ids = np.arange(3, 28)
    stream = RowStream(columns(), ids, batch_size=4, seed=5)
    assert (stream.rows, stream.steps, stream.batch_size) == (25, 7, 4)
    orders = []
    for epoch in range(3):
        batches = list(stream.epoch(epoch))
        assert [len(b) for b in batches] == [4] * 6 + [1]
        assert [b.rows for b in batches] == [4] * 6 + [1]
        seen = torch.cat([b.ids for b in batches if b.ids is not None])
        assert sorted(seen.tolist()) == ids.tolist()
        for b in batches:
            assert b.ids is not None
            assert b.target is not None
            assert b.weight is not None
            assert torch.equal(b.inputs["numbers"][:, 0].long(), b.ids)
            assert torch.equal(b.target, b.ids % 3)
            assert torch.equal(b.weight, b.ids.float() + 1)
        orders.append(seen.tolist())
    assert orders[0] != orders[1] != orders[2]
    again = RowStream(columns(), ids, batch_size=4, seed=5)
    assert torch.cat([b.ids for b in again.epoch(1) if b.ids is not None]).tolist() == orders[1]
    other = RowStream(columns(), ids, batch_size=4, seed=6)
    assert torch.cat([b.ids for b in other.epoch(1) if b.ids is not None]).tolist() != orders[1]


def test_the_order_does_not_depend_on_the_batch_size() -> None:
    small = RowStream(columns(), np.arange(30), batch_size=3)
    large = RowStream(columns(), np.arange(30), batch_size="full")
    assert large.steps == 1
    (batch,) = large.epoch(2)
    parts = torch.cat([b.inputs["numbers"] for b in small.epoch(2)])
    assert torch.equal(batch.inputs["numbers"], parts)
    assert RowStream(columns(), np.arange(30), batch_size=99).steps == 1


def test_without_shuffling_batches_are_views_in_order() -> None:
    stream = RowStream(columns(), np.arange(10, 20), batch_size=4, shuffle=False)
    batches = list(stream.epoch(0))
    assert torch.cat([b.ids for b in batches if b.ids is not None]).tolist() == list(range(10, 20))
    first, again = batches[0], next(stream.epoch(7))
    assert first.inputs["numbers"].data_ptr() == again.inputs["numbers"].data_ptr()


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = [b.ids for b in RowStream(columns(), np.arange(30), batch_size=4).epoch(1)]
    monkeypatch.setattr("gipi.data.stream.HOST_CHUNK", 150)
    stream = RowStream(columns(), np.arange(30), batch_size=4)
    assert len(list(stream._chunks(1, 0))) > 2
    parts = [b.ids for b in stream.epoch(1)]
    assert all(torch.equal(a, b) for a, b in zip(whole, parts, strict=True))  # type: ignore[arg-type]


def test_an_empty_share_is_one_row_of_weight_zero() -> None:
    plain = Columns({"numbers": torch.rand(9, 2)}, torch.arange(9))
    last = [list(RowStream(plain, np.arange(9), batch_size=4, rank=r, world=3).epoch(0))[-1]
            for r in range(3)]  # fmt: skip
    assert [len(b) for b in last] == [1, 1, 1]
    weights = [b.weight for b in last]
    assert [w is None for w in weights] == [False, False, True]
    assert all(float(w) == 0 for w in weights if w is not None)
    assert {b.rows for b in last} == {1}


def test_the_wait_is_counted() -> None:
    stream = RowStream(columns(), np.arange(30), batch_size=4)
    assert stream.seconds_waiting == 0
    list(stream.epoch(0))
    assert stream.seconds_waiting > 0
    assert stream.weighted


def test_the_mode_is_chosen_by_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(modes, "free_memory", lambda _: 1000)
    chosen = [
        choose_mode(asked="auto", float_bytes=size, files=files, device=CPU)[0]
        for size, files in ((299, True), (301, False), (301, True))
    ]
    assert chosen == ["resident", "mapped", "streaming"]
    assert choose_mode(asked="mapped", float_bytes=1, files=True, device=CPU)[0] == "mapped"
    assert modes.free_memory(CPU) == 1000
    monkeypatch.undo()
    assert modes.free_memory(CPU) > 1 << 20


def test_wrong_requests() -> None:
    for size in (0, -3, 2.5, "all", True):
        with pytest.raises(ConfigError, match="batch_size"):
            RowStream(columns(), np.arange(30), batch_size=size)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="mode 'fast'"):
        RowStream(columns(), np.arange(30), batch_size=4, mode="fast")
    with pytest.raises(ConfigError, match="rank 2 of 2"):
        RowStream(columns(), np.arange(30), batch_size=4, rank=2, world=2)
    with pytest.raises(DataError, match="no rows"):
        RowStream(columns(), np.arange(0), batch_size=4)


def test_ahead_keeps_its_depth_and_order() -> None:
    begun: list[int] = []

    def submit(item: int) -> int:
        begun.append(item)
        return -item

    walk = ahead(range(6), submit, 2)
    assert next(walk) == (0, 0)
    assert begun == [0, 1, 2]
    assert [*walk] == [(i, -i) for i in range(1, 6)]


def test_a_reader_that_is_ahead_gives_what_was_asked() -> None:
    pixels = np.arange(5 * 4, dtype=np.uint8).reshape(5, 1, 2, 2)
    reader = Reader(Pictures(pixels, Decoder(1, 2, 2), (0.0,), (1.0,)), workers=0, threaded=True)
    handles = [reader.submit(np.array(rows)) for rows in ([4, 0], [2])]
    assert np.array_equal(reader.result(handles[1]), pixels[[2]])
    assert np.array_equal(reader.result(handles[0]), pixels[[4, 0]])
    reader.close()


def test_a_dead_worker_is_an_error_not_a_wait() -> None:
    pixels = np.zeros((5, 1, 2, 2), np.uint8)
    reader = Reader(Pictures(pixels, Decoder(1, 2, 2), (0.0,), (1.0,)), workers=1, threaded=False)
    assert reader.result(reader.submit(np.array([1, 2]))).shape == (2, 1, 2, 2)
    assert isinstance(reader._pool, ProcessPoolExecutor)
    for process in list(reader._pool._processes.values()):
        process.kill()
        process.join()
    with pytest.raises(RunError, match="a data worker process died"):
        reader.result(reader.submit(np.array([0])))
    reader.close()
