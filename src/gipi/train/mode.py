"""Training and evaluation mode, module by module."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from torch import nn

if TYPE_CHECKING:
    from collections.abc import Iterator

RUNNING = (nn.modules.batchnorm._BatchNorm, nn.modules.instancenorm._InstanceNorm)  # noqa: SLF001
"""Layers that move statistics without any gradient."""


def train_mode(model: nn.Module) -> None:
    """Put the model into training mode, all but normalisation layers that are frozen whole.

    A frozen layer does not move: running statistics of a normalisation whose parameters all stay
    fixed stay fixed as well, and are what it normalises with.
    """
    model.train()
    for module in model.modules():
        if isinstance(module, RUNNING):
            own = list(module.parameters(recurse=False))
            if own and not any(p.requires_grad for p in own):
                module.eval()


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
