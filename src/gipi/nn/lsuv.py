"""LSUV: initial weights that are measured on a batch rather than derived."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

from gipi.core.errors import ModelError
from gipi.nn.init import initialise
from gipi.nn.observe import observe

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Generator

    from gipi.core.batch import Batch

WEIGHTED = (
    nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d,
    nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d,
)  # fmt: skip
MOST = 10  # rescalings of one layer; one is enough where its bias is zero


def lsuv(
    model: nn.Module,
    batch: Batch | Tensor | tuple[Tensor, ...],
    *,
    generator: Generator | None = None,
    tolerance: float = 0.01,
) -> dict[str, float]:
    """Scale the weights so that every layer's output has variance 1 on `batch`; return them.

        W ← W / √Var(W x + b),  layer after layer, until |Var - 1| < tolerance

    Mishkin and Matas 2016, "All you need is a good init", arXiv:1511.06422. Differs from the paper
    in that one forward pass does all layers: each is scaled where the pass reaches it, and what
    goes on from there is already its new output.

    batch      inputs of the model: a `Batch`, one tensor, or a tuple
    generator  draw orthonormal weights from it first, as in the paper; None scales those that are

    Linear and convolution layers count, each at its first call, in the order of the calls; the
    result has one name and variance for each. Dropout is off and norms use their running
    statistics, which stay as they were. Raises `ModelError` for a layer whose output does not vary.

    >>> import torch
    >>> net = nn.Sequential(nn.Linear(8, 32), nn.Tanh(), nn.Linear(32, 4))
    >>> found = lsuv(net, torch.randn(64, 8), generator=torch.Generator().manual_seed(0))
    >>> [(name, round(variance, 2)) for name, variance in found.items()]
    [('0', 1.0), ('2', 1.0)]
    """
    if generator is not None:
        initialise(model, generator, init="lsuv")
    found: dict[str, float] = {}
    observe(model, batch, lambda name: _scaler(name, found, tolerance), kinds=WEIGHTED)
    return found


def _scaler(
    name: str, found: dict[str, float], tolerance: float
) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]:
    """Return a forward hook that scales its layer, and answers with the layer's new output."""

    def scale(layer: nn.Module, seen: tuple[Tensor, ...], out: Tensor) -> Tensor:
        if name in found:
            return out
        for _ in range(MOST):
            variance = float(out.float().var(correction=0))  # sync
            if not 0 < variance < float("inf"):
                raise ModelError(
                    f"the output of layer '{name or type(layer).__name__}' has variance {variance}",
                    "rows that differ, and finite numbers",
                    "give lsuv a typical batch, and draw weights that are not zero",
                )
            if abs(variance - 1) < tolerance:
                break
            layer.weight.div_(variance**0.5)  # type: ignore[operator]
            out = layer.forward(*seen)
        found[name] = float(out.float().var(correction=0))  # sync
        return out

    return scale
