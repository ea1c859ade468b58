"""The transform of training batches takes away what tells the target."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gipi.doctor.chains import Chain, name_of, steps_of, without_step
from gipi.doctor.confused import told
from gipi.doctor.drift import as_trained, is_repeatable
from gipi.doctor.facts import Facts
from gipi.doctor.finding import CannotRepair, Finding, Repair
from gipi.doctor.proof import compare
from gipi.doctor.reference import bar, reached
from gipi.doctor.rule import Rule
from gipi.doctor.schedules import cosine
from gipi.doctor.seeded import seeded
from gipi.doctor.shallow import predict, ridge
from gipi.doctor.sheet import Sheet, origin, sheet
from gipi.doctor.trials import Outcome, trial

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from gipi.doctor.experiment import Experiment
    from gipi.doctor.trace import Trace

KEPT = 0.4
"""Share of what a shallow learner finds that must be left after the transform."""
LESS, BEATEN, MUCH = 0.75, 0.15, 0.2
"""Share that is left from which on nobody asks; how much better than the net on its own rows a
simple learner must be on new ones for a transform that leaves less to be asked about at the end,
and the share of all progress that it must then cost to be worth a word."""
FLAT = 0.03
"""Fall of the loss over the last quarter of the steps, as a share of one that knows nothing,
from which on a longer run may still bring what the transform costs."""
LEAST = 100
SIGNAL = 0.05
STEPS = 100
PASSES = 2 * STEPS + 6
HARM = 0.3
"""Share of the progress without the transform below which nothing is left of it."""
MISSED = 0.1
"""Share of all progress that validation must gain where a run goes on without its transform."""
REST, NEAR = 0.5, 0.75
"""Share of the wrong answers that is left, at most, where a net goes on without what confused it;
and down to which it is worth twice the steps."""
QUARTERS = 3
"""Quarters of a run: one that makes up for what it misses within them, at its pace, only lacks
time."""
IN_DOUBT, COSTLY = "a transform in doubt", "a transform that costs a shallow learner much"
SHOWN = "a transform that was shown to harm before the run"
CONFUSED = "told_in_worst_class"


def before(facts: Facts) -> Iterator[Finding]:
    """Suspect a transform after which a shallow learner finds far less than before it."""
    if facts.exp.transform is None or facts.X is None:
        return
    train = sheet(facts)
    plain = plainly(facts, train) if train is not None else None
    numbers: dict[str, float] = {}
    costly = False
    if plain is not None and plain[0] > SIGNAL:
        numbers = {"explained_raw": plain[0], "explained_transformed": plain[1]}
        if plain[1] > LESS * plain[0]:
            return
        costly = plain[1] > KEPT * plain[0]
        what = (
            f"a linear learner explains {plain[0]:.0%} of the target from raw inputs and "
            f"{max(plain[1], 0):.0%} from transformed ones"
        )
    else:
        like = _likeness(facts)
        if like is None or like > 0.3:
            return
        numbers = {"likeness": like}
        what = (
            f"an input and what the transform makes of it are hardly alike (correlation {like:.2f})"
        )
    found = _finding(what, numbers)
    if plain is not None and plain[0] > SIGNAL:
        found = replace(found, strength=KEPT * plain[0] / max(plain[1], 0.01))
    if costly:  # a net may learn what a linear learner does not: its end will tell
        facts.notes[COSTLY] = replace(found, evidence={**numbers, "costly": True})
        return
    yield found


def _finding(what: str, numbers: dict[str, float]) -> Finding:
    return Finding(
        "augmentation_destroys_signal",
        what,
        "weaken the transform, or take its steps out one by one",
        where=("transform",),
        evidence=numbers,
        repairs=(
            Repair("take the harmful step out", without_worst,
                   edit="take out the step of the transform that destroys most"),
            Repair("train without the transform", without, edit="transform=None"),
        ),
    )  # fmt: skip


def during(facts: Facts, trace: Trace) -> Iterator[Finding]:
    """Suspect, at the end of the run, a transform that was in doubt before it.

    Or that no shallow learner can judge, in a run that ends with a class taken for another one.
    """
    first = origin(facts)
    if facts.exp.transform is None or trace.done < 1 or trace.broken is not None:
        return
    high = min(abs(trace.scale), first.yardstick or math.inf)
    numbers = {"first_loss": trace.scale, "highest_rate": max(trace.rates),
               "falls": trace.fall() / max(high, 1e-12)}  # fmt: skip
    if trace.epochs:
        numbers["val"] = trace.epochs[-1].get("val", math.nan)
    for doubt in _doubts(facts):
        yield replace(doubt, phase="epoch", evidence={**doubt.evidence, **numbers})


def _doubts(facts: Facts) -> Iterator[Finding]:
    notes = origin(facts).notes
    if IN_DOUBT in notes:
        yield notes[IN_DOUBT]
        return
    confusing = _confusing(facts) if SHOWN not in notes else None
    if confusing is not None:
        yield confusing
    if COSTLY in notes and _beaten(facts):
        yield notes[COSTLY]


def _confusing(facts: Facts) -> Finding | None:
    """Return the suspicion where a net that was trained on drawn rows confuses rows as they are.

    No simple learner need tell them: things may stand at random places.
    """
    exp, first = facts.exp, origin(facts)
    now = told(exp, exp.val, kind=first.kind) if exp.val is not None else None
    if now is None or not now.confused or first.X is None:
        return None
    if is_repeatable(first, first.X):  # it prepares rows: those of validation may be prepared
        return None
    what = f"the net explains {now.all:.0%} of new rows as they are"
    if first.kind != "numbers":
        what = f"the net tells {now.all:.0%} of new rows as they are, {now.worst:.0%} in one class"
    found = _finding(what, {CONFUSED: now.worst, "told": now.all})
    return replace(found, repairs=found.repairs[1:])  # a shallow learner cannot tell its steps


def _beaten(facts: Facts) -> bool:
    """Whether a simple learner tells new rows far better than the net its own."""
    able, net = bar(facts), reached(facts.exp, origin(facts))
    return able is not None and able.best - net > max(BEATEN, 3 * able.se)


def cost(facts: Facts, _: Finding) -> int:
    """Return the passes of `confirm`; a run that ends far below a simple learner is worth them.

    But no more than the run itself took, with all that was spent before.
    """
    if facts.start is None:
        return PASSES
    passes = 2 * _further(facts) + 6
    left = facts.exp.total_steps - facts.passes - facts.start.passes
    return 0 if passes <= left and _beaten(facts) else passes


def confirm(facts: Facts, finding: Finding) -> Finding | None:
    """Train a little with and without the transform and judge both on rows as they are.

    A net may still learn something from what is left: at its end the run goes on with and without.
    """
    if facts.start is not None:
        return _from_here(facts, finding)
    steps = min(STEPS, max(20, facts.exp.total_steps // 2))
    with_it = trial(facts, steps)
    plain = trial(facts, steps, change=without)
    split = "val" if facts.val is not None else "train"
    gain, gain_plain = with_it.gain(split), plain.gain(split)
    end = with_it.val if split == "val" else with_it.train
    numbers = {"gain_with": gain if math.isfinite(gain) else None, "gain_without": gain_plain}
    if gain_plain > 0.05 * abs(plain.first) and gain < HARM * gain_plain:
        facts.notes[SHOWN] = True
        return finding.but(confirmed=True, evidence={**finding.evidence, **numbers, "loss": end})
    facts.notes[IN_DOUBT] = finding.but(evidence={**finding.evidence, **numbers})
    return None


def _from_here(facts: Facts, finding: Finding) -> Finding | None:
    """Go on with the transform and without it: what mends at once was spoilt by it alone.

    Without validation rows it is a hint: any net does better on the very rows that it trains on.
    At its end a run's own schedule is used up: both begin once more at its highest rate.
    """
    steps, confused = _further(facts), CONFUSED in finding.evidence
    top = float(finding.evidence["highest_rate"])

    def again(twin: Experiment) -> None:
        if twin.scheduler is None:
            return
        twin.epochs = steps / twin.steps_per_epoch
        cosine(top)(twin)

    def again_without(twin: Experiment) -> None:
        without(twin)
        again(twin)

    plain = trial(facts, steps, change=again_without)
    left = _left(facts, facts.exp, plain.exp) if confused else 0.0
    if REST < left <= NEAR and facts.passes + 4 * steps <= _worth(facts):
        steps *= 2
        plain = trial(facts, steps, change=again_without)
        left = _left(facts, facts.exp, plain.exp)
    if left > REST:
        return None
    with_it = trial(facts, steps, change=again)
    if confused and _left(facts, with_it.exp, plain.exp) > REST:
        return None
    split = "val" if facts.val is not None else "train"
    ends = [getattr(outcome, split) for outcome in (with_it, plain)]
    first = float(finding.evidence["first_loss"])
    if not all(map(math.isfinite, (*ends, first))) or ends[1] >= first:
        return None
    missed = (ends[0] - ends[1]) / (first - ends[1])
    costly = bool(finding.evidence.get("costly"))
    # One class that is taken for another one of many is a small share of a loss.
    least = 0.0 if confused else MUCH if costly else MISSED
    if missed <= least or not compare(with_it.exp, plain.exp).holds("better"):
        return None
    numbers = {"loss_going_on": ends[0], "loss_going_on_without": ends[1], "missed": missed}
    # What an augmentation costs may be worth it, in a longer run: not where nothing is learned any
    # more, though a simple learner tells new rows far better than the net its own.
    # A rate that falls to 0 ends any learning: what goes on at the highest rate tells.
    falls = float(finding.evidence["falls"])
    if costly:
        learns = max(falls, with_it.gain(split) / max(abs(first), 1e-12)) >= FLAT
    else:
        pace = falls * abs(first)
        if confused:  # its last steps may have sharpened what it tells, and not what it confuses
            pace = max(pace, float(finding.evidence["val"]) - ends[0])
        learns = pace * QUARTERS > ends[0] - ends[1]
    if confused and learns:
        return None
    severity = "hint" if learns or facts.val is None else finding.severity
    if confused:
        step = _worst_step(facts, steps, again, with_it.exp)
        finding = replace(finding, repairs=(*step, *finding.repairs))
    return finding.but(severity=severity, confirmed=True, evidence={**finding.evidence, **numbers})


def _left(facts: Facts, old: Experiment, plain: Experiment) -> float:
    """Return the share of a net's wrong answers that another one gives; infinite where it tells.

    Of validation rows. A net tells where it does not confuse them.
    """
    kind = origin(facts).kind
    before, after = (told(exp, facts.exp.val, kind=kind) for exp in (old, plain))
    if before is None or after is None or not before.confused:
        return math.inf
    return (1 - after.all) / max(1 - before.all, 1e-12)


def _worth(facts: Facts) -> float:
    """Return the passes that a question may cost once much speaks for the suspicion: a run more."""
    return facts.allowed + facts.exp.total_steps


def _worst_step(
    facts: Facts, steps: int, again: Callable[[Experiment], None], old: Experiment
) -> list[Repair]:
    """Return the repair that takes out the step of a chain without which a net goes on best.

    None where the others still confuse it, or where there are too many to ask.
    """
    chain = steps_of(facts.exp.transform) or []
    if len(chain) < 2 or facts.passes + len(chain) * steps > _worth(facts):
        return []

    def going_on(number: int) -> Outcome:
        def change(twin: Experiment) -> None:
            without_step(number)(twin)
            again(twin)

        return trial(facts, steps, change=change)

    ends = [going_on(number) for number in range(len(chain))]
    losses = [end.val if math.isfinite(end.val) else math.inf for end in ends]
    best = losses.index(min(losses))
    if _left(facts, old, ends[best].exp) > NEAR:
        return []
    edit = f"take {name_of(chain[best])} out of the transform"
    return [Repair("take the harmful step out", without_step(best), edit=edit)]


def _further(facts: Facts) -> int:
    """Return the steps by which an ended run goes on."""
    return min(STEPS, max(20, facts.exp.total_steps // 4))


def plainly(facts: Facts, train: Sheet, *, transform: Any = None) -> tuple[float, float] | None:
    """Return the explained share of rows left out, learned from raw and from transformed rows."""
    X = origin(facts).X
    if X is None or len(train.F) < LEAST:
        return None
    rows = train.rows
    fit = torch.arange(len(rows)) % 3 != 0
    given = X[rows[fit].to(X.device)]
    made = (
        as_trained(facts, given, rows=len(given))
        if transform is None
        else _made(facts.exp, transform, given)
    )
    if made is None or made.shape[1:] != X.shape[1:] or len(made) != len(given):
        return None
    Y, asked = train.Y[fit], train.Y[~fit].double()
    raw = predict(ridge(train.F[fit]), Y, train.F[~fit])
    bent = predict(ridge(train.lens(made.cpu().to(X.dtype))), Y, train.F[~fit])
    base = (asked - Y.double().mean(0)).square().sum().clamp_min(1e-12)
    return (float(1 - (asked - raw).square().sum() / base),
            float(1 - (asked - bent).square().sum() / base))  # fmt: skip


def without(exp: Experiment) -> str:
    """Train on batches as they are."""
    exp.transform = None
    return "training batches are taken as they are"


def without_worst(exp: Experiment) -> str:
    """Take that step of a chain out without which a shallow learner finds most."""
    steps = steps_of(exp.transform)
    if steps is None or len(steps) < 2:
        message = "the transform is not a chain of steps"
        raise CannotRepair(message)
    facts = Facts(exp)
    train = sheet(facts)
    if train is None:
        message = "a shallow learner cannot judge the steps"
        raise CannotRepair(message)
    scored = []
    for number in range(len(steps)):
        rest = Chain([s for i, s in enumerate(steps) if i != number])
        told = plainly(facts, train, transform=rest)
        scored.append((told[1] if told is not None else -math.inf, number))
    best, number = max(scored)
    if not math.isfinite(best):
        message = "a shallow learner cannot judge the steps"
        raise CannotRepair(message)
    return without_step(number)(exp)


def _made(exp: Experiment, transform: Any, given: Tensor) -> Tensor | None:
    try:
        with seeded(exp), torch.no_grad():
            return torch.cat([transform(p) for p in given.clone().split(exp.batch_size)])
    except (RuntimeError, ValueError, TypeError, IndexError):
        return None


def _likeness(facts: Facts) -> float | None:
    """Return the median correlation of an input with what the transform makes of it."""
    X = origin(facts).X
    if X is None or not X.is_floating_point():
        return None
    n = min(128, len(X))
    chosen = torch.arange(n, device=X.device) * len(X) // n
    made = as_trained(facts, X, rows=n)
    if made is None or made.shape != X[chosen].shape or X[0].numel() < 8:
        return None
    a, b = X[chosen].flatten(1).float(), made.flatten(1).float()
    a, b = a - a.mean(0), b - b.mean(0)
    norm = (a.norm(dim=1) * b.norm(dim=1)).clamp_min(1e-12)
    return float(((a * b).sum(1) / norm).median())


RULE = Rule(
    code="augmentation_destroys_signal",
    title="the augmentation destroys what tells the target",
    looks="training stays at the level of guessing, and is good at once without the augmentation",
    why="an augmentation must change what does not matter. Where it changes or hides what the "
    "target depends on, inputs and targets no longer belong together",
    do="weaken the transform, or take its steps out one by one until the signal is back",
    source="Gontijo-Lopes et al. 2021, Tradeoffs in data augmentation, arXiv:2002.08973",
    before=before,
    during=during,
    confirm=confirm,
    passes=PASSES,
    cost=cost,
    weak=lambda finding: CONFUSED in finding.evidence,
    causes=("underfit", "plateau", "train_val_shift", "preprocessing_mismatch", "lr_too_low",
            "oscillating_loss", "bn_stats_mismatch"),
)  # fmt: skip
