"""The learning rate is so low that the whole run goes hardly anywhere."""

from __future__ import annotations

import math
from statistics import median
from typing import TYPE_CHECKING

from torch.optim import Adagrad

from gipi.doctor.experiment import whole
from gipi.doctor.finding import Finding, Repair
from gipi.doctor.heldback import held_back
from gipi.doctor.probes import accuracy_on, after_steps, compared
from gipi.doctor.proof import compare
from gipi.doctor.rates import lr_trial, noted_rates, times_lr
from gipi.doctor.rule import Rule
from gipi.doctor.rules.lr_too_high import from_range
from gipi.doctor.schedules import other_rate

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gipi.doctor.facts import Facts
    from gipi.doctor.probes import Trial
    from gipi.doctor.trace import Trace

REACH = 0.5
"""Sum of update over weight along the whole run below which it is looked at closer."""
TARGETS = (3e-3, 1e-2, 3e-2)
"""Update over weight of the rates that are tried instead."""
BEYOND = 10.0
"""Times the highest of them that is tried last, where that one is the best and not enough."""
SHARE = 0.125
"""Share of the run that a trial takes at first."""
LEAST, MOST = 30, 150
"""Steps of a trial."""
OF_LEFT = 0.3
"""Of the passes that are left, what trials take at most: other rules have questions as well."""
STUCK, LAST = 0.95, 0.6
VISIBLE = 5e-4
ENOUGH, TIRED = 20, 1e-4
"""Steps of a run without an end before which nothing is said, and update over weight above which
it may only have begun."""
MISSED = 0.4
TRIED, TRIES = "trials of higher rates", 2
FURTHER = 10
"""Where nobody knows how long a run is to go on: so many times as long must hardly help."""
MADE_UP = MISSED / 2
"""The share at the end of a run that shows that what was missed was only a matter of time."""
CLEARER = 0.05
"""Share of rows that a higher rate must get right beyond the others, where rows have classes."""


