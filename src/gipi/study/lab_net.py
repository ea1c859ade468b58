"""Data and the tiny loop of the lab: digits, a few steps of any optimizer, losses as they are."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from gipi import data, losses, optim
from gipi.core.seed import derive
from gipi.core.svg import Line

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping
    from typing import Any

    from torch import Tensor, nn

    Loss = Callable[[Tensor, Tensor], tuple[Tensor, float | Tensor]]


@dataclass(frozen=True)
class Rows:
    """Training and validation rows: inputs (N, ...) float, targets. Test rows are never read."""

    x: Tensor
    y: Tensor
    x_val: Tensor
    y_val: Tensor


def digits(seed: int = 0) -> Rows:
    """Return the embedded digits, (N, 1, 8, 8) standardised pictures and int64 classes."""
    found = data.open_data("digits", data.DataOptions(seed=seed))
    parts = []
    for split in ("train", "val"):
        batch = next(found.stream(split, batch_size="full", shuffle=False).epoch(0))
        assert batch.target is not None
        parts += [next(iter(batch.inputs.values())).float().contiguous(), batch.target]
    return Rows(*parts)


@dataclass(frozen=True)
class Curve:
    """Losses after so many steps and rows; the first point is the start.

    A descent that left the finite numbers ends with a NaN.
    """

    steps: list[int]
    losses: list[float]

    @property
    def last(self) -> float:
        """The last loss."""
        return self.losses[-1]

    def line(self, name: str, colour: int, *, scale: float = 1.0) -> Line:
        """Return the curve as a line of a chart; x is steps times `scale`."""
        return Line(name, [s * scale for s in self.steps], self.losses, colour)


@torch.no_grad()
def mean_loss(
    model: nn.Module, x: Tensor, *, y: Tensor, loss: Loss = losses.cross_entropy
) -> float:
    """Return the mean loss over rows, in evaluation mode."""
    was = model.training
    model.eval()
    total, count = loss(model(x), y)
    model.train(was)
    return float(total) / float(count)


def descend(
    model: nn.Module,
    rows: tuple[Tensor, Tensor],
    *,
    optimizer: str,
    lr: float,
    steps: int,
    batch_size: int | None = None,
    seed: int = 0,
    every: int | Collection[int] = 5,
    loss: Loss = losses.cross_entropy,
    options: Mapping[str, Any] | None = None,
    probe: tuple[Tensor, Tensor] | None = None,
) -> Curve:
    """Train `model` in place for some steps and return the loss of `probe` on the way.

    batch_size  rows a step, drawn without return in an order that `seed` gives; None for all
    every       steps between two looks at the loss, or the steps after which to look
    options     further options of the optimizer
    probe       rows whose loss is looked at; None: the training rows

    Stops where the loss is no longer finite: nothing can come back from there.
    """
    x, y = rows
    look = probe or rows
    size = min(batch_size or len(x), len(x))
    order = torch.Generator().manual_seed(derive(seed, "lab order"))
    queue = torch.empty(0, dtype=torch.int64)
    stepper = optim.build_optimizer(optimizer, model, lr=lr, options=options)
    curve = Curve([0], [mean_loss(model, look[0], y=look[1], loss=loss)])
    picked = rows

    def closure() -> float:
        stepper.zero_grad()
        total, count = loss(model(picked[0]), picked[1])
        mean = total / count
        mean.backward()
        return float(mean.detach())

    for step in range(1, steps + 1):
        if size < len(x):
            if len(queue) < size:
                queue = torch.randperm(len(x), generator=order)
            picked = (x[queue[:size]], y[queue[:size]])
            queue = queue[size:]
        stepper.step(closure)
        due = step % every == 0 if isinstance(every, int) else step in every
        if due or step == steps:
            value = mean_loss(model, look[0], y=look[1], loss=loss)
            curve.steps.append(step)
            curve.losses.append(value if math.isfinite(value) else math.nan)
            if not math.isfinite(value):
                break
    return curve
