"""Learning-rate schedules that a repair may put in the place of one that fails."""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING

import torch

from gipi.doctor.rates import times_lr

if TYPE_CHECKING:
    from gipi.doctor.experiment import Experiment
    from gipi.doctor.finding import Change

WARM = 0.03
"""Share of the run in which the rate rises."""


def cosine(peak: float | None = None) -> Change:
    """Return the change to a short warm-up and half a cosine over the whole run.

    peak  highest rate of the first group, others in proportion; None: the rates as they are
    """

    def change(exp: Experiment) -> str:
        total, highest = exp.total_steps, _set(exp, peak)
        exp.scheduler = torch.optim.lr_scheduler.LambdaLR(
            exp.optimizer, partial(_cosine, total=total, warm=max(1, round(WARM * total)))
        )
        exp.scheduler_every = "step"
        return f"the learning rate falls from {highest:.3g} to 0 as a cosine over {total} steps"

    return change


def constant(peak: float) -> Change:
    """Return the change to one rate for the whole run, `peak` for the first group."""

    def change(exp: Experiment) -> str:
        exp.scheduler = None
        return f"the learning rate stays at {_set(exp, peak):.3g}"

    return change


def _set(exp: Experiment, peak: float | None) -> float:
    """Set the rate of the first group, others in proportion, and return it."""
    groups = exp.optimizer.param_groups
    factor = 1.0 if peak is None else peak / groups[0]["lr"] if groups[0]["lr"] else None
    for group in groups:
        group["lr"] = peak if factor is None else group["lr"] * factor
        for key in ("initial_lr", "max_lr", "min_lr"):
            group.pop(key, None)
    return float(groups[0]["lr"])


def other_rate(factor: float) -> Change:
    """Return the change to a multiple of the rate that falls to 0 as a cosine, if none falls yet.

    What is best in a short trial is often too high for the end of a run; a rate that falls is not.
    """

    def change(exp: Experiment) -> str:
        if exp.scheduler is not None:
            return times_lr(factor)(exp)
        old = exp.optimizer.param_groups[0]["lr"]
        return f"learning rate {old:.3g} -> {old * factor:.3g}: {cosine(old * factor)(exp)}"

    return change


def _cosine(step: int, *, total: int, warm: int) -> float:
    if step < warm:
        return (step + 1) / warm
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warm) / max(1, total - warm))))
