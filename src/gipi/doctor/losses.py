"""What a loss function is, told by what it computes and not by its name.

A lambda around `F.cross_entropy` is cross-entropy; one that multiplies it by -1 is minus that.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Known = Callable[[Tensor, Tensor], Tensor]


def _moved_classes(o: Tensor, y: Tensor) -> Tensor:
    """Return (..., C) outputs as the (N, C) that torch's losses of classes want."""
    return o.reshape(-1, o.shape[-1]) if o.ndim == y.ndim + 1 and o.ndim > 2 else o


KNOWN: dict[str, Known] = {
    "cross_entropy": lambda o, y: F.cross_entropy(_moved_classes(o, y), y.reshape(-1)),
    "nll": lambda o, y: F.nll_loss(_moved_classes(o, y), y.reshape(-1)),
    "bce_logits": lambda o, y: F.binary_cross_entropy_with_logits(o, y.to(o.dtype)),
    "bce": lambda o, y: F.binary_cross_entropy(o, y.to(o.dtype)),
    "mse": lambda o, y: (o - y).square().mean(),
    "mae": lambda o, y: (o - y).abs().mean(),
    "huber": F.huber_loss,
}
MODULES = {
    nn.CrossEntropyLoss: "cross_entropy", nn.NLLLoss: "nll", nn.BCEWithLogitsLoss: "bce_logits",
    nn.BCELoss: "bce", nn.MSELoss: "mse", nn.L1Loss: "mae", nn.HuberLoss: "huber",
    nn.SmoothL1Loss: "huber",
}  # fmt: skip
CLOSE = 1e-4


@dataclass(frozen=True)
class LossKind:
    """A known loss or "other"; sign -1 where the function is its negative; scale of its mean.

    broadcast  it fits one of the elementwise losses only because shapes were broadcast
    """

    name: str = "other"
    sign: int = 1
    broadcast: bool = False

    @property
    def of_logits(self) -> bool:
        """It takes log-odds of independent classes."""
        return self.name == "bce_logits"

    @property
    def of_probabilities(self) -> bool:
        """It takes probabilities of independent classes."""
        return self.name == "bce"

    @property
    def of_classes(self) -> bool:
        """It compares a distribution over classes with a class."""
        return self.name in ("cross_entropy", "nll")

    @property
    def elementwise(self) -> bool:
        """It compares numbers with numbers of the same shape."""
        return self.name in ("mse", "mae", "huber", "bce", "bce_logits")


def loss_kind(loss: Any, said: Any, y: Any) -> LossKind:
    """Return what `loss` computes for outputs and targets: told by its class, else by its value.

    Values are compared at the outputs given and at outputs of another scale, so that two losses
    that agree by chance are told apart.
    """
    if not isinstance(said, Tensor) or not isinstance(y, Tensor):
        return LossKind(MODULES.get(type(loss), "other"))
    if type(loss) in MODULES:
        name = MODULES[type(loss)]
        wide = name in ("mse", "mae", "huber") and said.shape != y.shape
        return LossKind(name, 1, wide)
    with torch.no_grad():
        found = [_value(loss, o, y) for o in _trials(said)]
        if any(v is None for v in found):
            return LossKind()
        for name, known in KNOWN.items():
            should = [_value(known, o, y) for o in _trials(said)]
            for sign in (1, -1):
                if all(
                    s is not None and f is not None and abs(f - sign * s) <= CLOSE * (1 + abs(s))
                    for f, s in zip(found, should, strict=True)
                ):
                    wide = name in ("mse", "mae", "huber") and said.shape != y.shape
                    return LossKind(name, sign, wide)
    return LossKind()


def _trials(said: Tensor) -> list[Tensor]:
    """Return the outputs, and the same spread over other values of the kind they are."""
    said = said.detach()
    if bool(((said >= 0) & (said <= 1)).all()):
        return [said, 0.25 + 0.5 * said]
    return [said, said * 0.5 + 0.1 * torch.linspace(-1, 1, said.numel()).reshape(said.shape)]


def _value(loss: Any, said: Tensor, y: Tensor) -> float | None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # shapes that broadcast are tried on purpose
        try:
            return float(loss(said, y))
        except (RuntimeError, ValueError, IndexError, TypeError):
            return None
