"""Law 2 on running text: neither micro-batch nor ranks change a weight of a language model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from gipi import models, tasks
from gipi.core.config import Recipe
from gipi.data import DataOptions, Dataset, open_data
from gipi.train import Setup, fit
from tests.data.prose import prose

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gipi.core.batch import Batch

STEPS = 50


class Apart:
    """The batches of several ranks, one rank's share after the other's, as one stream."""

    def __init__(self, data: Dataset, world: int) -> None:
        self.parts = [data.stream("train", batch_size=6, seed=1, rank=r, world=world)
                      for r in range(world)]  # fmt: skip
        first = self.parts[0]
        self.rows, self.batch_size, self.steps = first.rows, first.batch_size, first.steps

    def epoch(self, epoch: int, skip: int = 0) -> Iterator[Batch]:
        """Yield the shares put together again."""
        for shares in zip(*(p.epoch(epoch, skip) for p in self.parts), strict=True):
            whole = shares[0]
            for key in whole.inputs:
                whole.inputs[key] = torch.cat([s.inputs[key] for s in shares])
            whole.target = torch.cat([s.target for s in shares if s.target is not None])
            yield whole


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    path = tmp_path_factory.mktemp("prose") / "book.txt"
    path.write_text(prose(100), encoding="utf-8")
    return open_data(str(path), DataOptions(task="generate", max_length=12))


def weights(data: Dataset, *, micro: int | None = None, world: int = 1) -> torch.Tensor:
    task = tasks.generate()
    signature = data.signature(task.outputs(data.schema))
    options = {"width": 8, "layers": 1, "heads": 2}
    model = models.build("gpt2", signature, options=options).double()
    stream = data.stream("train", batch_size=6, seed=1) if world == 1 else Apart(data, world)
    recipe = Recipe(steps=STEPS, optimizer="sgd", lr=0.5, micro_batch=micro)
    fit(model, task, stream, recipe, schema=data.schema, setup=Setup(), device="cpu")
    return torch.cat([p.detach().reshape(-1) for p in model.parameters()])


@pytest.fixture(scope="module")
def whole(data: Dataset) -> torch.Tensor:
    return weights(data)


@pytest.mark.parametrize("micro", [1, 4])
def test_micro_batches_change_no_weight(
    data: Dataset, whole: torch.Tensor, micro: int
) -> None:  # fmt: skip
    assert float((whole - weights(data, micro=micro)).abs().max()) < 1e-10


def test_the_shares_of_ranks_are_the_batch(data: Dataset, whole: torch.Tensor) -> None:
    assert float((whole - weights(data, world=3)).abs().max()) < 1e-10
