"""The loss stands still, though the net could go on from here."""

from __future__ import annotations

import math
from itertools import pairwise
from statistics import fmean
from typing import TYPE_CHECKING

from gipi.doctor.experiment import whole
from gipi.doctor.finding import Finding, Repair
from gipi.doctor.probes import loss_on
from gipi.doctor.rates import gains, lr_trial, soon, times_lr
from gipi.doctor.rule import Rule
from gipi.doctor.schedules import cosine

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gipi.doctor.facts import Facts
    from gipi.doctor.trace import Trace

FROM = 0.45
"""Share of the run that must be done, and half of which must have brought nothing."""
FLAT = 0.01
"""Fall over the last half of the steps, as a share of the first loss, that counts as nothing."""
OPEN = 0.15
"""Share of the first loss above which a loss that stands still is worth a look."""
MISSED, MISSED_ABOVE = 0.2, 0.4
"""Share of all progress that a lower, or a higher, rate must gain at once."""
DECAYED = 0.2
"""Share of the first rate below which that one is tried instead."""
SPENT = 0.1
"""Share of the highest rate below which a schedule is at its end."""
STILL, LEFT = 0.25, 0.3
"""Of a low loss of numbers: fall over the last half, as a share of it, that counts as nothing, and
the share of it that a lower rate must take off at once, in validation too."""
THROWN = 0.1
"""Of a low loss of numbers: share by which it rises from one epoch to the next, on average over the
last half of them, on the same rows: steps throw the weights about."""
FORCED = 5e-3
"""Update over weight from which steps, and not the data, may keep a low loss from falling."""
ENOUGH = 4
"""Changes from epoch to epoch that a mean is taken of."""
BEGUN = 100
"""Steps before which a run without an end may only have begun."""
LIVELY, TIRED = 1e-2, 1e-3
"""Update over weight from which a lower rate is tried, and below which only higher ones are."""


def during(facts: Facts, trace: Trace) -> Iterator[Finding]:
    """Suspect where the last half of the steps brought nothing and the loss is not low."""
    least = BEGUN if trace.open else 20
    if trace.done < FROM or trace.step < least or trace.broken is not None or trace.rates[-1] <= 0:
        return
    if trace.open and trace.rates[-1] < DECAYED * max(trace.rates):
        return  # where its schedule was to end nobody knows
    if facts.exp.declared.get("frozen"):
        return  # what is kept as it is limits what can be reached
    half, quarter = trace.step // 2, trace.step // 4
    parts = [trace.mean_loss(i, i + quarter) for i in (half, trace.step - quarter)]
    scale = abs(trace.scale)
    if not all(math.isfinite(p) for p in parts) or not scale > 0:
        return
    low, fall = parts[1] < OPEN * scale, parts[0] - parts[1]
    still = fall <= FLAT * scale and not (low and fall > STILL * parts[1])
    thrown = low and not still and _thrown(trace)
    if not (still or thrown) or (low and not _forced(facts, trace, parts)):
        return
    lr = trace.rates[-1]
    if thrown:
        seen = ", ".join(f"{row['train_eval']:.3g}" for row in trace.epochs[-4:])
        what = f"the loss of the same training rows goes up and down from epoch to epoch ({seen})"
    else:
        what = (
            f"the mean loss was {parts[0]:.4g} and {parts[1]:.4g} in the two halves of the last "
            f"{trace.step - half} steps"
        )
    yield Finding(
        "plateau",
        f"{what}, at a learning rate of {lr:.3g}",
        "change the learning rate: lower where steps are too long for what is left, higher where "
        "they are too short to leave the flat place",
        evidence={
            "before": parts[0],
            "now": parts[1],
            "first_loss": trace.scale,
            "lr": lr,
            "update_ratio": trace.ratio(),
            "first_lr": max(trace.rates),
            "low": low,
            "usual": _usual(trace),
        },
        phase="steps",
        strength=parts[1] / (OPEN * scale),
    )


def _forced(facts: Facts, trace: Trace, parts: list[float]) -> bool:
    """Whether a rate moves the weights much at the end of a run with a low loss of numbers.

    There is no loss of numbers so low that half of it is nothing; of classes there is.
    """
    kind = (facts.start or facts).kind
    return (
        kind in ("numbers", "reconstruct")
        and trace.done >= 1
        and parts[1] > 0
        and trace.ratio() >= FORCED
    )


