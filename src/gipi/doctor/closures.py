"""Optimizers whose step asks for the loss itself, which a plain loop cannot give them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from gipi.doctor.experiment import Experiment


def can_step(exp: Experiment) -> bool:
    """Whether a plain step can be taken: L-BFGS asks for the loss itself, many times a step.

    An experiment that has a step of its own knows how.
    """
    return exp.step is not None or not isinstance(exp.optimizer, torch.optim.LBFGS)
