"""Weight decay pulls weights to zero faster than the loss can push them away."""

from __future__ import annotations

import math
from dataclasses import replace
from statistics import median
from typing import TYPE_CHECKING, Any

import torch

from gipi.doctor.begun import so_far
from gipi.doctor.experiment import whole
from gipi.doctor.finding import Change, Finding, Measure, Repair
from gipi.doctor.probes import compared, horizon, loss_on
from gipi.doctor.proof import compare
from gipi.doctor.pulls import Pull, lighter, own_pull
from gipi.doctor.rates import noted_rates, times_lr
from gipi.doctor.rule import Rule

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gipi.doctor.experiment import Experiment, LossFunction
    from gipi.doctor.facts import Facts
    from gipi.doctor.trace import Trace

SHRINKS = 0.5
"""Sum of lr x decay along the run: weights that nothing pushes would be e^-0.5 of their size."""
PULL = 0.5
"""Decay over gradient, both as they stand in the update."""
LEAST = 5e-3
"""Decay below which nothing is looked at."""
MISSED = 0.12
LOWER, LITTLE = 2 / 3, 0.03
"""Of a low loss that stands still less decay may leave this, and gain this share of progress."""
FROM, KEPT, HIGH = 0.2, 0.7, 0.2
"""Share of the run from which weights that kept less than this are looked at, and of the loss."""
STANDS = 0.1
"""Fall of a low loss from one quarter of the steps to the next, as a share of it, that is none."""
HALF_A_RUN = 200
"""Steps up to which half of a run is trained from its start to judge a low loss."""
EARLY, LATE, MOST = 80, 150, 160
"""Steps of a training before the run, which is made four times, of one in its course, and of half
a run: these are made twice."""
SOME = 40
"""Steps of a run so far that are worth another training of as many."""
SPENT = 0.1
"""Share of the highest rate below which a schedule is at its end: nothing grows from there."""
FINE = "less decay brought nothing where the loss was"
BY_RATE = "the rate makes the decay"
SLOWER = (0.1, 0.01)
DECOUPLED = ("AdamW", "NAdamW", "SGDW", "Lion", "Muon", "Adafactor")


def before(facts: Facts) -> Iterator[Finding]:
    """Suspect a decay that shrinks weights within the run, or outweighs the first gradient."""
    exp = facts.exp
    wd, own = _given(exp), own_pull(facts)
    rates = noted_rates(facts) or [exp.optimizer.param_groups[0]["lr"]]
    far = exp.total_steps * sum(rates) / len(rates)
    if own is not None and own.decay >= LEAST:
        told = max(own.decay * far / SHRINKS, own.over / PULL)
        if told >= 1:
            yield from _finding(own.decay, own.decay * far, own.over, "before", told, own=own,
                                loss=exp.loss)  # fmt: skip
            return
    if wd < LEAST:
        return
    shrinks = wd * far
    pull = _pull(facts, wd)
    apart = is_decoupled(exp)
    if (shrinks < SHRINKS) if apart else (pull < PULL and shrinks < SHRINKS):
        return
    yield from _finding(wd, shrinks, pull, "before", max(shrinks / SHRINKS, pull / PULL))


def during(facts: Facts, trace: Trace) -> Iterator[Finding]:
    """Suspect a decay once matrices have lost a third of their size and the loss is high.

    Or where it shrank them so and the loss stands still, low as it is.
    """
    wd, own = _given(facts.exp), own_pull(facts.start or facts)
    own = own if own is not None and own.decay > wd else None
    wd = own.decay if own is not None else wd
    if wd < LEAST or len(trace.looks) < 2 or trace.done < FROM:
        return
    if (facts.start or facts).notes.get(BY_RATE):
        return
    first, last = trace.looks[0].params, trace.looks[-1].params
    kept = [last[n].weight / v.weight for n, v in first.items()
            if n in last and v.dims > 1 and v.weight > 0]  # fmt: skip
    shrinks = wd * sum(trace.rates)
    shrunk = bool(kept) and median(kept) < KEPT
    if not shrunk and shrinks < 2 * SHRINKS:
        return
    high = trace.recent > HIGH * trace.scale
    spent = trace.done >= 1 and trace.rates[-1] < SPENT * max(trace.rates)
    if spent and (high or trace.planned > 2 * HALF_A_RUN):
        return  # the counter-experiment would go on from here
    if facts.notes.get(f"{FINE} {'high' if high else 'low'}") or not (high or _stands(trace)):
        return
    strength = 1 / max(median(kept), 1e-3)
    loss = (facts.start or facts).exp.loss
    for finding in _finding(wd, shrinks, math.nan, "steps", strength, own=own, loss=loss):
        if high or own is None:
            yield finding.but(evidence={**finding.evidence, "low": not high})