def _usual(trace: Trace) -> float:
    """Return the mean validation loss of the last half of the epochs; NaN for none.

    Weights that are thrown about are good or bad at the end by luck: this is what to expect.
    """
    seen = [v for v in (row.get("val", math.nan) for row in trace.epochs) if math.isfinite(v)]
    return fmean(seen[len(seen) // 2 :]) if seen else math.nan


def _thrown(trace: Trace) -> bool:
    """Whether the loss of the same training rows, in evaluation, goes up and down along the run.

    Only the weights differ between two such losses: on its way down yet, as a mean of many steps,
    the loss may be far above what weights at rest would have.
    """
    seen = [row.get("train_eval", math.nan) for row in trace.epochs]
    late = [math.log(v) for v in seen[len(seen) // 2 :] if math.isfinite(v) and v > 0]
    rises = [max(0.0, b - a) for a, b in pairwise(late)]
    return len(rises) >= ENOUGH and sum(rises) > THROWN * len(rises)


def confirm(facts: Facts, finding: Finding) -> Finding | None:
    """Go on from here at a tenth of the rate, or at eight or more times."""
    steps = soon(facts.exp)
    if finding.evidence.get("low"):
        return _low(facts, finding, steps)
    ratio = float(finding.evidence["update_ratio"])
    lr, start = float(finding.evidence["lr"]), float(finding.evidence["first_lr"])
    factors = (8.0, 64.0) if ratio < TIRED else (0.1, 8.0) if ratio < LIVELY else (0.1,)
    if lr < DECAYED * start:
        now = float(facts.exp.optimizer.param_groups[0]["lr"])
        if now <= 0:
            return None
        factors = (start / now,)
    trial = lr_trial(facts, factors, steps=steps, now=True)
    best = trial.best(*factors)
    first = float(finding.evidence["first_loss"])
    edge = MISSED if best < 1 or lr < DECAYED * start else MISSED_ABOVE
    if trial.missed(1.0, best, begin=first) < edge or not trial.sure(1.0, best):
        return None
    if not gains(facts, trial, best, begin=first, share=MISSED / 2):
        return None  # what is gained is learned by heart
    falls = Repair(
        "cosine over the whole run",
        cosine(start),
        edit="CosineAnnealingLR(optimizer, total steps), stepped after every batch",
    )
    repairs = (
        (falls, Repair("lr / 3", times_lr(1 / 3), setting="lr"))
        if best < 1 or lr < DECAYED * start
        else (
            Repair(f"lr x {best:g}", times_lr(best), setting="lr"),
            Repair("lr x 3", times_lr(3.0), setting="lr"),
        )
    )
    return finding.but(
        confirmed=True, repairs=repairs, evidence={**finding.evidence, "loss_at": trial.ends}
    )


def _low(facts: Facts, finding: Finding, steps: int) -> Finding | None:
    """Go on from a low loss at a tenth of the rate; at best it is a hint, for little is left."""
    if float(finding.evidence["lr"]) < SPENT * float(finding.evidence["first_lr"]):
        return None  # the schedule has brought the rate down already
    trial = lr_trial(facts, (0.1,), steps=steps, now=True)
    rows = whole(facts.exp.val, 1024, facts.exp.device)
    own, lower = trial.end(1.0), trial.end(0.1)
    if not trial.sure(1.0, 0.1) or rows is None:
        return None
    if not own > 0 or not lower <= (1 - LEFT) * own:  # shares of a loss below 0 mean nothing
        return None
    facts.passes += 3
    here, there, best = (
        loss_on(exp, *rows) for exp in (facts.exp, trial.twins[1.0], trial.twins[0.1])
    )
    least, usual = min(here, there), float(finding.evidence.get("usual", math.nan))
    least = usual if math.isfinite(usual) else least
    if not least > 0 or not best <= (1 - LEFT) * least:
        return None
    return finding.but(
        severity="hint", confirmed=True, evidence={**finding.evidence, "loss_at": trial.ends}
    )


def outgrown(_: Facts, trace: Trace, finding: Finding) -> bool:
    """Whether the loss came down by itself as far as another rate would have brought it."""
    promised = finding.evidence.get("loss_at")
    return promised is not None and trace.recent <= min(promised.values())


RULE = Rule(
    code="plateau",
    title="the loss stands still",
    looks="for a large part of the run the loss does not fall, and it is not low",
    why="steps are too long for the valley that is left, or too short to leave a flat place; what "
    "is trained further changes nothing",
    do="find the cause among the other findings first; else let the rate fall, or raise it",
    source="Smith 2017, arXiv:1506.01186; Dauphin et al. 2014, arXiv:1406.2572",
    during=during,
    confirm=confirm,
    passes=120,
    causes=("underfit",),
    outgrown=outgrown,
)