def during(facts: Facts, trace: Trace) -> Iterator[Finding]:
    """Suspect where all steps together could not move a matrix by a third of its size."""
    pairs = [
        (trace.pace(look), trace.rates[min(look.step, trace.step) - 1])
        for look in trace.looks[-8:]
        if look.step > 0 and trace.rates
    ]
    speeds = [r / lr for r, lr in pairs if math.isfinite(r) and lr > 0]
    if not speeds or trace.broken is not None or (trace.done > LAST and not trace.open):
        return
    recent = trace.recent
    if trace.open and (trace.step < ENOUGH or recent < STUCK * trace.mean_loss(0, trace.step // 5)):
        return
    if trace.done >= 0.5 and recent < 0.5 * trace.scale:
        return
    tried = facts.notes.get(TRIED, 0)
    if tried >= TRIES or (tried and recent < STUCK * trace.scale):
        return
    planned = noted_rates(facts)
    if planned is None or trace.planned != (facts.start or facts).exp.total_steps:
        planned = [sum(trace.rates) / len(trace.rates)]
    reach = median(speeds) * trace.planned * sum(planned) / len(planned)
    further = FURTHER if trace.open else 1
    lr, ratio = max(planned), median(speeds) * max(planned)
    if not 0 < further * reach < REACH or (trace.open and ratio > TIRED):
        return
    far = f"{reach:.1%}" if reach > VISIBLE else f"{reach:.0e} of it"
    yield Finding(
        "lr_too_low",
        f"at a learning rate of {lr:.3g} a typical step changes weights by {ratio:.1e} of their "
        f"size: all {trace.planned} steps in one direction would change them by {far}",
        "raise the learning rate tenfold or more, or take it from a range test",
        evidence={"lr": lr, "update_ratio": ratio, "reach": reach, "loss": recent,
                  "first_loss": trace.scale, "done": trace.done,
                  **({"further": further} if trace.open else {})},
        phase="steps",
        strength=REACH / reach,
        repairs=(Repair("lr from a range test", from_range, setting="lr"),),
    )  # fmt: skip


def confirm(facts: Facts, finding: Finding) -> Finding | None:
    """Stand in for the whole run by few steps at a rate so much higher; compare with higher ones.

    At low rates weights go as far in n steps at rate r as in n/k steps at rate k r; where squared
    gradients add up (Adagrad), step t goes r/√t and n steps go 2 r √n: as far as n/k steps at √k r.
    A run is too slow where a rate higher still gets much lower in the same few steps. Of a loop
    that is watched it must do so on rows that it did not see: of val, or of batches held back.
    """
    exp = (facts.start or facts).exp
    watched = facts.start is not None and facts.start.loop is not None
    part = max(SHARE, float(finding.evidence["done"]))  # what has stood still so long needs time
    wanted = max(LEAST, min(MOST, round(part * exp.total_steps)))
    may_cost = OF_LEFT * (facts.allowed - facts.passes)
    lengths = range(wanted, LEAST, -1)
    fits = (n for n in lengths if n * _trainings(facts, finding, n) <= may_cost)
    steps = next(fits, LEAST)
    whole_run, factors = _factors(facts, finding, steps)
    if not factors:
        return None
    trial = lr_trial(facts, (whole_run, *factors), steps=steps, itself=False)
    facts.notes[TRIED] = facts.notes.get(TRIED, 0) + 1
    best, begin, missed = _best(trial, finding, whole_run, factors)
    may = facts.passes + steps <= facts.allowed
    if missed < MISSED and best == max(factors) and trial.sure(whole_run, best) and may:
        factors.append(BEYOND * best)  # tables move by few rows a step, squares that add up slow it
        trial = lr_trial(facts, (whole_run, *factors), steps=steps, itself=False)
        best, begin, missed = _best(trial, finding, whole_run, factors)
    if missed < MISSED or not trial.sure(whole_run, best):
        return None
    slow, fast = trial.twins.get(whole_run), trial.twins[best]
    if slow is None:
        slow = after_steps(exp, steps)[1]
    if watched and exp.val is None:
        exp = held_back(exp)
        held = compared(exp, {f: times_lr(f) for f in (whole_run, best)}, steps=steps)
        facts.passes += 2 * steps
        slow, fast = held.twins[whole_run], held.twins[best]
    # A loop without an end may be fine-tuning: rows that were learned are learned by heart.
    if watched and exp.val is not None and not compare(slow, fast).holds("better"):
        return None
    rows = whole(exp.val if exp.val is not None else exp.train, 1024, exp.device)
    if rows is not None:
        gain = accuracy_on(fast, *rows) - accuracy_on(slow, *rows)
        if math.isfinite(gain) and gain < CLEARER:
            return None
        if math.isnan(gain) and exp.val is not None:
            higher = [f for f in factors if trial.missed(whole_run, f, begin=begin) >= MISSED
                      and trial.sure(whole_run, f)]  # fmt: skip
            if not _wins(facts, trial, whole_run, higher, steps):
                return None
    order = sorted(factors, key=trial.end)[:2]
    lr = float(finding.evidence["lr"])
    return finding.but(
        severity="hint" if watched and exp.val is None else finding.severity,
        confirmed=not watched or exp.val is not None,
        evidence={**finding.evidence, "loss_as_is": trial.end(whole_run), "missed": missed,
                  "loss_at": {f"lr x {f:.3g}": trial.end(f) for f in factors}},
        repairs=(*[Repair(f"lr x {f:.3g}", other_rate(f), edit=f"lr={lr * f:.2g}", setting="lr")
                   for f in order], *finding.repairs),
    )  # fmt: skip


def _best(
    trial: Trial, finding: Finding, slow: float, factors: list[float]
) -> tuple[float, float, float]:
    """Return the best factor, the loss that counts as no progress, and what the run misses."""
    best = trial.best(*factors)
    first = [trial.begin, trial.firsts[best], float(finding.evidence["first_loss"])]
    begin = min((loss for loss in first if math.isfinite(loss)), default=math.nan)
    return best, begin, trial.missed(slow, best, begin=begin)


def _wins(facts: Facts, trial: Trial, slow: float, higher: list[float], steps: int) -> bool:
    """Whether one of the higher rates gets lower on rows that it did not see, too.

    After half of the steps, where not after all: it may know few rows by heart by then.
    """
    own = trial.twins[slow]
    if any(compare(own, trial.twins[f]).holds("better") for f in higher):
        return True
    sooner = lr_trial(facts, higher, steps=steps // 2, itself=False)
    return any(compare(own, sooner.twins[f]).holds("better") for f in higher)


def cost(facts: Facts, finding: Finding) -> int:
    """Return the passes of the shortest `confirm`; a longer one takes a share of what is left."""
    return LEAST * _trainings(facts, finding, LEAST)


def _trainings(facts: Facts, finding: Finding, steps: int) -> int:
    """Return how many trainings of so many steps are needed, those on held-back rows among them."""
    start = facts.start
    again = start is not None and start.loop is not None and start.exp.val is None
    return 1 + len(_factors(facts, finding, steps)[1]) + 2 * again


def _factors(facts: Facts, finding: Finding, steps: int) -> tuple[float, list[float]]:
    """Return by how much the rate is multiplied to stand for the whole run, and to be higher."""
    exp = (facts.start or facts).exp
    times = finding.evidence.get("further", 1) * exp.total_steps / steps
    whole_run = max(1.0, math.sqrt(times) if isinstance(exp.optimizer, Adagrad) else times)
    ratio = float(finding.evidence["update_ratio"])
    return whole_run, [t / ratio for t in TARGETS if t / ratio > 1.5 * whole_run]


def outgrown(_: Facts, trace: Trace, finding: Finding) -> bool:
    """Whether the run went on to where it misses little of what a higher rate had reached."""
    ends, first = finding.evidence.get("loss_at"), float(finding.evidence["first_loss"])
    if not ends or not math.isfinite(trace.recent):
        return False
    best = float(min(ends.values()))
    return trace.recent - best < MADE_UP * (first - best)


RULE = Rule(
    code="lr_too_low",
    title="the learning rate is too low",
    looks="the loss falls evenly and very slowly; the run ends long before it is down",
    why="how far weights can go is the sum of all steps; where that is a small part of their size "
    "the net ends where it began",
    do="raise the rate tenfold, or take it from a range test",
    source="Smith 2017, arXiv:1506.01186; Bengio 2012, arXiv:1206.5533, section 3.1.1",
    during=during,
    confirm=confirm,
    passes=(1 + len(TARGETS)) * LEAST,
    cost=cost,
    causes=("underfit", "plateau"),
    outgrown=outgrown,
)
