"""Whether a fault is gone, and what it harmed restored: asked of the changed experiment."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from torch import Tensor

from gipi.doctor.experiment import whole
from gipi.doctor.facts import Facts
from gipi.doctor.guessing import ASKED, DOUBT, FEWEST
from gipi.doctor.look import look_before, look_during
from gipi.doctor.rules import RULES
from gipi.doctor.rules.labels_misaligned import net_above_chance

if TYPE_CHECKING:
    from gipi.doctor.experiment import Experiment
    from gipi.doctor.finding import Finding
    from gipi.doctor.trace import Trace


@dataclass
class _Notes:
    broken: dict[str, str] = field(default_factory=dict)
    unlooked: list[str] = field(default_factory=list)


def remaining(
    code: str, exp: Experiment, *, trained: tuple[Experiment, Trace] | None = None
) -> list[Finding]:
    """Return the problems of a code that are confirmed on a changed experiment.

    exp      as it is before its first step
    trained  the same after its run, and the run's trace: for what is found in the course of one
    """
    rules, facts = tuple(rule for rule in RULES if rule.code == code), Facts(exp)
    if trained is None:
        found = list(look_before(facts, rules, _Notes()))
    else:
        found = list(look_during(Facts(trained[0], start=facts), rules, trained[1], _Notes()))
    return _sure(found)


def anew(exp: Experiment) -> tuple[list[Finding], int]:
    """Return all problems confirmed before the first step of a changed experiment, and passes.

    Weights that nothing depends on are neither missed nor moved: what is wrong with them shows
    only once what hid them is mended.
    """
    facts = Facts(exp)
    return _sure(list(look_before(facts, RULES, _Notes()))), facts.passes


def guesses(exp: Experiment) -> float | None:
    """Return how many deviations above chance a trained net is where it is not shown to be above.

    It is asked of validation rows, training rows where there are none. None where it is above, or
    where that cannot be told: few rows, or targets that are no tensor.
    """
    rows = whole(exp.val if exp.val is not None else exp.train, ASKED, exp.device)
    if rows is None or not isinstance(rows[1], Tensor) or len(rows[1]) < FEWEST:
        return None
    try:
        z = net_above_chance(Facts(exp), rows)
    except (RuntimeError, ValueError, IndexError, TypeError):
        return None
    return None if z is None or z > DOUBT else z if math.isfinite(z) else 0.0


def _sure(found: list[Finding]) -> list[Finding]:
    return [f for f in found if f.severity == "problem" and f.confirmed]
