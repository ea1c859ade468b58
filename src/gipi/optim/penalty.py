"""The L1 penalty as a term of the gradient."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from gipi.core.errors import ConfigError
from gipi.optim.groups import parameters
from gipi.optim.lbfgs import LBFGS

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor
    from torch.optim import Optimizer


def bind_l1(optimizer: Optimizer, l1: float) -> Callable[[], None]:
    """Return a function that adds l1·sign(w) to the gradients of the decayed weights.

    That is the sub-gradient of l1·Σ|w|, taken as 0 at w = 0 (Tibshirani 1996). Call it between
    backward and the step, after clipping. Raises `ConfigError` for lbfgs: its line search needs a
    smooth function.
    """
    if isinstance(optimizer, LBFGS):
        raise ConfigError("l1 with lbfgs", "an optimizer without a line search",
                          "use l2, or another optimizer")  # fmt: skip
    decayed = parameters(optimizer.param_groups, decayed_only=True)

    @torch.no_grad()
    def add() -> None:
        weights: list[Tensor] = []
        grads: list[Tensor] = []
        for p in decayed:
            if p.grad is not None:
                weights.append(p)
                grads.append(p.grad)
        if grads:
            signs = torch._foreach_sign(weights)  # noqa: SLF001
            torch._foreach_add_(grads, signs, alpha=l1)

    return add
