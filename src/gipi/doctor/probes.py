"""Counter-experiments: short trainings from the same state, with and without one change."""

from __future__ import annotations

import math
from itertools import cycle, islice
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gipi.doctor.copies import duplicate
from gipi.doctor.experiment import batches, call, outputs, plain_step, take_step

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from gipi.doctor.experiment import Experiment
    from gipi.doctor.facts import Facts

OVERFIT_ROWS = 16
OVERFIT_STEPS = 150


def after_steps(
    exp: Experiment,
    steps: int,
    *,
    change: Callable[[Experiment], object] | None = None,
    own_step: bool = True,
    on: Iterable[tuple[Any, Any]] | None = None,
) -> tuple[list[float], Experiment]:
    """Train a copy of `exp` for some steps, changed first, and return its losses and the copy.

    own_step  False: the plain step, whatever the user's own one does
    on        batches to train on, repeated; None: those of the run, from its first epoch on
    The same batches come in every call, so that two calls differ by their change alone.
    """
    twin = duplicate(exp)
    if change is not None:
        change(twin)
    given = list(islice(on, steps)) if on is not None else list(_first(twin, steps))
    twin.model.train()
    losses = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(twin.seed)
        for xb, yb in islice(cycle(given), steps):
            loss = (take_step if own_step else plain_step)(twin, xb, yb)
            losses.append(float(loss.detach()) if isinstance(loss, Tensor) else float(loss))
            if not math.isfinite(losses[-1]):
                losses += [math.inf] * (steps - len(losses))
                break
    return losses, twin


def _first(exp: Experiment, steps: int) -> Iterable[tuple[Any, Any]]:
    epoch = 0
    while True:
        seen = 0
        for pair in batches(exp, epoch):
            seen += 1
            yield pair
        epoch += 1
        if not seen or epoch > steps:
            return


def times_lr(factor: float) -> Callable[[Experiment], str]:
    """Return the change that multiplies every learning rate, of the schedule too."""

    def change(exp: Experiment) -> str:
        old = exp.optimizer.param_groups[0]["lr"]
        for group in exp.optimizer.param_groups:
            group["lr"] *= factor
            if "initial_lr" in group:
                group["initial_lr"] *= factor
        if exp.scheduler is not None and hasattr(exp.scheduler, "base_lrs"):
            exp.scheduler.base_lrs = [lr * factor for lr in exp.scheduler.base_lrs]
        for key in ("max_lrs", "min_lrs"):
            if hasattr(exp.scheduler, key):
                setattr(exp.scheduler, key, [lr * factor for lr in getattr(exp.scheduler, key)])
        return f"learning rate {old:.3g} -> {old * factor:.3g}"

    return change


def lr_probe(
    exp: Experiment, factors: Sequence[float], *, steps: int = 20
) -> dict[float, list[float]]:
    """Return the losses of `steps` steps at several multiples of the learning rate, same batches.

    The state is the one that `exp` is in; nothing of it changes.
    """
    return {f: after_steps(exp, steps, change=times_lr(f))[0] for f in factors}


def end_of(losses: Sequence[float], share: float = 0.3) -> float:
    """Return the mean of the last share of losses; infinite where one of them is not finite."""
    part = list(losses[-max(1, round(len(losses) * share)) :])
    return sum(part) / len(part) if all(math.isfinite(v) for v in part) else math.inf


def one_batch(
    facts: Facts, *, rows: int = OVERFIT_ROWS, steps: int = OVERFIT_STEPS, lr: float = 3e-3
) -> tuple[float, float]:
    """Return the loss of a few rows before and after learning them by heart with Adam.

    A net, a loss and a gradient that belong together bring the loss of 16 rows close to what is
    possible; where that fails something is wrong with them and not with the data.
    """
    xb, yb = _head(facts.batch[0], rows), _head(facts.batch[1], rows)

    def adam(twin: Experiment) -> None:
        twin.optimizer = torch.optim.Adam(
            [p for p in twin.model.parameters() if p.requires_grad], lr
        )
        twin.scheduler = None

    facts.passes += steps
    losses, _ = after_steps(facts.exp, steps, change=adam, own_step=False, on=cycle([(xb, yb)]))
    return losses[0], min(losses[-5:])


def lr_range(
    exp: Experiment, *, low: float = 1e-6, high: float = 10.0, steps: int = 60
) -> tuple[list[float], list[float]]:
    """Return learning rates and losses of one pass of growing rates (Smith 2017, 1506.01186)."""
    rates = [low * (high / low) ** (i / (steps - 1)) for i in range(steps)]
    twin = duplicate(exp)
    losses: list[float] = []
    twin.model.train()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(twin.seed)
        for rate, (xb, yb) in zip(rates, _first(twin, steps), strict=False):
            for group in twin.optimizer.param_groups:
                group["lr"] = rate
            loss = take_step(twin, xb, yb)
            losses.append(float(loss.detach()) if isinstance(loss, Tensor) else float(loss))
            if not math.isfinite(losses[-1]) or losses[-1] > 4 * abs(losses[0]) + 1:
                break
    return rates[: len(losses)], losses


def best_rate(exp: Experiment, *, steps: int = 60) -> float:
    """Return the rate of the valley of a range test: a fifth of the rate where loss is lowest.

    Losses are averaged over seven steps; the rate where it has fallen most steeply decides.
    """
    rates, losses = lr_range(exp, steps=steps)
    width = 7
    smooth = [
        sum(losses[max(0, i - width + 1) : i + 1]) / len(losses[max(0, i - width + 1) : i + 1])
        for i in range(len(losses))
    ]
    finite = [i for i, v in enumerate(smooth) if math.isfinite(v)]
    if not finite:
        return rates[0]
    lowest = min(finite, key=lambda i: smooth[i])
    return rates[lowest] / 5


def loss_on(exp: Experiment, xb: Any, yb: Any, *, training: bool = False) -> float:
    """Return the loss of some rows, in evaluation (or training) mode, without a gradient."""
    with torch.no_grad():
        if training:
            mode = exp.model.training
            exp.model.train()
            try:
                return float(exp.loss(call(exp.model, xb), yb))
            finally:
                exp.model.train(mode)
        return float(exp.loss(outputs(exp, xb), yb))


def _head(value: Any, rows: int) -> Any:
    if isinstance(value, Tensor):
        return value[:rows] if value.ndim else value
    if isinstance(value, (tuple, list)):
        return type(value)(_head(v, rows) for v in value)
    return value
