"""The law of the stream: the same bits in every mode, for every number of workers and ranks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from PIL import Image

from gipi.data import DataOptions, Dataset, open_data

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from gipi.core.batch import Batch

MIXES: tuple[tuple[str | dict[str, object], ...], ...] = (
    (),
    ("flip", {"name": "shift", "pixels": 2}, "brightness", "contrast", "erase", "mixup", "cutmix"),
    ("rotate", "zoom", {"name": "cutout", "size": 3}),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """46 PNG pictures in two classes and three sizes."""
    root = tmp_path_factory.mktemp("photos")
    values = np.random.RandomState(0)
    for i in range(46):
        place = root / ("cats" if i % 2 else "dogs")
        place.mkdir(exist_ok=True)
        size = (12, 10) if i % 3 else (15, 11)
        pixels = values.randint(0, 256, (*size, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(place / f"{i:03}.png")
    return root


def opened(folder: Path, tmp_path: Path, mode: str) -> Dataset:
    return open_data(
        str(folder), DataOptions(mode=mode, cache=tmp_path / "cache", val=0.1, test=0.1)
    )


def same(a: Batch, b: Batch) -> bool:
    """Whether two batches are bit-identical."""
    pairs = [(a.inputs[k], b.inputs[k]) for k in a.inputs]
    pairs += [(a.target, b.target), (a.ids, b.ids)]
    equal = all(x is not None and y is not None and torch.equal(x, y) for x, y in pairs)
    weights = (a.weight is None) == (b.weight is None)
    if weights and a.weight is not None and b.weight is not None:
        weights = torch.equal(a.weight, b.weight)
    return equal and weights and a.rows == b.rows and list(a.inputs) == list(b.inputs)


def all_same(a: Iterable[Batch], b: Iterable[Batch]) -> bool:
    """Whether two epochs have the same batches."""
    return all(same(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("augment", MIXES)
def test_modes_give_the_same_bits(folder: Path, tmp_path: Path, augment: tuple[str, ...]) -> None:
    batches = {}
    for mode in ("resident", "mapped", "streaming"):
        stream = opened(folder, tmp_path, mode).stream(
            "train", batch_size=7, seed=3, augment=augment
        )
        assert stream.mode == mode
        batches[mode] = [*stream.epoch(0), *stream.epoch(1)]
        stream.close()
    assert len(batches["resident"]) == 2 * -(-stream.rows // 7)
    for mode in ("mapped", "streaming"):
        assert all_same(batches["resident"], batches[mode])
    assert not torch.equal(batches["resident"][0].ids, batches["resident"][stream.steps].ids)


def test_workers_give_the_same_bits(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gipi.data.modes.PIECE", 4)  # a batch of 9 rows is decoded in three pieces
    data = opened(folder, tmp_path, "streaming")
    alone = data.stream("train", batch_size=9, seed=1, augment=("flip",))
    workers = data.stream("train", batch_size=9, seed=1, augment=("flip",), workers=2)
    try:
        assert all_same(alone.epoch(0), workers.epoch(0))
        assert all_same(alone.epoch(5, 2), workers.epoch(5, 2))
    finally:
        workers.close()


@pytest.mark.parametrize("mode", ["resident", "mapped", "streaming"])
@pytest.mark.parametrize("augment", MIXES)
@pytest.mark.parametrize("world", [2, 3, 5])
def test_ranks_share_the_batches_of_one(
    folder: Path, tmp_path: Path, mode: str, augment: tuple[str, ...], world: int
) -> None:
    data = opened(folder, tmp_path, mode)
    whole = list(data.stream("train", batch_size=8, seed=2, augment=augment).epoch(4))
    assert len(whole[-1]) < 8, "the last batch is ragged"
    shares = [
        list(
            data.stream("train", batch_size=8, seed=2, augment=augment, rank=r, world=world).epoch(
                4
            )
        )
        for r in range(world)
    ]
    for step, batch in enumerate(whole):
        parts = [share[step] for share in shares]
        assert all(part.rows == batch.rows == len(batch) for part in parts)
        real = [p for p in parts if p.weight is None or p.weight.any()]
        assert sum(map(len, real)) == len(batch)
        for name, values in batch.inputs.items():
            assert torch.equal(torch.cat([p.inputs[name] for p in real]), values)
        assert torch.equal(torch.cat([p.target for p in real]), batch.target)
        assert torch.equal(torch.cat([p.ids for p in real]), batch.ids)


def test_skip_goes_on_where_the_epoch_was_left(folder: Path, tmp_path: Path) -> None:
    for mode in ("resident", "mapped", "streaming"):
        stream = opened(folder, tmp_path, mode).stream("train", batch_size=5, augment=("mixup",))
        every = list(stream.epoch(2))
        for skip in (0, 1, 3, len(every)):
            assert all_same(every[skip:], stream.epoch(2, skip))


def test_layout_changes_no_value(folder: Path, tmp_path: Path) -> None:
    data = opened(folder, tmp_path, "resident")
    for augment in MIXES:
        plain = data.stream("train", batch_size=6, augment=augment)
        last = data.stream("train", batch_size=6, augment=augment, channels_last=True)
        for a, b in zip(plain.epoch(0), last.epoch(0), strict=True):
            assert torch.equal(a.inputs["image"], b.inputs["image"])
            assert b.inputs["image"].is_contiguous(memory_format=torch.channels_last)


def test_table_with_weights_in_all_modes() -> None:
    rng = np.random.RandomState(1)
    table = {
        "a": rng.rand(53), "b": rng.choice(["x", "y", "z"], 53).astype(object),
        "w": rng.rand(53), "y": rng.rand(53),
    }  # fmt: skip
    data = open_data(table, DataOptions(target="y", weight="w"))
    first = list(data.stream("train", batch_size=10, mode="resident").epoch(0))
    assert list(first[0].inputs) == ["numbers", "categories"]
    assert first[0].weight is not None
    for mode in ("mapped", "streaming"):
        assert all_same(first, data.stream("train", batch_size=10, mode=mode).epoch(0))
