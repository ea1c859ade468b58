"""skorch at its best: `NeuralNet.fit` without validation split, history printing or scoring."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from peer_torch import accuracy, dataset, tuned_model
from skorch import NeuralNet
from skorch.callbacks import Callback
from torch.utils.data import BatchSampler, DataLoader, RandomSampler

if TYPE_CHECKING:
    from contender import Clock
    from works import Data, Work


class Mark(Callback):
    """Marks the clock after each epoch."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock

    def on_epoch_end(self, net: NeuralNet, **_: Any) -> None:
        """Mark the end of the epoch."""
        self.clock.mark()


def by_index(rows: Any, *, batch_size: int, **_: Any) -> DataLoader:
    """Return a loader that gathers whole batches by index."""
    sampler = BatchSampler(RandomSampler(rows), batch_size, drop_last=False)
    return DataLoader(rows, sampler=sampler, batch_size=None)


def train(work: Work, data: Data, epochs: int, clock: Clock, seed: int) -> float:
    """Train by skorch."""
    torch.manual_seed(seed)
    model = tuned_model(work, seed)
    options: dict[str, Any] = {"optimizer": torch.optim.Adam}
    if work.optimizer == "nesterov":
        options = {
            "optimizer": torch.optim.SGD, "optimizer__momentum": work.momentum,
            "optimizer__nesterov": True, "optimizer__weight_decay": work.weight_decay,
        }  # fmt: skip
    net = NeuralNet(
        model, criterion=torch.nn.CrossEntropyLoss, lr=work.lr, optimizer__fused=True,
        max_epochs=epochs, batch_size=work.batch_size, train_split=None, iterator_train=by_index,
        callbacks=[Mark(clock)], callbacks__print_log=None, verbose=0, **options,
    )  # fmt: skip
    net.fit(dataset(work, data.x, data.y))
    clock.settings = f"{model.settings}, fused, batches by index, no scoring"
    return accuracy(work, data, net.module_)
