"""The textbook loop: DataLoader over a TensorDataset, eager, fp32, torch.optim's defaults.

Exactly what tutorials teach and most people write: no settings touched, `loss.item()` added up in
each step for the average that is printed after each epoch.
"""

from __future__ import annotations

from collections.abc import Iterator
from time import perf_counter as now

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from works import Data, Work


def optimizer_of(work: Work, model: nn.Module) -> torch.optim.Optimizer:
    """Return the optimizer of the work with torch's defaults for everything else."""
    if work.optimizer == "nesterov":
        return torch.optim.SGD(
            model.parameters(), lr=work.lr, momentum=work.momentum, nesterov=True,
            weight_decay=work.weight_decay,
        )  # fmt: skip
    return torch.optim.Adam(model.parameters(), lr=work.lr)


def steps(work: Work, data: Data, model: nn.Module, *, seed: int = 0) -> Iterator[float]:
    """Train `model` for ever; yield the wall-clock seconds of each step, data loading included."""
    torch.manual_seed(seed)
    loader = DataLoader(TensorDataset(data.x, data.y), batch_size=work.batch_size, shuffle=True)
    optimizer = optimizer_of(work, model)
    criterion = nn.CrossEntropyLoss()
    model.train()
    begin = now()
    while True:
        running = 0.0
        for x, y in loader:
            optimizer.zero_grad()
            loss = criterion(model(x), y)
            loss.backward()
            optimizer.step()
            running += loss.item()
            yield now() - begin
            begin = now()


@torch.no_grad()
def accuracy(data: Data, model: nn.Module, *, batch: int = 256) -> float:
    """Return the share of validation rows that `model` names rightly."""
    model.eval()
    right = 0
    for x, y in DataLoader(TensorDataset(data.x_val, data.y_val), batch_size=batch):
        right += (model(x).argmax(1) == y).sum().item()
    model.train()
    return right / len(data.y_val)