def _stands(trace: Trace) -> bool:
    """Whether the last quarter of the steps gained next to nothing on the quarter before."""
    if trace.done < 0.5 or not trace.recent > LITTLE * abs(trace.scale):
        return False
    quarter = trace.step // 4
    before = trace.mean_loss(trace.step - 2 * quarter, trace.step - quarter)
    return before - trace.mean_loss(trace.step - quarter, trace.step) < STANDS * abs(before)


def _given(exp: Experiment) -> float:
    """Return the highest decay that the optimizer was given."""
    return max((float(g.get("weight_decay") or 0.0) for g in exp.optimizer.param_groups), default=0)


def _finding(
    wd: float,
    shrinks: float,
    pull: float,
    phase: str,
    strength: float,
    *,
    own: Pull | None = None,
    loss: LossFunction | None = None,
) -> Iterator[Finding]:
    if own is not None:
        yield _of_penalty(own, pull, phase, strength, loss)
        return
    yield Finding(
        "weight_decay_too_high",
        f"weight decay is {wd:g}: over the run it takes {1 - math.exp(-shrinks):.0%} of every "
        "weight that no gradient pushes"
        + (f", and at first it pulls {pull:.2g} times as hard as the gradient"
           if math.isfinite(pull) else ""),
        f"weight decay {min(wd / 10, 0.01):.2g} or less, in AdamW where the optimizer is Adam",
        evidence={"weight_decay": wd, "shrinks": shrinks, "pull": pull},
        phase="before" if phase == "before" else "steps",
        strength=min(strength, 100.0),
        repairs=(
            Repair("weight decay / 100", less(0.01), edit=f"weight_decay={wd / 100:.2g}"),
            Repair("weight decay / 10", less(0.1), edit=f"weight_decay={wd / 10:.2g}"),
            Repair("no weight decay", less(0.0), edit="weight_decay=0"),
        ),
    )  # fmt: skip


def _of_penalty(
    own: Pull, pull: float, phase: str, strength: float, loss: LossFunction | None
) -> Finding:
    """Return the finding of a penalty that stands in the loss, or in the step.

    Both sides of a repair are judged by the loss as it was before the run: what the penalty says of
    those weights is the same for all.
    """

    def of(said: Any, y: Any) -> float:
        assert loss is not None
        with torch.no_grad():
            return -float(loss(said, y))

    measure = Measure("loss but for the penalty", of) if own.within == "loss" else None
    powers = "absolute values" if own.degree == 1 else "squares"
    return Finding(
        "weight_decay_too_high",
        f"the {own.within} brings a penalty of the weights' {powers}, as a weight decay of "
        f"{own.decay:.2g} would"
        + (f"; at first it pulls {pull:.2g} times as hard as the rest of the gradient"
           if math.isfinite(pull) else ""),
        "a hundredth of that penalty, or none; a weight decay of 0.01 or less in AdamW",
        evidence={"weight_decay": own.decay, "pull": pull, "penalty": own.within},
        phase="before" if phase == "before" else "steps",
        strength=min(strength, 100.0),
        repairs=tuple(
            Repair(f"penalty / {1 / share:.0f}", lighter(own, share), measure=measure,
                   edit=f"{share:g} * penalty")
            for share in (0.01, 0.1)
        ),
    )  # fmt: skip


def confirm(facts: Facts, finding: Finding) -> Finding | None:
    """Train with the decay and with a hundredth of it: rows that were not trained on must gain.

    Where there are none, a low loss that less decay lowers is a hint.
    Weights shrink by rate times decay: where a lower rate gains more still, the rate is too high.
    """
    if "penalty" in finding.evidence:
        return _without_penalty(facts, finding)
    late, low = finding.phase == "steps", bool(finding.evidence.get("low"))
    exp, steps = _asked(facts, finding)
    rows = whole(exp.val if exp.val is not None else exp.train, 512, exp.device)
    first = (facts.start or facts).exp
    begin = loss_on(first, *rows) if rows is not None else math.nan
    known = so_far(facts) if _again(facts, finding) else None
    if facts.passes + 2 * steps + 4 <= facts.allowed:
        known = None  # there is enough left to train both
    if known is not None:
        exp, steps = first, min(len(known), max(EARLY, int(facts.allowed - facts.passes) - 4))
    trial = compared(exp, {"own": None, "less": less(0.01)}, steps=steps, own=known)
    # What the run itself has come to stands for fewer steps of it: the more it must be beaten by.
    own_end = trial.twins.get("own", facts.exp)
    facts.passes += (2 if known is None else 1) * steps + 4
    if late:
        facts.notes[f"{FINE} {'low' if low else 'high'}"] = True
    missed = trial.missed("own", "less", begin=begin if late else math.nan)
    # A share of a loss means nothing where it may fall below 0.
    lower = low and trial.end("own") > 0 and trial.end("less") < LOWER * trial.end("own")
    if missed < (LITTLE if lower else MISSED) or not trial.sure("own", "less"):
        return None
    evidence = {**finding.evidence, "loss_as_is": trial.end("own"), "loss_less": trial.end("less")}
    if rows is not None:
        own, other = loss_on(own_end, *rows), loss_on(trial.twins["less"], *rows)
        gain = (own - other) / max(begin - other, 0.2 * abs(begin), 1e-12)
        if not gain > (LITTLE if lower and other < LOWER * own and own > 0 else MISSED):
            return None
        if low and not compare(own_end, trial.twins["less"]).holds("better"):
            return None
    if not late:
        slow = compared(exp, {f: times_lr(f) for f in SLOWER}, steps=steps)
        facts.passes += len(SLOWER) * steps
        trial = trial.and_also(slow)
        best = slow.best()
        if trial.missed("less", best) > MISSED and trial.sure("less", best):
            facts.notes[BY_RATE] = True
            return None
    # Training rows gain from less decay also by heart.
    severity = "hint" if low and exp.val is None else finding.severity
    return finding.but(severity=severity, confirmed=True, evidence=evidence)


