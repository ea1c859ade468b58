"""The loss goes up and down from epoch to epoch instead of coming down."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING

from gipi.doctor.finding import CannotRepair, Finding, Repair
from gipi.doctor.probes import Trial, compared
from gipi.doctor.rates import gains, lr_trial, paper_rates, soon, times_lr
from gipi.doctor.rule import Rule
from gipi.doctor.schedules import cosine

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gipi.doctor.experiment import Experiment
    from gipi.doctor.facts import Facts
    from gipi.doctor.trace import Trace

PARTS = 8
"""Stretches of the run, at least, whose mean losses are compared."""
BACK = -0.3
"""Autocorrelation of differences below which a rise tends to follow a fall."""
SWING = 0.12
"""Swings over the whole progress that are worth a look."""
BY_CHANCE = 2.0
"""Times as far as the noise of batches alone would swing them, at usual momentum."""
HEAVY = 0.97
"""Momentum at which a net swings by itself."""
CARRIES = 0.2
"""Share of the run that such momentum must outlast: 1/(1 - momentum) steps."""
FALLS = 0.1
"""Share of the present rate below which a rate that is still to come ends swings by itself."""
MISSED = 0.1
HIGHER = 0.3
"""Share beyond which the rate itself is called too high."""


def during(facts: Facts, trace: Trace) -> Iterator[Finding]:
    """Suspect where mean losses of stretches swing by a tenth of all progress."""
    momentum = momentum_of(facts.exp)
    if _carries(facts, trace):
        yield _carried(facts, trace)
        return
    width = trace.per_epoch if trace.step >= PARTS * trace.per_epoch else trace.step // (2 * PARTS)
    if width < 2 or trace.broken is not None or not math.isfinite(trace.scale):
        return
    means = [trace.mean_loss(i, i + width) for i in range(0, trace.step - width + 1, width)]
    later = means[len(means) // 4 :]  # the fall at the beginning is no swing
    steps = [b - a for a, b in pairwise(later)]
    if len(steps) < PARTS // 2 or not all(math.isfinite(s) for s in steps):
        return
    power = sum(s * s for s in steps)
    back = sum(a * b for a, b in pairwise(steps)) / max(power, 1e-30)
    size = math.sqrt(power / len(steps) / 2)
    progress = max(trace.scale - min(means), 0.2 * abs(trace.scale))
    ups = max(s for s in steps)
    swings = size > SWING * progress and back < BACK
    if momentum < HEAVY and (width < trace.per_epoch or trace.open):
        swings = swings and size > BY_CHANCE * _by_chance(trace, width)
    waves = momentum >= HEAVY and ups > SWING * progress
    if not swings and not waves:
        return
    if trace.done < 1 and _will_fall(facts, trace):
        return
    yield Finding(
        "oscillating_loss",
        f"mean losses of {width} steps swing by {size:.3g} (all progress so far: {progress:.3g}); "
        f"the lowest was {min(means):.4g}, the last is {means[-1]:.4g}"
        + (f"; momentum is {momentum:g}" if momentum >= HEAVY else ""),
        "lower the learning rate to a third, lower momentum to 0.9, use larger batches, or let the "
        "rate fall",
        evidence={"swing": size, "back": back, "momentum": momentum, "first_loss": trace.scale,
                  "means": means[-32:]},
        phase="epoch",
        strength=size / (SWING * progress),
        repairs=_repairs(momentum, facts.exp.optimizer.param_groups[0]["lr"]),
    )  # fmt: skip


def _by_chance(trace: Trace, width: int) -> float:
    """Return how far means of so many steps swing by who is in their batches: s / √width.

    s² is half the mean square of the differences between losses of steps that follow each other in
    one part: what its steps share is not in them, nor how one part differs from the next. Such
    means rise after a fall, too, by a correlation of -1/2. This holds for parts of an epoch: a
    whole one has every row once, so that its mean has next to no such noise.
    """
    squares = [
        (trace.losses[i] - trace.losses[i - 1]) ** 2
        for i in range(trace.step // width // 4 * width, trace.step)
        if i % width
    ]
    return math.sqrt(sum(squares) / len(squares) / 2 / width)


def _carries(facts: Facts, trace: Trace) -> bool:
    """Whether a step goes on for a large part of the run, and the loss is not down yet.

    Such waves are as long as the momentum's memory: means of epochs may not show one whole.
    """
    momentum = momentum_of(facts.exp)
    if momentum < HEAVY or not 0.25 <= trace.done < 1 or trace.broken is not None:
        return False
    long = 1 / max(1 - momentum, 1e-6) > CARRIES * trace.planned
    return long and trace.recent > MISSED * abs(trace.scale) and not _will_fall(facts, trace)


def _carried(facts: Facts, trace: Trace) -> Finding:
    momentum = momentum_of(facts.exp)
    memory = 1 / max(1 - momentum, 1e-6)
    return Finding(
        "oscillating_loss",
        f"momentum of {momentum:g} carries every step on for {memory:.0f} more, and the run has "
        f"{trace.planned}: weights swing around where the loss is lower than {trace.recent:.4g}",
        "lower momentum to 0.9",
        evidence={"momentum": momentum, "memory": memory, "first_loss": trace.scale},
        phase="epoch",
        strength=memory / (CARRIES * trace.planned),
        repairs=_repairs(momentum, facts.exp.optimizer.param_groups[0]["lr"]),
    )


def _will_fall(facts: Facts, trace: Trace) -> bool:
    """Whether the schedule itself will bring the rate far down, and end the swings."""
    planned = paper_rates((facts.start or facts).exp)
    if planned is None or not trace.rates or trace.step >= len(planned):
        return False
    return min(planned[trace.step :]) < FALLS * trace.rates[-1]


def confirm(facts: Facts, finding: Finding) -> Finding | None:
    """Go on from here as it is, at a tenth of the rate, and with usual momentum."""
    steps = soon(facts.exp)
    first = float(finding.evidence["first_loss"])
    trial: Trial = lr_trial(facts, (0.1,), steps=steps, now=True)
    names: list[object] = [0.1]
    if finding.evidence["momentum"] >= HEAVY:
        try:
            more = compared(facts.exp, {"momentum": usual_momentum}, steps=steps)
            facts.passes += steps
            trial, names = trial.and_also(more), [*names, "momentum"]
        except CannotRepair:
            pass
    best = trial.best(*names)
    if trial.missed(1.0, best, begin=first) < MISSED or not trial.sure(1.0, best):
        return None
    if not gains(facts, trial, best, begin=first, share=MISSED):
        return None
    return finding.but(confirmed=True, evidence={**finding.evidence, "loss_at": trial.ends})


def momentum_of(exp: Experiment) -> float:
    """Return the momentum of an experiment's optimizer, or its first beta; 0 for none."""
    group = exp.optimizer.param_groups[0]
    betas = group.get("betas")
    return float(betas[0] if betas else group.get("momentum", 0.0) or 0.0)


