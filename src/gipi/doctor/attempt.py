"""A run that may end with an error of its own, as some faults make it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gipi.doctor.play import play
from gipi.doctor.trace import Trace

if TYPE_CHECKING:
    from gipi.doctor.experiment import Experiment


def attempt(exp: Experiment) -> Trace:
    """Train `exp` as planned, or as far as it goes: an error of the run leaves an empty trace.

    A last batch of one row before a batch norm, or a model without a trainable weight, end so.
    """
    try:
        return play(exp)
    except (RuntimeError, ValueError):
        return Trace(exp.total_steps, exp.steps_per_epoch, broken=0)
