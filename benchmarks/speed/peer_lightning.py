"""Lightning at its best: `Trainer.fit` with everything optional switched off."""

# isort: skip_file
from __future__ import annotations

import logging
import warnings
from typing import TYPE_CHECKING, Any

from peer_torch import accuracy, batched, fused_optimizer, tuned_model  # before torchvision

import lightning
import torch
from torch.nn import functional as F

if TYPE_CHECKING:
    from contender import Clock
    from works import Data, Work


class Module(lightning.LightningModule):
    """The work's model and its loss."""

    def __init__(self, work: Work, clock: Clock, seed: int) -> None:
        super().__init__()
        self.work, self.clock = work, clock
        self.net = tuned_model(work, seed)

    def training_step(self, batch: Any, _: int) -> torch.Tensor:
        """Return the loss of one batch."""
        x, y = batch
        return F.cross_entropy(self.net(x), y)

    def on_train_epoch_end(self) -> None:
        """Mark the clock."""
        self.clock.mark()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return the fused optimizer."""
        return fused_optimizer(self.work, self.parameters())


def train(work: Work, data: Data, epochs: int, clock: Clock, seed: int) -> float:
    """Train by Lightning's Trainer."""
    warnings.filterwarnings("ignore")
    for name in ("lightning", "lightning.pytorch"):
        logging.getLogger(name).setLevel(logging.ERROR)
    torch.manual_seed(seed)
    module = Module(work, clock, seed)
    trainer = lightning.Trainer(
        max_epochs=epochs, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, barebones=True,
        use_distributed_sampler=False,
    )  # fmt: skip
    trainer.fit(module, batched(work, data))
    clock.settings = f"{module.net.settings}, barebones, fused, batches by index"
    return accuracy(work, data, module.net)
