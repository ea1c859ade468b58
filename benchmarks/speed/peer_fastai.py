"""fastai at its best: `Learner.fit` with no recorder, progress bar or metrics.

fastai imports torchvision; nothing of it is used (see `peer_torch` for what that takes).
"""

# isort: skip_file
from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from peer_torch import accuracy, batched, tuned_model  # first: it declares what torchvision lacks

import torch
from fastai.callback.core import Callback
from fastai.data.core import DataLoaders
from fastai.learner import Learner, Recorder
from fastai.optimizer import OptimWrapper

if TYPE_CHECKING:
    from contender import Clock
    from works import Data, Work


class Mark(Callback):
    """Marks the clock after each epoch's training."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock

    def after_train(self) -> None:
        """Mark the end of the epoch's training."""
        self.clock.mark()


def train(work: Work, data: Data, epochs: int, clock: Clock, seed: int) -> float:
    """Train by fastai's Learner."""
    torch.manual_seed(seed)
    model = tuned_model(work, seed)
    options: dict[str, Any] = {"fused": True}
    kind = torch.optim.Adam
    if work.optimizer == "nesterov":
        kind = torch.optim.SGD
        options |= {
            "momentum": work.momentum, "nesterov": True, "weight_decay": work.weight_decay
        }  # fmt: skip
    learner = Learner(
        DataLoaders(batched(work, data), [], device=torch.device("cpu")), model,
        loss_func=torch.nn.CrossEntropyLoss(), lr=work.lr,
        opt_func=partial(OptimWrapper, opt=partial(kind, **options)), cbs=[Mark(clock)],
    )  # fmt: skip
    learner.remove_cb(Recorder)
    with learner.no_logging():
        learner.fit(epochs)
    clock.settings = f"{model.settings}, fused, batches by index, no recorder"
    return accuracy(work, data, model)
