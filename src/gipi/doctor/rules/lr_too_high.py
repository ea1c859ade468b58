"""The learning rate is so high that steps jump over what they look for."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from gipi.doctor.closures import can_step
from gipi.doctor.experiment import whole
from gipi.doctor.finding import Finding, Repair
from gipi.doctor.probes import FLOOR, TAIL, compared, loss_on
from gipi.doctor.rates import best_rate, gains, lr_trial, paper_rates, soon, times_lr
from gipi.doctor.rule import Rule
from gipi.doctor.rules.oscillating_loss import HEAVY, momentum_of
from gipi.doctor.schedules import other_rate

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gipi.doctor.experiment import Experiment
    from gipi.doctor.facts import Facts
    from gipi.doctor.probes import Trial
    from gipi.doctor.trace import Trace

RATIO = 0.1
"""Update over weight from which a rate is suspected."""
MANIFOLD = 10.0
"""Update over weight from which on it is told as a number of times."""
PEAK = 1.5
"""Loss over the first loss from which a rate is suspected."""
RISEN = 0.25
"""Rise over the lowest loss, as a share of the first, that speaks of steps too large."""
ABOVE = 0.2
"""Share of the highest loss that lower rates did not beat above which they are asked again."""
STUCK = 0.95
HIGH = 0.3
"""Share of the first loss below which a run late in its plan is not suspected any more."""
LATE_RATIO = 0.02
MISSED, LATE_MISSED = 0.3, 0.25
"""Share of the progress at a lower rate that must be missing."""
GONE = 0.02
"""Share of the highest rate below which steps do next to nothing."""
EARLY, EARLY_MISSED = 0.2, 0.5
"""Share of the run that counts as its beginning, and what must be missing there."""
FIRST = (0.1, 0.01)
LONG = 80
"""Steps of a trial of lower rates, at most."""
SOUND = "highest loss at a rate that lower ones do not beat"
OPEN = "lower rates won at the beginning, but not by enough"
TRIED = "lower rates tried at the beginning"
PASSES = 120
LOWER = (1 / 3, 0.1, 1 / 30, 0.01)


def during(facts: Facts, trace: Trace) -> Iterator[Finding]:
    """Suspect the rate where steps change weights much, or the loss has risen or never fell."""
    first = trace.scale
    smooth = trace.smooth(max(3, min(10, trace.step // 5)))
    if not smooth or not math.isfinite(first) or not can_step(facts.exp):
        return  # where a line search chooses how far a step goes, trials of rates are dear
    ratio = trace.ratio()
    moves = math.isfinite(ratio) and ratio > 1e-3
    low, recent, peak = min(smooth), smooth[-1], max(smooth)
    ended = trace.done >= 1 and momentum_of(facts.exp) < HEAVY  # a heavy one swings by itself
    risen = ended and trace.recent > low + RISEN * abs(first)
    rose = peak > PEAK * abs(first) or recent > low + RISEN * abs(first)
    stands = ratio > RATIO or (moves and recent > STUCK * first) or not trace.looks
    rates = [rate for rate in trace.rates if math.isfinite(rate)]
    used_up = bool(rates) and max(rates[len(rates) // 2 :]) < GONE * max(rates)
    # Where half of the steps had no rate, steps that were large come before, and a loss that
    # stands wants one: only what has risen was driven up.
    early = rose or (stands and not used_up)
    if trace.broken is not None:
        early = trace.diverged
    sound = facts.notes.get(SOUND)
    if sound is not None and peak <= sound + ABOVE * abs(sound):
        early = False  # lower rates were tried before, and nothing worse has come since
    late = trace.broken is None and trace.done >= 0.5 and ratio > LATE_RATIO
    late = late and recent > HIGH * first and not used_up
    behind = ended and not used_up and (risen or _is_behind(facts, trace.recent))
    if not early and not late and not behind:
        return
    lr = max(rates, default=math.nan) if early else trace.rates[-1]  # a schedule ends low
    share = f"{ratio:.0%} of" if RATIO <= ratio < MANIFOLD else f"{ratio:.1%} of"
    if ratio >= MANIFOLD:
        share = f"{ratio:.3g} times"
    moved = f"a typical step changes weights by {share} their size (about 0.1% is usual), and "
    yield Finding(
        "lr_too_high",
        f"at a learning rate of {lr:.3g} {moved if math.isfinite(ratio) else ''}the loss is "
        f"{recent:.3g} after {trace.step} steps, {first:.3g} before the first",
        "lower the learning rate tenfold, or warm it up",
        evidence={"lr": lr, "update_ratio": ratio, "loss": recent, "first_loss": first,
                  "highest_loss": peak, "highest_at": smooth.index(peak) if rose else 0,
                  "steps": trace.step, "late": not early,
                  "end_only": not early and not late,
                  **({"loss_of_the_end": trace.recent, "risen": risen} if ended else {})},
        phase="steps",
        strength=max(ratio / RATIO if math.isfinite(ratio) else 0.0,
                     recent / max(abs(first), 1e-12) if math.isfinite(recent) else 10.0),
        repairs=_repairs((0.1, 0.01)),
    )  # fmt: skip


def confirm(facts: Facts, finding: Finding) -> Finding | None:
    """Train from the start at the rate and at lower ones; late in a run, go on from where it is."""
    facts.notes.pop(OPEN, None)
    sure = None if finding.evidence["late"] else _from_start(facts, finding)
    sure = sure or _behind(facts, finding)
    if sure is not None:
        return sure
    here = facts.start is not None and math.isfinite(finding.evidence["loss"])
    if finding.evidence["end_only"] or not here:
        return None
    return _from_here(facts, finding)


def cost(facts: Facts, finding: Finding) -> int:
    """Return the passes of `confirm`; a question that was left open is always asked again."""
    if finding.evidence["end_only"]:
        return 0  # what is known of lower rates is used, and what can be afforded is added
    return 0 if facts.notes.get(OPEN) and not finding.evidence["late"] else PASSES


def _from_start(facts: Facts, finding: Finding) -> Finding | None:
    exp = (facts.start or facts).exp
    taken, worst = (int(finding.evidence[k]) for k in ("steps", "highest_at"))
    steps = max(20, min(LONG, taken))
    # What comes up later than that is not seen in so few steps, lower rates are not held against it
    if steps < worst:
        affordable = int(min(2 * LONG, (facts.allowed - facts.passes) / (1 + len(FIRST))))
        steps = max(steps, min(worst + worst // 4, affordable, taken))
    trial = facts.notes[TRIED] = lr_trial(facts, FIRST, steps=steps)
    first = trial.best(*FIRST)
    # At the very beginning a run at its best rate may still be on its way back down.
    early = taken < EARLY * exp.total_steps and math.isfinite(trial.end(1.0))
    edge = EARLY_MISSED if early else MISSED
    missed = trial.missed(1.0, first)
    if missed <= edge or not trial.sure(1.0, first):
        if missed <= MISSED / 2 and worst <= steps:
            facts.notes[SOUND] = finding.evidence["highest_loss"]
        elif early and missed > MISSED and trial.sure(1.0, first):
            facts.notes[OPEN] = True
        return None
    factors = [*LOWER]
    trial = lr_trial(facts, factors, steps=steps)
    while trial.best() == factors[-1] and factors[-1] > 1e-6:  # the best one lies lower still
        factors.append(factors[-1] / 10)
        trial = lr_trial(facts, factors, steps=steps)
    return _sure(finding, trial, tuple(sorted(factors, key=trial.end)[:3]))


def _is_behind(facts: Facts, recent: float) -> bool:
    """Whether the run ends at a higher loss than a lower rate had after the first few steps.

    Who learns in fewer steps what the run lost, or never learned, in more has the better rate.
    """
    trial: Trial | None = facts.notes.get(TRIED)
    return trial is not None and _lacks(trial, recent) > MISSED


def _lacks(trial: Trial, recent: float) -> float:
    """Return the share of what the best lower rate learned in short that the run lacks now."""
    low = trial.end(_lower(trial))
    if not math.isfinite(low) or not math.isfinite(recent):
        return 0.0
    return (recent - low) / max(trial.begin - low, FLOOR * abs(trial.begin), 1e-12)


def _lower(trial: Trial) -> float:
    """Return the best of the lower rates of a trial."""
    found: float = trial.best(*(f for f in trial.tails if f < 1))
    return found


def _behind(facts: Facts, finding: Finding) -> Finding | None:
    """Return the finding where a lower rate was better after fewer steps, on new rows too.

    A loss that came back up is worth a training at a lower rate that is longer than the first one:
    of the rate as it is the run itself tells.
    """
    end = finding.evidence.get("loss_of_the_end", math.nan)
    rows = whole(facts.exp.val, 1024, facts.exp.device)
    if facts.start is None or rows is None or not math.isfinite(end):
        return None
    known: Trial | None = facts.notes.get(TRIED)
    # What other rules may still have to ask comes first.
    affordable = facts.passes + LONG + PASSES <= facts.allowed
    affordable = affordable and finding.evidence["steps"] >= LONG
    if finding.evidence["risen"] and affordable and (known is None or _steps(known) < LONG):
        lower = compared(facts.start.exp, {FIRST[0]: times_lr(FIRST[0])}, steps=LONG)
        facts.notes[TRIED] = lower
        facts.passes += LONG
    if not _is_behind(facts, end):
        return None
    trial: Trial = facts.notes[TRIED]
    facts.passes += 2
    now, low = loss_on(facts.exp, *rows), loss_on(trial.twins[_lower(trial)], *rows)
    if not _lacks(trial, now) > MISSED / 2 or not now > low:
        return None
    return _sure(finding, trial, (0.1, 1 / 3, 1 / 30))


def _steps(trial: Trial) -> int:
    return round(len(trial.tails[_lower(trial)]) / TAIL)


def _from_here(facts: Facts, finding: Finding) -> Finding | None:
    """Go on at a tenth of the rate: where that gains much at once, steps were too large."""
    if finding.evidence["update_ratio"] < LATE_RATIO:
        return None
    trial = lr_trial(facts, (0.1,), steps=soon(facts.exp), now=True)
    first = float(finding.evidence["first_loss"])
    if trial.missed(1.0, 0.1, begin=first) < LATE_MISSED or not trial.sure(1.0, 0.1):
        return None
    if not gains(facts, trial, 0.1, begin=first, share=LATE_MISSED / 2):
        return None
    finding = finding.but(evidence={**finding.evidence, "went_on": True})
    return _sure(finding, trial, (0.1, 1 / 3, 1 / 30))


def outgrown(facts: Facts, trace: Trace, finding: Finding) -> bool:
    """Whether a run came by itself as far as a lower rate would have brought it at once.

    Every rate leaves noise that a lower one takes away at once; early in a run that is much of what
    was learned so far. It is asked at the end once more, where it is to be a share of all that was.
    """
    if not finding.evidence.get("went_on") or facts.start is None:
        return False
    if trace.recent > min(finding.evidence["loss_at"].values()):
        return False
    return _from_here(facts, finding) is None


def _sure(finding: Finding, trial: Trial, order: tuple[float, ...]) -> Finding:
    curves = {f"lr x {f:.3g}": trial.end(f) for f in trial.tails}
    return finding.but(
        confirmed=True,
        evidence={**finding.evidence, "loss_at": curves},
        repairs=_repairs(order),
    )


def _repairs(factors: tuple[float, ...]) -> tuple[Repair, ...]:
    found = [
        Repair(
            f"lr x {f:.3g}",
            other_rate(f),
            edit=f"lr times {f:.3g}, falling as a cosine",
            setting="lr",
        )
        for f in factors
    ]
    return (*found, Repair("lr from a range test", from_range, setting="lr"))


def from_range(exp: Experiment) -> str:
    """Take the rate of the valley of a range test as the highest one of the schedule."""
    highest = max(paper_rates(exp) or [exp.optimizer.param_groups[0]["lr"]])
    return other_rate(best_rate(exp) / highest)(exp)


RULE = Rule(
    code="lr_too_high",
    title="the learning rate is too high",
    looks="the loss jumps, rises above where it began, or ends in NaN",
    why="a gradient is true near the weights where it was taken; a step beyond raises the loss",
    do="lower the rate tenfold, or take it from a range test, and warm it up",
    source="Bengio 2012, arXiv:1206.5533, section 3.1.1; Smith 2017, arXiv:1506.01186",
    during=during,
    confirm=confirm,
    passes=PASSES,
    cost=cost,
    causes=("nan_inf", "dead_relu", "oscillating_loss", "exploding_gradient", "plateau",
            "saturated_activation", "underfit", "weight_decay_too_high"),
    outgrown=outgrown,
)  # fmt: skip
