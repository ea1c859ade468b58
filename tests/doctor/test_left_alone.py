"""A diagnosis leaves generators, loaders, buffers and modes as they were, whatever it finds."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tests.doctor.patients import Split, blobs, experiment, regression
from torch import Tensor, nn
from torch.utils.data import DataLoader, RandomSampler, TensorDataset

from gipi.doctor import diagnose

BATCH = 48


class Noting(nn.Module):
    """A loss that keeps how often it was asked, and draws."""

    def __init__(self, loss) -> None:
        super().__init__()
        self.loss = loss
        self.register_buffer("asked", torch.zeros(()))

    def forward(self, said: Tensor, y: Tensor) -> Tensor:
        self.asked += 1
        return self.loss(said + 1e-6 * torch.randn_like(said), y)


def net(out: int = 4, momentum: float = 0.1) -> nn.Module:
    return nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16, momentum=momentum), nn.Dropout(0.2),
                         nn.ReLU(), nn.Linear(16, out))  # fmt: skip


def focal(o, y):
    return -((1 - o.softmax(1)) ** 2 * o.log_softmax(1)).gather(1, y[:, None]).mean()


def moved(splits: tuple[Split, Split]) -> tuple[Split, Split]:
    train, (V, v) = splits
    return train, (V + 1.5, v)


CASES = {
    "healthy classes": (net, blobs, F.cross_entropy, 0.01),
    "healthy numbers": (lambda: net(1), regression, F.mse_loss, 0.01),
    "a loss of its own": (net, blobs, focal, 0.01),
    "a sign that is turned": (lambda: net(1), regression, lambda o, y: -F.l1_loss(o, y), 0.01),
    "the last batch alone": (lambda: net(momentum=0.95), blobs, F.cross_entropy, 0.01),
    "rows that have moved": (net, lambda: moved(blobs()), F.cross_entropy, 0.01),
    "steps that are too long": (net, blobs, focal, 3.0),
}


@pytest.mark.parametrize("own", ["", "loader", "sampler"])
@pytest.mark.parametrize("name", CASES)
def test_a_diagnosis_leaves_everything_as_it_was(name, own) -> None:
    torch.manual_seed(0)
    made, rows, loss, lr = CASES[name]
    splits = [TensorDataset(*split) for split in rows()]
    mine = torch.Generator().manual_seed(7)
    if own == "sampler":
        train = DataLoader(splits[0], BATCH, sampler=RandomSampler(splits[0], generator=mine))
    else:
        train = DataLoader(splits[0], BATCH, shuffle=True, generator=mine if own else None)
    val = DataLoader(splits[1], BATCH, shuffle=True)
    exp = experiment(made(), (train, val), loss=Noting(loss), lr=lr, epochs=2)
    exp.model.eval()

    def held() -> list[Tensor]:
        return [t.clone() for t in (
            torch.get_rng_state(), mine.get_state(), *exp.loss.buffers(),
            *exp.model.buffers(), *exp.model.parameters(),
            torch.tensor([m.training for m in exp.model.modules()]),
            torch.tensor(hash(random.getstate())),
            torch.as_tensor(np.random.get_state()[1].astype(np.int64)),  # noqa: NPY002
        )]  # fmt: skip

    before = held()
    diagnosis = diagnose(exp)
    assert not diagnosis.broken
    assert [torch.equal(a, b) for a, b in zip(before, held(), strict=True)] == [True] * len(before)


def test_the_run_that_is_watched_begins_where_that_of_the_user_does() -> None:
    asked = []
    for rules in ((), None):
        torch.manual_seed(0)
        exp = experiment(net(), blobs(), loss=Noting(focal), epochs=1)
        asked.append(diagnose(exp, train=True, rules=rules).trained.loss.asked)
    assert asked[0] == asked[1] > 0
