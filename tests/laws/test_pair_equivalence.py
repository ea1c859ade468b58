"""Law 2 on pairs of texts: neither micro-batch nor ranks nor wider padding changes a weight.

Losses are divided by the number of target tokens of the whole step, which differs from rank to rank
and from piece to piece: a mean of means would be wrong, and is seen to be.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import torch

from gipi import models, tasks
from gipi.core.config import Recipe
from gipi.train import Setup, fit
from tests.data.pairs import dataset

if TYPE_CHECKING:
    from gipi.core.batch import Batch
    from gipi.data import Dataset
    from gipi.tasks import Loss, Task

STEPS = 30


def trained(data: Dataset, task: Task, *, micro: int | None = None) -> torch.Tensor:
    model = models.build("transformer", data.signature(task.outputs(data.schema)), seed=1, options={
        "width": 8, "layers": 1, "heads": 2, "dropout": 0.0, "positions": 64}).double()  # fmt: skip
    recipe = Recipe(steps=STEPS, optimizer="sgd", lr=0.5, micro_batch=micro)
    stream = data.stream("train", batch_size=16, seed=1)
    fit(model, task, stream, recipe, schema=data.schema, setup=Setup(), device="cpu")
    return torch.cat([p.detach().reshape(-1) for p in model.parameters()])


def of_rows(task: Task) -> Task:
    """Return the task with a planted fault: the mean of a piece's tokens counts once a row."""
    right = task.phases[0]

    def loss(model: torch.nn.Module, batch: Batch) -> Loss:
        found = right.loss(model, batch)
        total = found.total / found.count * len(batch)
        return found._replace(total=total, count=float(len(batch)))

    return replace(task, phases=(replace(right, loss=loss),))


@pytest.mark.parametrize("micro", [1, 5])
def test_micro_batches_change_no_weight(micro: int) -> None:
    data, task = dataset(90), tasks.translate()
    whole = trained(data, task)
    assert float((whole - trained(data, task, micro=micro)).abs().max()) < 1e-10
    wrong = of_rows(task)
    assert float((trained(data, wrong) - trained(data, wrong, micro=micro)).abs().max()) > 1e-6


def test_wider_padding_changes_no_weight(monkeypatch: pytest.MonkeyPatch) -> None:
    data, task = dataset(90), tasks.translate()
    narrow = trained(data, task)
    monkeypatch.setattr("gipi.data.tokens.width_of", lambda n: max(1, -(-n // 32)) * 32)
    assert float((narrow - trained(data, task)).abs().max()) < 1e-10


def test_ranks_have_the_gradient_of_the_whole() -> None:
    data, task = dataset(90), tasks.translate()
    model = models.build("transformer", data.signature(task.outputs(data.schema)), seed=1, options={
        "width": 8, "layers": 1, "heads": 2, "dropout": 0.0}).double()  # fmt: skip
    loss = task.phases[0].loss
    steps = list(data.stream("train", batch_size=16, seed=1).epoch(0))
    shares = [data.stream("train", batch_size=16, seed=1, rank=r, world=3).epoch(0)
              for r in range(3)]  # fmt: skip
    for whole, *parts in zip(steps, *shares, strict=True):
        one = loss(model, whole)
        found = [loss(model, part) for part in parts]
        assert sum(int(f.count) for f in found) == int(one.count)
        total = sum(f.total.item() for f in found)
        assert total == pytest.approx(one.total.item(), rel=1e-9)
