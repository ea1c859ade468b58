"""What a loss function is, told by what it computes and not by its name.

A lambda around `F.cross_entropy` is cross-entropy; one that multiplies it by -1 is minus that.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gipi.doctor.hushed import hushed
from gipi.doctor.tape import LOSSES, heard

Known = Callable[[Tensor, Tensor], Tensor]


def _moved_classes(o: Tensor, y: Tensor) -> Tensor:
    """Return (..., C) outputs as the (N, C) that torch's losses of classes want."""
    return o.reshape(-1, o.shape[-1]) if o.ndim == y.ndim + 1 and o.ndim > 2 else o


def shared_out(y: Tensor) -> tuple[int, int] | None:
    """Return (dimension, number) of what shares in targets sum to one over; None for none."""
    for dim in (y.ndim - 1, 1):
        if 0 < dim < y.ndim and y.shape[dim] > 1 and bool(((y.sum(dim) - 1).abs() < 1e-3).all()):
            return dim, y.shape[dim]
    return None


def _kl(o: Tensor, y: Tensor) -> Tensor:
    """Return the divergence of (N, ...) targets that are shares from what is said, a row.

    Zeros and ones that are no shares may be costs: what a choice is expected to cost is linear too.
    """
    shares = y.is_floating_point() and not bool((y < 0).any()) and shared_out(y) is not None
    if o.shape != y.shape or not shares:
        message = "no shares"
        raise ValueError(message)
    return F.kl_div(o, y.to(o.dtype), reduction="batchmean")


KNOWN: dict[str, Known] = {
    "cross_entropy": lambda o, y: F.cross_entropy(_moved_classes(o, y), y.reshape(-1)),
    "nll": lambda o, y: F.nll_loss(_moved_classes(o, y), y.reshape(-1)),
    "bce_logits": lambda o, y: F.binary_cross_entropy_with_logits(o, y.to(o.dtype)),
    "bce": lambda o, y: F.binary_cross_entropy(o, y.to(o.dtype)),
    "mse": lambda o, y: (o - y).square().mean(),
    "mae": lambda o, y: (o - y).abs().mean(),
    "huber": F.huber_loss,
    "kl": _kl,
}
MODULES = {
    nn.CrossEntropyLoss: "cross_entropy", nn.NLLLoss: "nll", nn.BCEWithLogitsLoss: "bce_logits",
    nn.BCELoss: "bce", nn.MSELoss: "mse", nn.L1Loss: "mae", nn.HuberLoss: "huber",
    nn.SmoothL1Loss: "huber",
}  # fmt: skip
CLOSE = 1e-4


@dataclass(frozen=True)
class LossKind:
    """A known loss or "other"; sign -1 where the function is its negative.

    broadcast  it fits one of the elementwise losses only because shapes were broadcast
    scale      the function is so many times the mean of the known loss
    """

    name: str = "other"
    sign: int = 1
    broadcast: bool = False
    scale: float = 1.0

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
    if said.is_complex() or y.is_complex():
        return LossKind()  # the losses that are known are of real numbers
    with torch.no_grad():
        found = [_value(loss, o, y) for o in _trials(said)]
        if any(v is None for v in found):
            return LossKind()
        for name, known in KNOWN.items():
            should = [_value(known, o, y) for o in _trials(said)]
            scale = _scale(found, should)
            if scale is not None:
                wide = name in ("mse", "mae", "huber") and said.shape != y.shape
                return LossKind(name, 1 if scale > 0 else -1, wide, abs(scale))
    return _by_call(loss, said, y)


def _scale(found: list[Any], should: list[Any]) -> float | None:
    """Return the factor by which one list of values is the other, exactly 1 or -1 first."""
    if any(v is None or not math.isfinite(v) for v in (*found, *should)):
        return None
    ratio = found[0] / should[0] if should[0] else 0.0
    apart = max(should) - min(should) > 0.01 * abs(should[0])
    for scale in (1.0, -1.0, *([ratio] if apart and ratio else [])):
        if all(abs(f - scale * s) <= CLOSE * (abs(scale) + abs(scale * s))
               for f, s in zip(found, should, strict=True)):  # fmt: skip
            return scale
    return None


def _by_call(loss: Any, said: Tensor, y: Tensor) -> LossKind:
    """Return the one loss of torch's that a function calls with the outputs, whatever it adds."""
    said = said.detach().requires_grad_(said.is_floating_point())
    try:
        with hushed(), torch.enable_grad():
            tape = heard(loss, said, y)
            calls = tape.of(LOSSES)
            if len({op.kind for op in calls}) != 1 or not isinstance(tape.outputs, Tensor):
                return LossKind()
            op = calls[0]
            fed, name = tape.source_of(op.inputs[0]), op.kind
            if fed is not None and name == "nll" and fed.kind == "log_softmax":
                fed, name = None, "cross_entropy"
            if fed is not None:
                return LossKind()
            slope = torch.autograd.grad(tape.outputs, op.output, allow_unused=True)[0]
    except (RuntimeError, ValueError, IndexError, TypeError):
        return LossKind()
    sign = -1 if slope is not None and _all_against(slope, said, y) else 1
    wide = len(op.inputs) > 1 and op.inputs[0].shape != op.inputs[1].shape
    return LossKind(name, sign, wide and name in ("mse", "mae", "huber"))


def _all_against(slope: Tensor, said: Tensor, y: Tensor) -> bool:
    """Whether the value of every row is weighed by less than 0, and by what is not its reward.

    Actions that turned out badly are rightly made less likely: what they brought stands in targets
    beside what was done. Rows are then weighed differently.
    """
    if not bool((slope <= 0).all()) or not bool((slope < 0).any()):
        return False
    beside = y.ndim > 1 and y.numel() > len(y) and y.shape != said.shape
    return not beside or float(slope.max() - slope.min()) <= CLOSE * float(slope.abs().max())


def _trials(said: Tensor) -> list[Tensor]:
    """Return the outputs, and the same spread over other values of the kind they are."""
    said = said.detach()
    line = torch.linspace(-1, 1, said.numel(), device=said.device).reshape(said.shape)
    if bool(((said >= 0) & (said <= 1)).all()):
        return [said, 0.25 + 0.5 * said, (0.1 + 0.6 * said + 0.2 * line.abs()).to(said.dtype)]
    return [said, (said * 0.5 + 0.1 * line).to(said.dtype), (0.3 * line - said).to(said.dtype)]


def _value(loss: Any, said: Tensor, y: Tensor) -> float | None:
    with hushed():
        # shapes that broadcast are tried on purpose
        try:
            return float(loss(said, y))
        except (RuntimeError, ValueError, IndexError, TypeError):
            return None
