"""The schedule has used up its learning rate long before the run ends."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from statistics import median
from typing import TYPE_CHECKING

from gipi.doctor.finding import Finding, Repair
from gipi.doctor.heldback import held_back
from gipi.doctor.probes import compared, horizon
from gipi.doctor.proof import compare
from gipi.doctor.rates import noted_rates, paper_rates
from gipi.doctor.rule import Rule
from gipi.doctor.schedules import constant, cosine

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gipi.doctor.experiment import Experiment
    from gipi.doctor.facts import Facts
    from gipi.doctor.probes import Trial
    from gipi.doctor.trace import Trace

AREA = 0.25
"""Mean rate over the highest one: of a cosine it is a half."""
GONE = 0.02
"""Share of the highest rate below which steps do next to nothing."""
BACK = 0.2
"""Share of the highest rate from which a rate that was gone has come back."""
IDLE = 0.6
"""Share of the run by which the rate must be gone."""
MISSED = 0.1
MISSED_IDLE = 0.03
"""As much again of all progress, and proven on held rows, shows that what stands was not done."""
LONGER = 1.5
"""Times as long as the one before that another counter-experiment must be."""
MOST = 160
"""Steps of a counter-experiment."""
LOWER = 0.1
"""Of numbers: share by which a loss is lower in earnest; no loss of theirs is so low that its half
is nothing."""
NAMED, TRIED = "the schedule was named", "a rate was given back"
STRETCHED = "short trainings with the schedule and a stretched one"
OPEN = "a stretched schedule won at the beginning, but not by enough"
ONCE = "call scheduler.step() once an epoch, not after every batch"
LASTS = f"{ONCE}: stepped so, the schedule lasts the whole run"
MAY_LAST = (
    f"{ONCE}, where the schedule counts epochs; one that counts batches should fall over the whole "
    "run, such as half a cosine"
)
STRETCH = (
    "stretch the schedule over the whole run, such as half a cosine; check whether it is meant to "
    "step once an epoch and not once a batch"
)
WAIT = (
    "let the schedule fall over the whole run, such as half a cosine; where it waits for the loss, "
    "give it more patience and a smaller threshold"
)


def before(facts: Facts) -> Iterator[Finding]:
    """Suspect a schedule whose mean rate is far below its highest, and is gone in half the run."""
    rates = noted_rates(facts) if facts.exp.scheduler is not None else None
    if not rates or len(rates) < 10 or max(rates) <= 0:
        return
    top, places, total = max(rates), len(rates), facts.exp.total_steps
    area = sum(rates) / places / top
    peak = rates.index(top)
    place = next((i for i in range(peak, places) if rates[i] < GONE * top), places)
    if area >= AREA or place > IDLE * places or max(rates[place:]) > BACK * top:
        return
    gone = place * total // places
    yield Finding(
        "lr_decay_too_fast",
        f"the schedule falls below {GONE:.0%} of its highest rate ({top:.3g}) at step {gone} of "
        f"{total}; its mean is {area:.1%} of it",
        LASTS if _fits_epochs(facts.exp) else STRETCH,
        evidence={"highest": top, "area": area, "gone_at": gone, "steps": total,
                  "rates": rates[:: max(1, places // 32)]},
        strength=AREA / area,
        repairs=_repairs(top, total),
    )  # fmt: skip


def during(facts: Facts, trace: Trace) -> Iterator[Finding]:
    """Suspect a rate that was used up as the run went: no paper says what losses decide."""
    if trace.done < 0.5 or trace.broken is not None:
        return
    start = facts.start or facts
    known = start.exp.scheduler is not None and noted_rates(start) is not None
    if start.notes.get(NAMED) or (known and not list(before(start))):
        return  # named, or found sound, before the first step
    top, total = max(trace.rates), trace.planned
    peak = trace.rates.index(top)
    gone = next((i for i in range(peak, trace.step) if trace.rates[i] < GONE * top), total)
    area = sum(trace.rates) / trace.step / top
    if trace.open and area >= AREA:
        return  # as on paper: a fall at 30 % and another at 60 % is a usual schedule
    if gone >= IDLE * total or max(trace.rates[gone:], default=0.0) > BACK * top:
        return
    if known and trace.done >= 1:
        yield from _overtaken(start, trace)
    if not trace.recent > MISSED_IDLE * abs(trace.scale):
        return  # nobody can gain as much
    steps = horizon(facts.exp, 0.3, low=30, high=MOST)
    if tried := int(facts.notes.get(TRIED, 0)):
        # A loss may stand for a while before it falls: of a schedule that is too fast on paper it
        # is asked at the end once more, for as long as the rate was gone.
        steps = min(MOST, total - gone)
        if not known or trace.done < 1 or steps < LONGER * tried:
            return
    often = _often(trace.rates[: gone + 1], start.exp.steps_per_epoch)
    yield Finding(
        "lr_decay_too_fast",
        f"the learning rate fell below {GONE:.0%} of its highest ({top:.3g}) at step {gone} of "
        f"{total} and stayed there; the loss has stood at {trace.recent:.4g} since"
        + (": the schedule is stepped many times an epoch" if often else ""),
        MAY_LAST if often else WAIT,
        evidence={"highest": top, "area": area, "gone_at": gone, "steps": total,
                  "tried": steps, "first_loss": trace.scale,
                  "rates": trace.rates[:: max(1, trace.step // 32)]},
        phase="epoch",  # which repair is best shows at the end of a run
        strength=total / max(gone, 1),
        repairs=(
            *_repairs(top, total),
            Repair("no schedule", constant(top), edit=f"lr={top:.3g} and no scheduler"),
        ),
    )  # fmt: skip


def _overtaken(start: Facts, trace: Trace) -> Iterator[Finding]:
    """Suspect what ends at a higher loss than a stretched schedule had after its first steps."""
    trial: Trial | None = start.notes.get(STRETCHED)
    if trial is None:
        return
    sooner = trial.end("stretched")
    worth = MISSED_IDLE * abs(trace.scale)
    if start.kind in ("numbers", "reconstruct"):
        worth = min(worth, LOWER * abs(trace.recent))
    if not trace.recent - sooner > worth:
        return
    for finding in before(start):
        steps = _steps(start, finding)
        yield replace(
            finding,
            message=f"{finding.message}; a schedule that lasts comes to a loss of {sooner:.4g} in "
            f"{steps} steps, this one to {trace.recent:.4g} in {trace.step}",
            evidence={**finding.evidence, "loss_of_the_end": trace.recent,
                      "loss_stretched": sooner, "tried": steps},
            phase="epoch",
        )  # fmt: skip


def _fits_epochs(exp: Experiment) -> bool:
    """Whether a schedule of batches would last the run if it were stepped once an epoch."""
    if exp.scheduler_every != "step":
        return False
    rates = paper_rates(replace(exp, scheduler_every="epoch"))
    if not rates or max(rates) <= 0:
        return False
    return sum(rates) / len(rates) / max(rates) >= AREA and rates[-1] < max(rates)


def _often(rates: list[float], per_epoch: int) -> bool:
    """Whether a rate fell more often than once an epoch until it was gone."""
    falls = [i for i in range(1, len(rates)) if rates[i] < rates[i - 1]]
    gaps = [after - before for before, after in pairwise([0, *falls])]
    return bool(gaps) and 2 * median(gaps) <= per_epoch


def _repairs(top: float, total: int) -> tuple[Repair, ...]:
    edit = (
        f"torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, {total}), stepped after every batch"
    )
    return (Repair("cosine over the whole run", cosine(top), setting="schedule", edit=edit),)


def confirm(facts: Facts, finding: Finding) -> Finding | None:
    """Train until the schedule's rate is used up, and as long with a schedule of full length.

    Where it was used up in the course of the run, go on from there with and without a rate.
    """
    if "loss_of_the_end" in finding.evidence:
        return _ahead(facts, finding)
    if finding.phase != "before":
        return _given_back(facts, finding)
    exp, steps = facts.exp, _steps(facts, finding)
    change = finding.repairs[0].change
    trial = compared(exp, {"own": None, "stretched": change}, steps=steps)
    facts.passes += 2 * steps
    missed, sure = trial.missed("own", "stretched"), trial.sure("own", "stretched")
    facts.notes[OPEN] = sure and missed >= MISSED_IDLE
    if missed < MISSED or not sure:
        if exp.val is not None:  # that was few steps: the run itself will tell of more
            trial.twins.pop("own", None)  # a net that nobody asks is not held
            facts.notes[STRETCHED] = trial
        return None
    facts.notes[NAMED] = True
    return finding.but(
        confirmed=True,
        evidence={**finding.evidence, "loss_as_is": trial.end("own"),
                  "loss_stretched": trial.end("stretched")},
    )  # fmt: skip


def _steps(facts: Facts, finding: Finding) -> int:
    """Return how long each of the two trainings of the counter-experiment is."""
    if finding.phase != "before":
        return int(finding.evidence["tried"])
    total, gone = facts.exp.total_steps, int(finding.evidence["gone_at"])
    return min(total, max(30, min(MOST, max(round(0.3 * total), 2 * gone))))


def cost(facts: Facts, finding: Finding) -> int:
    """Return the passes of both trainings; a question that was left open is always asked again."""
    if "loss_of_the_end" in finding.evidence:
        return 0
    if finding.phase != "before" and (facts.start or facts).notes.get(OPEN):
        return 0
    return 2 * _steps(facts, finding) + 2


def _ahead(facts: Facts, finding: Finding) -> Finding | None:
    """Compare the end of the run with the first steps of a stretched schedule, on new rows."""
    trial: Trial = (facts.start or facts).notes[STRETCHED]
    facts.passes += 2
    if not compare(facts.exp, trial.twins["stretched"]).holds("better"):
        return None
    return finding.but(confirmed=True)


def _given_back(facts: Facts, finding: Finding) -> Finding | None:
    """Go on as it is, and with the highest rate once more, falling to 0 as a cosine.

    Without validation rows it is a hint: training rows gain from a rate also by heart. A loop that
    was watched shows its training batches alone: there some are held back to tell.
    """
    exp, top = facts.exp, float(finding.evidence["highest"])
    watched = exp.val is None and facts.start is not None and facts.start.loop is not None
    if watched:
        exp = held_back(exp)
    first = float(finding.evidence["first_loss"])
    steps = _steps(facts, finding)

    def again(twin: Experiment) -> str:
        twin.epochs = steps / twin.steps_per_epoch
        return cosine(top)(twin)

    trial = compared(exp, {1.0: None, "again": again}, steps=steps)
    facts.passes += 2 * steps + 2
    facts.notes[TRIED] = steps
    if trial.missed(1.0, "again", begin=first) < MISSED_IDLE or not trial.sure(1.0, "again"):
        return None
    better = compare(trial.twins[1.0], trial.twins["again"]).holds("better")
    if not better and not watched:
        return None
    return finding.but(
        severity=finding.severity if better and exp.val is not None else "hint",
        confirmed=better,
        evidence={**finding.evidence, "loss_as_is": trial.end(1.0),
                  "loss_with_a_rate": trial.end("again")},
    )  # fmt: skip


RULE = Rule(
    code="lr_decay_too_fast",
    title="the learning rate decays too fast",
    looks="the loss falls at first and then stands still, though the net could learn more",
    why="how far weights can go is the sum of all rates; a schedule that is used up in a tenth of "
    "the run makes the other nine tenths idle",
    do="let the schedule end where the run ends; step it as often as it was made for",
    source="Loshchilov and Hutter 2017, arXiv:1608.03983; Li et al. 2020, arXiv:1905.04753",
    before=before,
    during=during,
    confirm=confirm,
    passes=2 * MOST + 2,
    cost=cost,
    causes=("lr_too_low", "plateau", "underfit"),
)
