"""Training: the loop, and what stands around it."""

from __future__ import annotations

from gipi.train.evaluate import Evaluation, evaluate
from gipi.train.loop import fit
from gipi.train.precision import Setup
from gipi.train.setup import choose
from gipi.train.state import Best, State

__all__ = ["Best", "Evaluation", "Setup", "State", "choose", "evaluate", "fit"]
