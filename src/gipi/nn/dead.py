"""Dead units: how many rectifiers answer nothing to any row."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

from gipi.nn.observe import observe

if TYPE_CHECKING:
    from collections.abc import Callable

    from gipi.core.batch import Batch

# Exactly zero over a half line, so that a unit can be stuck there; hard-swish is below -3.
CUTTING = (nn.ReLU, nn.ReLU6, nn.Hardswish)


def dead_units(model: nn.Module, batch: Batch | Tensor | tuple[Tensor, ...]) -> dict[str, float]:
    """Return for each ReLU of the model the share of its units that answer 0 to all of `batch`.

    Such a unit has no gradient on these rows; where it is dead on all training rows it never learns
    again. A unit is a column of (B, D) or a channel of (B, C, positions...), over all calls. A ReLU
    that the model calls as a function is no module and is not seen.

    batch  inputs of the model: a `Batch`, one tensor, or a tuple

    The advisor takes the mean as `Situation(dead_units=...)`. Maas, Hannun and Ng 2013, "Rectifier
    nonlinearities improve neural network acoustic models".

    >>> import torch
    >>> net = nn.Sequential(nn.Linear(1, 2), nn.ReLU())
    >>> with torch.no_grad():
    ...     _ = net[0].weight.zero_(), net[0].bias.copy_(torch.tensor([-1.0, 1.0]))
    >>> dead_units(net, torch.randn(8, 1))
    {'1': 0.5}
    """
    alive: dict[str, Tensor] = {}

    def watch(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def look(layer: nn.Module, seen: tuple[Tensor, ...], out: Tensor) -> None:  # noqa: ARG001
            axes = [axis for axis in range(out.ndim) if axis != 1]
            units = (out != 0).any(0) if out.ndim == 1 else (out != 0).sum(axes) > 0
            alive[name] = alive[name] | units if name in alive else units

        return look

    observe(model, batch, watch, kinds=CUTTING)
    return {name: 1 - units.float().mean().item() for name, units in alive.items()}  # sync