def _without_penalty(facts: Facts, finding: Finding) -> Finding | None:
    """Train with the penalty and with a hundredth of it; what it says itself counts for neither."""
    exp, steps = _asked(facts, finding)
    first = (facts.start or facts).exp
    given = whole(exp.train, 512, exp.device), whole(exp.val, 512, exp.device)
    trial = compared(exp, {"own": None, "less": finding.repairs[0].change}, steps=steps)
    facts.passes += 2 * steps + 4
    ends = dict[str, float]()
    for rows in (r for r in given if r is not None):
        begin, own, less = (
            loss_on(replace(one, loss=first.loss), *rows)
            for one in (first, trial.twins["own"], trial.twins["less"])
        )
        if not own - less > MISSED * max(begin - less, 0.2 * abs(begin), 1e-12):
            return None
        ends = {"loss_as_is": own, "loss_less": less}
    return finding.but(confirmed=True, evidence={**finding.evidence, **ends}) if ends else None


def _asked(facts: Facts, finding: Finding) -> tuple[Experiment, int]:
    """Return where the counter-experiment begins, and how many steps each training has."""
    exp, late = facts.exp, finding.phase == "steps"
    if finding.evidence.get("low") and exp.total_steps <= 2 * HALF_A_RUN:
        # small weights take long to grow again
        return (facts.start or facts).exp, max(40, min(MOST, exp.total_steps // 2))
    return exp, horizon(exp, 0.25 if late else 0.3, low=40, high=LATE if late else EARLY)


def _again(facts: Facts, finding: Finding) -> bool:
    """Whether a training from the start is as long as the run so far, whose losses are known.

    Weights that were shrunk take long to grow again: few steps from here tell little.
    """
    known = so_far(facts) if finding.phase == "steps" and not finding.evidence.get("low") else None
    return known is not None and SOME <= len(known) <= MOST


def cost(facts: Facts, finding: Finding) -> int:
    """Return the passes of both trainings; before a run lower rates are tried as well."""
    if _again(facts, finding):
        return EARLY + 4
    _, steps = _asked(facts, finding)
    return (2 if finding.phase == "steps" else 2 + len(SLOWER)) * steps + 4


def is_decoupled(exp: Experiment) -> bool:
    """Whether decay acts on weights beside the gradient and not through it."""
    group = exp.optimizer.param_groups[0]
    return type(exp.optimizer).__name__ in DECOUPLED or bool(group.get("decoupled_weight_decay"))


def _pull(facts: Facts, wd: float) -> float:
    """Return the median over matrices of |decay x weight| / |gradient| at the start."""
    grads, found = facts.gradients, []
    for name, p in facts.exp.model.named_parameters():
        grad = grads.get(name)
        if p.ndim < 2 or grad is None:
            continue
        size = float(grad.norm())
        if size > 0:
            found.append(wd * float(p.detach().norm()) / size)
    return median(found) if found else 0.0


def less(factor: float) -> Change:
    """Return the change that multiplies every weight decay."""

    def change(exp: Experiment) -> str:
        old = max(float(g.get("weight_decay") or 0.0) for g in exp.optimizer.param_groups)
        for group in exp.optimizer.param_groups:
            if "weight_decay" in group:
                group["weight_decay"] *= factor
        return f"weight decay {old:g} -> {old * factor:g}"

    return change


RULE = Rule(
    code="weight_decay_too_high",
    title="weight decay is too high",
    looks="weights shrink from step to step; the loss stays high, for training rows too",
    why="decay multiplies every weight by less than one at each step; where that outweighs the "
    "gradient the net is pulled to saying the same of every row",
    do="a tenth or a hundredth of it; with Adam use AdamW, where it does not mix with the gradient",
    source="Loshchilov and Hutter 2019, arXiv:1711.05101; Krogh and Hertz 1992",
    before=before,
    during=during,
    confirm=confirm,
    passes=max((2 + len(SLOWER)) * EARLY, 2 * LATE, 2 * MOST) + 4,
    cost=cost,
    causes=("underfit", "plateau", "vanishing_gradient", "lr_too_low"),
)
