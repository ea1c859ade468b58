"""Optimizers, schedules, penalties and weight averages: from a gradient to a weight."""

from __future__ import annotations

from gipi.optim.averaging import Average, ema, swa
from gipi.optim.groups import freeze, parameter_groups
from gipi.optim.lean import allow_compiler, spare_compiler
from gipi.optim.optimizers import OPTIMIZERS, apply_penalties, build_optimizer
from gipi.optim.penalty import bind_l1
from gipi.optim.schedules import SCHEDULES, Schedule, build_schedule, with_warmup
from gipi.optim.step import StepFunction, bind

__all__ = [
    "OPTIMIZERS",
    "SCHEDULES",
    "Average",
    "Schedule",
    "StepFunction",
    "allow_compiler",
    "apply_penalties",
    "bind",
    "bind_l1",
    "build_optimizer",
    "build_schedule",
    "ema",
    "freeze",
    "parameter_groups",
    "spare_compiler",
    "swa",
    "with_warmup",
]
