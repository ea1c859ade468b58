"""Steps whose gradient is not finite are left out, and counted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from gipi.doctor.experiment import plain_step
from gipi.doctor.gradients import dense

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from gipi.doctor.experiment import Experiment, Step
    from gipi.doctor.finding import Restored


MOST = 0.5
"""Share of steps without a gradient beyond which a run was hardly trained."""


@dataclass(eq=False)
class FiniteSteps:
    """A training step without the gradients that are not finite.

    own  the step as it was
    taken, left_out  how many there were, and of how many no gradient was used
    """

    own: Callable[[Experiment, Any, Any], Tensor]
    taken: int = 0
    left_out: int = 0

    def __call__(self, now: Experiment, xb: Any, yb: Any) -> Tensor:
        """Take a step, or none where its gradient is not finite; return its loss."""

        def guard(optimizer: torch.optim.Optimizer, *_: Any) -> None:
            params = [p for g in optimizer.param_groups for p in g["params"] if p.grad is not None]
            if not all(bool(torch.isfinite(dense(p.grad)).all()) for p in params):
                self.left_out += 1
                for p in params:
                    p.grad = None

        self.taken += 1
        handle = now.optimizer.register_step_pre_hook(guard)
        try:
            return self.own(now, xb, yb)
        finally:
            handle.remove()


def counted_anew(step: Step | None) -> Step | None:
    """Return a step for another run: one that counts begins at 0."""
    return FiniteSteps(step.own) if isinstance(step, FiniteSteps) else step


def counts_of(step: Step | None) -> tuple[int, int]:
    """Return the steps that one which counts has taken and left out; zeros of any other."""
    return (step.taken, step.left_out) if isinstance(step, FiniteSteps) else (0, 0)


def count_from(step: Step | None, counts: tuple[int, int]) -> None:
    """Let a step that counts go on from there."""
    if isinstance(step, FiniteSteps):
        step.taken, step.left_out = counts


def hardly_trained(exp: Experiment) -> str:
    """Return that a run took a gradient in few of its steps, with figures; empty where not."""
    step = exp.step
    if not isinstance(step, FiniteSteps) or step.left_out <= MOST * step.taken:
        return ""
    return f"{step.left_out} of {step.taken} steps had no finite gradient: it is hardly trained"


def finite_steps(exp: Experiment) -> str:
    """Let the optimizer pass over gradients that are not finite."""
    exp.step = FiniteSteps(exp.step or plain_step)
    return "steps whose gradient is not finite are left out"


def what_is_left(cause: str) -> Restored:
    """Return what asks a treated run whether steps still had to be left out, and says how many."""

    def asked(treated: Experiment, _: Experiment) -> tuple[bool, str]:
        step = treated.step
        if not isinstance(step, FiniteSteps) or not step.left_out:
            return True, ""
        share = f"{step.left_out} of {step.taken} steps"
        return False, f"{share} had no finite gradient and are left out ({cause})"

    return asked
