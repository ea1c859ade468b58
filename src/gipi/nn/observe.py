"""One pass through a model in which some of its layers are looked at."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from gipi.core.batch import Batch

if TYPE_CHECKING:
    from collections.abc import Callable

    Hook = Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor | None]


def observe(
    model: nn.Module,
    batch: Batch | Tensor | tuple[Tensor, ...],
    hook: Callable[[str], Hook],
    *,
    kinds: tuple[type[nn.Module], ...],
) -> None:
    """Run the model once on `batch`, with `hook(name)` on every layer of these kinds.

    batch  inputs of the model: a `Batch`, one tensor, or a tuple

    Dropout is off and norms use their running statistics; no gradient is kept. Hooks and modes are
    as before afterwards, whatever happens.
    """
    modes = {module: module.training for module in model.modules()}
    handles = [
        layer.register_forward_hook(hook(name))
        for name, layer in model.named_modules()
        if isinstance(layer, kinds)
    ]
    model.eval()
    try:
        with torch.no_grad():
            model(*inputs_of(batch))
    finally:
        for handle in handles:
            handle.remove()
        for module, training in modes.items():
            module.training = training


def inputs_of(batch: Batch | Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Return the positional inputs that a model takes from a `Batch`, a tensor or a tuple."""
    if isinstance(batch, Batch):
        return tuple(batch.inputs.values())
    return (batch,) if isinstance(batch, Tensor) else tuple(batch)