def usual_momentum(exp: Experiment) -> str:
    """Set momentum, or the first beta, to 0.9."""
    old = momentum_of(exp)
    for group in exp.optimizer.param_groups:
        if "betas" in group:
            group["betas"] = (0.9, *group["betas"][1:])
        elif "momentum" in group:
            group["momentum"] = 0.9
        else:
            message = "the optimizer has no momentum"
            raise CannotRepair(message)
    return f"momentum {old:g} -> 0.9"


def _repairs(momentum: float, lr: float) -> tuple[Repair, ...]:
    heavy = (Repair("momentum 0.9", usual_momentum, edit="momentum=0.9"),)
    return (
        *(heavy if momentum >= HEAVY else ()),
        Repair("lr / 3 and a cosine", cosine(lr / 3),
               edit=f"lr={lr / 3:.3g} and CosineAnnealingLR over the whole run"),
        Repair("lr / 10", times_lr(0.1), edit=f"lr={lr / 10:.3g}", setting="lr"),
    )  # fmt: skip


RULE = Rule(
    code="oscillating_loss",
    title="the loss swings instead of falling",
    looks="mean losses of epochs go up and down around a value that could be lower",
    why="steps are too long for the narrowest direction, or momentum carries the weights past the "
    "lowest point and back",
    do="a third of the rate, momentum 0.9, larger batches, or a rate that falls",
    source="Sutskever et al. 2013; Goh 2017, Why momentum really works",
    during=during,
    confirm=confirm,
    passes=120,
    causes=("plateau",),
)
