"""Learning-rate schedules: pure functions of the progress of a run.

A schedule maps progress in [0, 1] to a multiplier of the initial learning rate, itself in [0, 1].
Progress counts whatever the budget counts (epochs, steps, seconds), so one schedule fits them all
and ends exactly with the run; nothing has to be saved but the progress.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from gipi.core.errors import ConfigError, did_you_mean
from gipi.core.registry import Record, Registry

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Schedule = Callable[[float], float]
WARMUP_START = 0.01  # the first step of a warm-up moves a little, not nothing


def _share(name: str, value: float) -> float:
    if not 0.0 <= value <= 1.0:
        raise ConfigError(f"{name}={value}", "a share between 0 and 1", f"change {name}")
    return float(value)


def constant() -> Schedule:
    """Return m(p) = 1."""
    return lambda progress: 1.0  # noqa: ARG005


def step(*, drops: Sequence[float] = (0.5, 0.75), factor: float = 0.1) -> Schedule:
    """Return m(p) = factor^(number of drops at or before p): the classic 50 % / 75 %."""
    at = sorted(_share("drops", d) for d in drops)
    factor = _share("factor", factor)
    return lambda progress: factor ** sum(progress >= d for d in at)


def cosine(*, end: float = 0.0) -> Schedule:
    """Return m(p) = end + (1 - end)(1 + cos πp)/2, half a cosine from 1 down to `end`."""
    end = _share("end", end)
    return lambda progress: end + (1 - end) * 0.5 * (1 + math.cos(math.pi * progress))


def one_cycle(*, peak: float = 0.3, start: float = 0.04, end: float = 0.0) -> Schedule:
    """Return a rise from `start` to 1 at p = `peak` and a fall to `end`, both half cosines.

    The peak is the initial learning rate itself. Differs from the paper, which is piecewise linear
    and cycles the momentum against the rate.
    """
    peak, start, end = _share("peak", peak), _share("start", start), _share("end", end)

    def multiplier(progress: float) -> float:
        if progress < peak:
            low, along = start, 1 - progress / peak
        else:
            low, along = end, (progress - peak) / (1 - peak) if peak < 1 else 0.0
        return low + (1 - low) * 0.5 * (1 + math.cos(math.pi * along))

    return multiplier


def linear(*, end: float = 0.0) -> Schedule:
    """Return m(p) = 1 - (1 - end) p, a straight line from 1 to `end`."""
    end = _share("end", end)
    return lambda progress: 1 - (1 - end) * progress


def exponential(*, end: float = 0.01) -> Schedule:
    """Return m(p) = end^p, the same factor in every step, down to `end`."""
    end = _share("end", end)
    if end == 0:
        raise ConfigError("end=0", "a positive end, since end^p is reached by a factor",
                          "use end=0.001, or the schedule 'cosine'")  # fmt: skip
    return lambda progress: end**progress


def with_warmup(schedule: Schedule, warmup: float) -> Schedule:
    """Return `schedule` after a linear rise over the first share `warmup` of the run.

    m(p) = m₀(0)·(s + (1 - s) p/warmup) before, with s = 0.01, and m₀((p - warmup)/(1 - warmup))
    after: the schedule itself is played in full over what is left.
    """
    warmup = _share("warmup", warmup)
    if warmup == 0:
        return schedule
    if warmup == 1:
        raise ConfigError("warmup=1", "a share below 1 of the run", "use warmup=0.1")
    first = schedule(0.0)

    def multiplier(progress: float) -> float:
        if progress < warmup:
            return first * (WARMUP_START + (1 - WARMUP_START) * progress / warmup)
        return schedule((progress - warmup) / (1 - warmup))

    return multiplier


SCHEDULES = Registry(
    "schedules",
    (
        Record("constant", constant, "the same learning rate throughout",
               "Robbins and Monro 1951, A stochastic approximation method (asks for decay)"),
        Record("step", step, "x 0.1 at 50 % and at 75 % of the run",
               "He, Zhang, Ren and Sun 2016, Deep residual learning, arXiv:1512.03385",
               facts={"options": ("drops", "factor")}),
        Record("cosine", cosine, "half a cosine from 1 to 0",
               "Loshchilov and Hutter 2017, SGDR, arXiv:1608.03983", facts={"options": ("end",)}),
        Record("one-cycle", one_cycle, "up to the learning rate by 30 % of the run, then to 0",
               "Smith and Topin 2018, Super-convergence, arXiv:1708.07120",
               facts={"options": ("peak", "start", "end")}),
        Record("linear", linear, "a straight line from 1 to 0",
               "Defazio et al. 2023, When, why and how much? Adaptive learning rate scheduling by "
               "refinement, arXiv:2310.07831", facts={"options": ("end",)}),
        Record("exponential", exponential, "the same factor every step, to 1 % at the end",
               "Li and Arora 2020, An exponential learning rate schedule, arXiv:1910.07454",
               facts={"options": ("end",)}),
        Record("plateau", constant, "x 0.1 whenever validation stops improving",
               "Krizhevsky, Sutskever and Hinton 2012, ImageNet classification (by hand there)",
               tags=("needs-validation",)),
    ),
)  # fmt: skip


def build_schedule(
    name: str | Schedule, *, warmup: float = 0.0, options: Mapping[str, Any] | None = None
) -> Schedule:
    """Return the schedule called `name` (or `name` itself where it is a function) with warm-up.

    "plateau" has the multiplier 1: the loop lowers its own `lr_scale` when validation stalls.
    Raises `UnknownName` and `ConfigError` (an option that the schedule does not have, a share
    outside [0, 1]).
    """
    if callable(name):
        return with_warmup(name, warmup)
    record = SCHEDULES.get(name)
    known = record.facts.get("options", ())
    for key in options or {}:
        if key not in known:
            raise ConfigError(
                f"the schedule '{name}' has no option '{key}'",
                f"one of: {', '.join(known)}" if known else "no options",
                did_you_mean(key, known) if known else "leave it out",
            )
    try:
        schedule = partial(record.build, **(options or {}))()
    except TypeError as error:
        found = f"schedule_options={dict(options or {})}"
        raise ConfigError(found, "numbers in [0, 1]", f"change them ({error})") from error
    return with_warmup(schedule, warmup)
