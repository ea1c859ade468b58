"""Runs of `gipi train` that would crawl: a rate so low that all planned steps lead hardly anywhere.

Rows of a run hold no sizes of weights: a few steps on a copy show how far one goes.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from gipi.doctor.copies import duplicate
from gipi.doctor.facts import Facts
from gipi.doctor.look import look_during
from gipi.doctor.rules import lr_too_low
from gipi.doctor.trace import Look, Trace

if TYPE_CHECKING:
    from gipi.doctor.experiment import Experiment
    from gipi.doctor.finding import Finding
    from gipi.doctor.look import Notes

USUAL = 500
"""Steps at least that a rate is judged by. A run of thirty steps is short, its rate need not be
low: in so many steps a rate that changes weights by the usual 0.1 % a step goes as far as half of
their size, from where on nothing is suspected."""
HALF = 0.5
SHAPE = 64
"""Places at which a schedule is looked at."""
DOOMED = 0.8
"""Share of a higher rate's progress from which on what the whole run lacks dooms it."""


def crawling(
    peak: Experiment, trace: Trace, notes: Notes, *, planned: float, allowed: float
) -> list[Finding]:
    """Return the finding that a run of so many steps would crawl, where a higher rate learns.

    peak     the run at its full rate, before its first step; trace: of its first steps, looked at
    planned  as many steps at that rate; infinite where it is known that the run does not crawl
    allowed  passes that counter-experiments may cost
    """
    if not math.isfinite(planned):
        return []
    steps = max(USUAL, round(planned))
    looks = fastest(trace, peak)
    ratio = trace.ratio_of(looks[-1]) if looks else math.nan
    if not ratio * steps < 2 * lr_too_low.REACH:  # the schedule on paper takes its time
        return []
    long = duplicate(peak)
    long.epochs = steps / long.steps_per_epoch
    facts = Facts(long, start=Facts(long))
    # To come down from a wild start to what knows nothing is no progress.
    start = {"train_eval": min(abs(trace.scale), facts.yardstick or math.inf)}
    seen = replace(trace, planned=long.total_steps, looks=looks, start=start)
    share = allowed / lr_too_low.OF_LEFT  # nobody else has a question any more
    found = list(look_during(facts, (lr_too_low.RULE,), seen, notes, allowed=share))
    if any(not f.confirmed for f in found):
        notes.unlooked.append(lr_too_low.RULE.code)
    rates = [group["lr"] for group in peak.optimizer.param_groups]
    return [_said(f, steps, times=max(rates) / rates[0]) for f in found if f.confirmed]


def full_steps(steps: float, exp: Experiment) -> float:
    """Return how many steps at the highest rate lead as far as so many of the run's schedule."""
    shape, total = exp.scheduler.lr_lambdas[0], exp.total_steps
    shares = [float(shape(total * (i + 0.5) / SHAPE)) for i in range(SHAPE)]
    return steps * sum(shares) / SHAPE / max(*shares, 1e-12)


def fastest(trace: Trace, exp: Experiment) -> list[Look]:
    """Return the looks at those parameters, of one rate each, that go the farthest in a step.

    A body that was trained before has a small rate of its own, and is not to go far.
    """
    rate_of = {id(p): g["lr"] for g in exp.optimizer.param_groups for p in g["params"]}
    held = {n: rate_of.get(id(p)) for n, p in exp.model.named_parameters()}
    chosen: list[Look] = []
    for rate in sorted({rate for rate in held.values() if rate is not None}):
        looks = [
            replace(look, params={n: v for n, v in look.params.items() if held.get(n) == rate})
            for look in trace.looks
        ]
        ratios = [Trace.ratio_of(some[-1]) for some in (looks, chosen) if some]
        if ratios and math.isfinite(ratios[0]) and ratios[0] >= max(ratios[1:], default=0.0):
            chosen = looks
    return chosen


def has_learned(trace: Trace, *, nothing: float = 0.0) -> bool:
    """Whether the loss came down by half: whatever its rate, such a run does not crawl.

    nothing  the loss of what knows nothing, 0 where it is not known: a start may be wilder
    """
    return trace.recent < HALF * min(trace.scale, nothing or math.inf)


def dooms(finding: Finding) -> bool:
    """Whether a run from random weights would learn next to nothing of what it could."""
    return finding.code == lr_too_low.RULE.code and finding.evidence.get("missed", 0.0) >= DOOMED


def _said(finding: Finding, steps: int, *, times: float) -> Finding:
    """Return the finding in words; `times`: the highest rate over that of the first parameters."""
    known = finding.evidence
    reach = known["reach"]
    far = f"{reach:.1%}" if reach > lr_too_low.VISIBLE else f"{reach:.0e} of it"
    return finding.but(
        message=f"at a learning rate of {times * known['lr']:.3g} a step changes weights "
        f"by {known['update_ratio']:.1e} of their size (about 1e-03 is usual): even {steps} such "
        f"steps in one direction would change them by {far}, and a higher rate learns more"
    )
