"""Windows of running text that go on where those of the step before ended."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gipi.core.errors import ConfigError
from gipi.data import DataOptions, WindowStream, open_data
from gipi.data.text_windows import STRETCH, Running

LENGTH = 6


def stream(total: int, size: int, *, shuffle: bool = True, rank: int = 0, world: int = 1
           ) -> WindowStream:  # fmt: skip
    running = Running(np.arange(total, dtype=np.uint32), {"train": (0, total)}, LENGTH, 0, total)
    return WindowStream(running, "train", batch_size=size, seed=3, shuffle=shuffle, rank=rank,
                        world=world, carry=True)  # fmt: skip


@pytest.mark.parametrize(("total", "size"), [(200, 4), (LENGTH * 4 + 1, 4), (31, 64), (7, 2)])
@pytest.mark.parametrize("epoch", [0, 1, 5])
def test_each_row_goes_on_where_it_ended(total: int, size: int, epoch: int) -> None:
    made = stream(total, size)
    batches = list(made.epoch(epoch))
    assert len(batches) == made.steps >= 1
    assert made.rows == made.steps * made.batch_size
    assert made.places == made.batch_size == min(size, (total - 1) // LENGTH)
    for step, batch in enumerate(batches):
        tokens = batch.inputs["tokens"]
        assert torch.equal(batch.target, tokens + 1)
        assert batch.inputs["place"].tolist() == list(range(made.places))
        assert batch.inputs["fresh"].tolist() == [step == 0] * made.places
        if step:
            assert torch.equal(tokens[:, 0], batches[step - 1].target[:, -1])
    seen = torch.cat([b.inputs["tokens"].flatten() for b in batches])
    assert len(seen.unique()) == len(seen)  # no token twice an epoch


def test_epochs_begin_at_different_places_and_can_be_begun_in_the_middle() -> None:
    made = stream(300, 4)
    begins = {int(next(iter(made.epoch(e))).inputs["tokens"][0, 0]) for e in range(12)}
    assert len(begins) > 3
    assert max(begins) < LENGTH
    whole, rest = list(made.epoch(2)), list(made.epoch(2, skip=3))
    assert len(rest) == len(whole) - 3
    assert not rest[0].inputs["fresh"].any()
    for one, two in zip(whole[3:], rest, strict=True):
        assert torch.equal(one.inputs["tokens"], two.inputs["tokens"])


@pytest.mark.parametrize("total", [13, LENGTH * STRETCH * 4 + 20, LENGTH * STRETCH * 3 - 1])
def test_evaluation_predicts_every_token_but_the_first_once(total: int) -> None:
    made = stream(total, 3, shuffle=False)
    assert made.places == max(1, min(3, made.rows // STRETCH))
    said: list[int] = []
    before: dict[int, int] = {}
    for step, batch in enumerate(made.epoch(0)):
        for row, place in enumerate(batch.inputs["place"].tolist()):
            assert bool(batch.inputs["fresh"][row]) == (step == 0)
            first = int(batch.inputs["tokens"][row, 0])
            assert before.get(place, first) == first
            before[place] = int(batch.target[row, -1])
        said += [t for t in batch.target.flatten().tolist() if t >= 0]
    assert sorted(said) == list(range(1, total))


def test_ranks_hold_the_same_places_in_every_step() -> None:
    whole = list(stream(200, 5).epoch(0))
    for rank in range(2):
        for one, part in zip(whole, stream(200, 5, rank=rank, world=2).epoch(0), strict=True):
            own = part.inputs["place"]
            assert torch.equal(one.inputs["tokens"][own], part.inputs["tokens"])


def test_only_running_text_goes_on() -> None:
    rows = (np.zeros((20, 3), np.float32), np.arange(20) % 2)
    with pytest.raises(ConfigError, match="carry=true, and arrays is not read as running text"):
        open_data(rows, DataOptions(carry=True))
