"""Training on several ranks: plain DistributedDataParallel, and what may not be split."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

from torch.nn.parallel import DistributedDataParallel

from gipi.core import dist
from gipi.core.errors import ConfigError
from gipi.nn import mixes_rows

if TYPE_CHECKING:
    import torch
    from torch import nn

    from gipi.core.config import Recipe
    from gipi.tasks import Task


def wrap(net: nn.Module, device: torch.device) -> nn.Module:
    """Return `net` under DDP when several ranks train together, else `net` itself."""
    if dist.world() == 1:
        return net
    ids = [device.index] if device.type == "cuda" else None
    return DistributedDataParallel(net, device_ids=ids)


def unsynced(net: nn.Module, *, last: bool) -> AbstractContextManager[Any]:
    """Return the context of a backward pass whose gradients wait for a later micro-batch."""
    if last or not isinstance(net, DistributedDataParallel):
        return nullcontext()
    return net.no_sync()


def check_separable(model: nn.Module, task: Task, recipe: Recipe) -> None:
    """Raise `ConfigError` where splitting a batch would change what is computed.

    Batch norm computes statistics over the rows of a forward pass, and some losses compare rows
    with each other; micro-batches and ranks then change the result, unless that is accepted.
    """
    if recipe.accept_mixing or (recipe.micro_batch is None and dist.world() == 1):
        return
    mixers = mixes_rows(model)
    if mixers or not task.row_separable:
        what = f"{mixers[0]} and {len(mixers) - 1} more" if len(mixers) > 1 else "".join(mixers)
        raise ConfigError(
            f"{what or 'the loss of task ' + task.name} mixes the rows of a batch",
            "a row-separable model and loss for micro-batches or several ranks",
            "use group or layer norm, drop micro_batch, or set accept_mixing=true",
        )
