"""Steps whose gradient is not finite are left out, and counted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from gipi.doctor.experiment import plain_step

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from gipi.doctor.experiment import Experiment
    from gipi.doctor.finding import Restored


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
            if not all(bool(torch.isfinite(p.grad).all()) for p in params):
                self.left_out += 1
                for p in params:
                    p.grad = None

        self.taken += 1
        handle = now.optimizer.register_step_pre_hook(guard)
        try:
            return self.own(now, xb, yb)
        finally:
            handle.remove()


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
