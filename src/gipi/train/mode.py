"""Training and evaluation mode, module by module."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from torch import nn

if TYPE_CHECKING:
    from collections.abc import Iterator


def train_mode(model: nn.Module) -> None:
    """Put the model into training mode, all but what is frozen whole.

    A frozen part is a fixed function: running statistics of its normalisations stay as they are,
    and are what it normalises with, and nothing is dropped in it.
    """
    model.train()
    for module in model.modules():
        own = list(module.parameters())
        if own and not any(p.requires_grad for p in own):
            for part in module.modules():  # cuDNN sends no gradient through a net that evaluates
                part.training = isinstance(part, nn.RNNBase)


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Put the model into evaluation mode inside the block, and each module back after it."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True
