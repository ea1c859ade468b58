"""Whether a fault is gone: the rule that named it looks at the changed experiment."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from gipi.doctor.facts import Facts
from gipi.doctor.look import look_before, look_during
from gipi.doctor.rules import RULES

if TYPE_CHECKING:
    from gipi.doctor.experiment import Experiment
    from gipi.doctor.trace import Trace


@dataclass
class _Notes:
    broken: dict[str, str] = field(default_factory=dict)
    unlooked: list[str] = field(default_factory=list)


def remaining(
    code: str, exp: Experiment, *, trained: tuple[Experiment, Trace] | None = None
) -> int:
    """Return how many problems of a code are confirmed on a changed experiment.

    exp      as it is before its first step
    trained  the same after its run, and the run's trace: for what is found in the course of one
    """
    rules, facts = tuple(rule for rule in RULES if rule.code == code), Facts(exp)
    if trained is None:
        found = list(look_before(facts, rules, _Notes()))
    else:
        found = list(look_during(Facts(trained[0], start=facts), rules, trained[1], _Notes()))
    return sum(f.severity == "problem" and f.confirmed for f in found)
