"""The learning rate is so high that steps jump over what they look for."""

from __future__ import annotations

import math
from statistics import median
from typing import TYPE_CHECKING

from gipi.doctor.finding import Finding, Repair
from gipi.doctor.probes import best_rate, end_of, lr_probe, times_lr
from gipi.doctor.rule import Rule

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gipi.doctor.experiment import Experiment
    from gipi.doctor.facts import Facts
    from gipi.doctor.trace import Trace

RATIO = 0.1
RISE = 1.5
WINS = 0.85
"""A tenth or a third of the rate must bring the loss below this share of it to be called better."""


def during(_: Facts, trace: Trace) -> Iterator[Finding]:
    """Suspect the rate where a step changes a tenth of a weight, or the loss has risen."""
    ratios = [v.ratio for look in trace.looks for v in look.params.values() if v.weight > 0]
    ratio = median(ratios) if ratios else 0.0
    recent = trace.mean_loss(trace.step - max(5, trace.step // 5), trace.step)
    lowest = min((v for v in trace.losses if math.isfinite(v)), default=math.nan)
    first = trace.losses[0] if trace.losses else math.nan
    rises = recent > RISE * abs(lowest) + 0.05 * abs(first) and recent > 0.9 * first
    if ratio <= RATIO and not rises and trace.broken is None:
        return
    lr = trace.rates[-1] if trace.rates else math.nan
    yield Finding(
        "lr_too_high",
        f"at a learning rate of {lr:.3g} a step changes a weight by {ratio:.1%} in the median and "
        f"the loss is {recent:.3g} after {trace.step} steps, {first:.3g} before the first",
        "lower the learning rate tenfold, or warm it up",
        evidence={"lr": lr, "update_ratio": ratio, "loss": recent, "first_loss": first},
        phase="steps",
        strength=max(ratio / RATIO, recent / max(first, 1e-12) if math.isfinite(recent) else 10.0),
        repairs=(
            Repair("lr / 10", times_lr(0.1), edit=f"lr={lr / 10:.3g}"),
            Repair("lr from a range test", from_range),
            Repair("lr / 100", times_lr(0.01), edit=f"lr={lr / 100:.3g}"),
        ),
    )


def confirm(facts: Facts, finding: Finding) -> Finding | None:
    """Train from the start at 1, 1/3, 1/10 and 1/100 of the rate, on the same batches."""
    start = facts.start or facts
    steps = max(20, min(60, start.exp.total_steps // 5))
    curves = lr_probe(start.exp, (1.0, 1 / 3, 0.1, 0.01), steps=steps)
    facts.passes += 4 * steps
    ends = {f: end_of(c) for f, c in curves.items()}
    own, best = ends[1.0], min(ends[1 / 3], ends[0.1], ends[0.01])
    if not best < WINS * own:
        return None
    return finding.but(confirmed=True, evidence={**finding.evidence, "loss_at": {
        f"lr x {f:.3g}": v for f, v in ends.items()}})  # fmt: skip


def from_range(exp: Experiment) -> str:
    """Take the rate of the valley of a range test."""
    rate = best_rate(exp)
    return times_lr(rate / exp.optimizer.param_groups[0]["lr"])(exp)


RULE = Rule(
    code="lr_too_high",
    title="the learning rate is too high",
    looks="the loss jumps, rises above where it began, or ends in NaN",
    why="a gradient is true near the weights where it was taken; a step beyond raises the loss",
    do="lower the rate tenfold, or take it from a range test, and warm it up",
    source="Bengio 2012, arXiv:1206.5533, section 3.1.1; Smith 2017, arXiv:1506.01186",
    during=during,
    confirm=confirm,
    passes=240,
    causes=("nan_inf", "dead_relu", "oscillating_loss", "exploding_gradient", "plateau",
            "saturated_activation", "underfit"),
)  # fmt: skip
