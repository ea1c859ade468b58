"""Someone's own torch data: read once where it stays the same, else a stream with stated limits."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from gipi.core.errors import DataError
from gipi.data.sources import read_source
from gipi.data.sources.foreign import ForeignStream, as_batch, weakened_laws, why_foreign


class Counting(Dataset):
    def __len__(self):
        return 10

    def __getitem__(self, i):
        return np.full(4, i, np.float32), i % 3


class Noisy(Counting):
    def __getitem__(self, i):
        return torch.rand(4), i % 3


class Named(Counting):
    def __getitem__(self, i):
        return {"a": float(i), "b": i, "label": "even" if i % 2 == 0 else "odd"}


class Endless(IterableDataset):
    def __iter__(self):
        for i in range(7):
            yield torch.full((3,), float(i)), i % 2


def test_a_dataset_that_stays_the_same_is_read_once():
    source = read_source(Counting())
    assert source.columns["x"][:, 0].tolist() == list(range(10))
    assert source.columns["y"].tolist() == [i % 3 for i in range(10)]
    assert source.target == "y"
    named = read_source(Named())
    assert named.columns["label"].tolist()[:2] == ["even", "odd"]
    assert named.columns["a"].tolist() == list(range(10))


def test_tensor_dataset_is_taken_whole():
    source = read_source(TensorDataset(torch.ones(5, 1, 8, 8), torch.arange(5)))
    assert source.columns["image"].shape == (5, 8, 8, 1)


@pytest.mark.parametrize(
    ("data", "why"),
    [(Noisy(), "differs"), (Endless(), "no fixed order"), (DataLoader(Counting()), "own batches")],
)
def test_anything_else_is_foreign(data, why):
    assert why in why_foreign(data)
    with pytest.raises(DataError, match="ForeignStream"):
        read_source(data)
    assert any("equivalence" in law for law in weakened_laws(data))


def test_kill_proof_is_weakened_only_where_the_stream_cannot_seek():
    assert not any("kill-proof" in law for law in weakened_laws(Noisy()))
    assert any("kill-proof" in law for law in weakened_laws(Endless()))


def test_map_style_stream_is_a_function_of_seed_and_epoch():
    stream = ForeignStream(Counting(), batch_size=4, seed=1)
    assert (stream.rows, stream.steps, stream.batch_size) == (10, 3, 4)
    first = [b.ids.tolist() for b in stream.epoch(0)]
    assert first == [
        b.ids.tolist() for b in ForeignStream(Counting(), batch_size=4, seed=1).epoch(0)
    ]
    assert first != [b.ids.tolist() for b in stream.epoch(1)]
    assert sorted(i for ids in first for i in ids) == list(range(10))
    assert [b.ids.tolist() for b in stream.epoch(0, skip=2)] == first[2:]
    batch = next(iter(stream.epoch(0)))
    assert batch.inputs["numbers"][:, 0].tolist() == batch.ids.tolist()
    assert batch.target.tolist() == (batch.ids % 3).tolist()


def test_iterable_and_loader_streams():
    stream = ForeignStream(Endless(), batch_size=3, steps=3)
    assert [len(b) for b in stream.epoch(0)] == [3, 3, 1]
    assert [len(b) for b in stream.epoch(0, skip=2)] == [1]
    loader = ForeignStream(DataLoader(Counting(), batch_size=5))
    assert (loader.batch_size, loader.steps, loader.rows) == (5, 2, 10)
    assert [b.target.tolist() for b in loader.epoch(0)] == [[0, 1, 2, 0, 1], [2, 0, 1, 2, 0]]
    with pytest.raises(DataError, match="does not say its length"):
        ForeignStream(Endless())


def test_forms_of_batches():
    images = as_batch((torch.zeros(2, 3, 8, 8), torch.zeros(2), torch.ones(2, dtype=torch.float64)))
    assert list(images.inputs) == ["image"]
    assert images.weight.dtype == torch.float32
    plain = as_batch(torch.zeros(2, 5))
    assert plain.target is None
    named = as_batch({"numbers": torch.zeros(2, 5), "y": torch.tensor([1, 0])})
    assert named.target.dtype == torch.int64
    with pytest.raises(DataError, match="is no tensor"):
        as_batch({"a": ["x", "y"]})


def test_items_of_different_shapes_are_an_error():
    class Ragged(Counting):
        def __getitem__(self, i):
            return np.zeros(i + 1, np.float32), 0

    with pytest.raises(DataError, match="different shapes"):
        read_source(Ragged())


def test_empty_dataset():
    class Empty(Counting):
        def __len__(self):
            return 0

    with pytest.raises(DataError, match="no items"):
        read_source(Empty())
