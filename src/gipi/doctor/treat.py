"""Repair: change a copy, train it, keep the change only where it proved better."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from gipi.doctor.begun import beginning, goes_on
from gipi.doctor.causes import roots
from gipi.doctor.copies import duplicate
from gipi.doctor.finding import CannotRepair
from gipi.doctor.gone import remaining
from gipi.doctor.play import attempt, play
from gipi.doctor.probes import after_steps
from gipi.doctor.proof import Proof, compare, scores, side_by_side

if TYPE_CHECKING:
    from collections.abc import Callable

    from gipi.doctor.begun import Begun
    from gipi.doctor.experiment import Experiment
    from gipi.doctor.finding import Finding, Repair
    from gipi.doctor.trace import Trace

TRIAL = 0.15
"""Where there is a choice of repairs each is tried for this share of the run first."""
LEAST = 20
"""Steps of such a trial, at least."""
OPTIONS = 3
"""Repairs of one finding that are tried, at most."""
HARDLY = 0.6
"""Share of the first loss above which a repaired run has hardly learned."""


class Diagnosed(Protocol):
    """What a treatment takes of a diagnosis; `why_not` is where it says why nothing was done."""

    experiment: Experiment
    findings: list[Finding]
    trained: Experiment | None
    trace: Trace | None
    begun: list[Begun]
    why_not: str

    @property
    def problems(self) -> list[Finding]:
        """The findings that hurt."""
        ...


@dataclass(repr=False)
class Treatment:
    """A repaired and trained experiment, and the proof.

    experiment  the repaired copy, trained; the one that was diagnosed is untouched
    changes     what was changed, in words, in order
    cured       codes of the findings that the changes belong to
    before, after  score (more is better) and loss of the validation rows of the old and new run
    proof       how they compare by the metric, or the loss as asked: where that may rightly get
                worse a change was kept on other grounds
    grounds     for every kept run of changes, the figures by which it was kept
    rejected    repairs that were tried and rolled back, with their figures
    passes      steps that treating cost
    """

    experiment: Experiment
    changes: list[str]
    cured: list[str]
    before: dict[str, float]
    after: dict[str, float]
    proof: Proof
    grounds: list[str] = field(default_factory=list)
    rejected: list[str] = field(default_factory=list)
    passes: int = 0
    original: Experiment | None = field(default=None, repr=False)

    def __str__(self) -> str:
        p = self.proof
        score = f"score of validation rows {self.before['score']:.4g} -> {self.after['score']:.4g}"
        lines = [
            f"cured: {', '.join(dict.fromkeys(self.cured)) or 'nothing'}",
            *(f"  changed: {change}" for change in self.changes),
            f"  {score} (gain {p.gain:.3g}, standard error {p.se:.2g})",
            f"  their loss {self.before['loss']:.4g} -> {self.after['loss']:.4g}",
            *(f"  tried and not kept: {tried}" for tried in self.rejected),
        ]
        return "\n".join(lines)

    def __repr__(self) -> str:
        cured = ", ".join(dict.fromkeys(self.cured)) or "nothing"
        score = f"{self.before['score']:.4g} -> {self.after['score']:.4g}"
        return f"<Treatment: cured {cured}; score {score}>"

    def undo(self) -> Experiment:
        """Return the experiment as it was before any change, with the weights it had then."""
        assert self.original is not None
        self.experiment, self.changes, self.cured = self.original, [], []
        return self.original


def treat(diagnosis: Diagnosed, *, apply: tuple[str, ...], budget: float) -> Treatment | None:
    """Repair what `diagnosis` found and return the proof, or None with ``diagnosis.why_not``.

    Exact repairs are made together, first, those after which their rules find nothing any more;
    then one finding after the other, roots in their order, each on top of what was kept so far. Of
    several repairs for one finding those that do best in a short trial are run first. A change
    stays only where its run proved better than the one before.
    """
    exp = diagnosis.experiment
    chosen = candidates(diagnosis, apply)
    if not chosen:
        diagnosis.why_not = _why_not(diagnosis)
        return None
    course = _Course(exp, roots(diagnosis.findings), int(budget * exp.total_steps))
    exp.begun = diagnosis.begun
    try:
        return _treated(diagnosis, chosen, course)
    finally:
        exp.begun, diagnosis.begun = None, []


def _treated(
    diagnosis: Diagnosed, chosen: list[tuple[Finding, list[Repair]]], course: _Course
) -> Treatment | None:
    exp = course.exp
    if diagnosis.trained is None:
        twin = duplicate(exp)
        since = beginning(exp, twin, None)
        diagnosis.trained = twin if since is None else since.exp
        diagnosis.trace = attempt(diagnosis.trained, since=since)
        course.took(diagnosis.trace.step, since)
    old = course.best = diagnosis.trained
    exact = course.curing([(f, rs[0]) for f, rs in chosen if rs[0].proof == "exact"])
    if exact:
        course.take([f for f, _ in exact], [[r for _, r in exact]])
    for finding, repairs in chosen:
        others = [r for r in repairs if r.proof != "exact"]
        if others and not any(finding is cured for cured in course.cured):
            course.take([finding], [[r] for r in others])
    if not course.accepted:
        diagnosis.why_not = "no repair proved better: " + "; ".join(course.rejected)
        return None
    twin = course.best
    return Treatment(
        twin, course.changes, [f.code for f in course.cured], scores(old), scores(twin),
        compare(old, twin), course.grounds, course.rejected, course.spent - course.known, exp,
    )  # fmt: skip


@dataclass
class _Course:
    """A treatment under way: what was kept, what it cost, and the run that is best so far."""

    exp: Experiment
    problems: list[Finding]
    allowed: int
    spent: int = 0
    """Steps of the runs that were made, those they went on from among them."""
    known: int = 0
    """Of these, the steps that were taken before."""
    accepted: list[Repair] = field(default_factory=list)
    changes: list[str] = field(default_factory=list)
    cured: list[Finding] = field(default_factory=list)
    grounds: list[str] = field(default_factory=list)
    rejected: list[str] = field(default_factory=list)
    best: Experiment = field(init=False)
    joined: dict[tuple[int, ...], Callable[[Experiment], object]] = field(default_factory=dict)

    def took(self, steps: int, since: Begun | None) -> None:
        """Count the steps of a run, and those that it went on from."""
        self.spent += steps
        self.known += 0 if since is None else len(since.losses)

    def found(self, finding: Finding) -> int:
        """Return how many problems of a finding's code there were."""
        return sum(f.code == finding.code for f in self.problems)

    def curing(self, exact: list[tuple[Finding, Repair]]) -> list[tuple[Finding, Repair]]:
        """Return the exact repairs that fit, and after which a look finds less than before.

        What was found in the course of a run is looked for again after the changed one.
        """
        found: list[tuple[Finding, Repair]] = []
        for finding, repair in exact:
            twin = duplicate(self.exp)
            try:
                for r in (*(kept for _, kept in found), repair):
                    _made(r, twin)
            except CannotRepair as why:
                self.rejected.append(f"{repair.name}: {why}")
                continue
            if finding.phase == "before" and remaining(finding.code, twin) >= self.found(finding):
                self.rejected.append(f"{repair.name}: {finding.code} is still there")
                continue
            found.append((finding, repair))
        return found

    def take(self, findings: list[Finding], options: list[list[Repair]]) -> None:
        """Run the options, the most promising first; keep the first that proves better.

        What shows only late in a run cannot be tried in short: there every option that the budget
        allows is run, and the best is kept. So it is where the first has hardly learned.
        """
        code = findings[0].code
        if self.spent >= self.allowed and self.accepted:
            self.rejected.append(f"{code}: not tried, the budget is used up")
            return
        late = findings[0].phase == "epoch"
        kept: tuple[Experiment, list[Repair], list[str]] | None = None
        grounds = ""
        for number, repairs in enumerate(options if late else self._promising(options)):
            if number and self.spent >= self.allowed:
                break
            twin = duplicate(self.exp)
            try:
                said = [_made(r, twin) for r in (*self.accepted, *repairs)][len(self.accepted) :]
            except CannotRepair as why:
                self.rejected.append(f"{repairs[0].name}: {why}")
                continue
            wanted, measure = repairs[0].proof, repairs[0].measure
            seen = [f for f in findings if f.phase != "before"] if wanted == "exact" else []
            start = duplicate(twin) if seen else None
            since = None if seen else beginning(self.exp, twin, self._change(repairs))
            twin = twin if since is None else since.exp
            trace = play(twin, quiet=True, brief=not seen, since=since)
            self.took(trace.step, since)
            proof = compare(self.best, twin, measure=measure)
            figures = (
                f"{', '.join(said)}: {'' if measure is None else measure.name + ' '}"
                f"{proof.before:.4g} -> {proof.after:.4g}, "
                f"gain {proof.gain:.3g} with a standard error of {proof.se:.3g}"
            )
            left = [
                f.code for f in seen
                if start is not None
                and remaining(f.code, start, trained=(twin, trace)) >= self.found(f)
            ]  # fmt: skip
            if left:
                figures += f"; {', '.join(left)} is still there"
            beaten = kept is not None and not (
                compare(kept[0], twin, measure=measure).holds("better")
            )
            if left or beaten or not proof.holds(wanted):
                self.rejected.append(figures)
                continue
            kept = twin, repairs, said
            cured = ", ".join(f.code for f in findings)
            grounds = figures + (f"; {cured} is gone" if wanted == "exact" else "")
            if not late and not _hardly(trace):
                break
        if kept is not None:
            self.best, repairs, said = kept
            self.grounds.append(grounds)
            self.accepted += repairs
            self.changes += said
            self.cured += findings

    def _change(self, repairs: list[Repair]) -> Callable[[Experiment], object]:
        """Return what is kept so far and these repairs as one change, the same one every time."""
        every = (*self.accepted, *repairs)
        if len(every) == 1 and every[0].change is not None:
            return every[0].change

        def change(twin: Experiment) -> None:
            for r in every:
                _made(r, twin)

        return self.joined.setdefault(tuple(map(id, every)), change)

    def _promising(self, options: list[list[Repair]]) -> list[list[Repair]]:
        """Return the options, the one first that is best after a short trial."""
        if len(options) == 1:
            return options
        steps = max(LEAST, round(TRIAL * self.exp.total_steps))
        tried: dict[int, Experiment] = {}
        for number, repairs in enumerate(options):
            change = self._change(repairs)
            try:
                if goes_on(self.exp):
                    losses, tried[number] = after_steps(self.exp, steps, change=change)
                    self.spent += len(losses)
                    continue
                change(twin := duplicate(self.exp))
            except CannotRepair as why:
                self.rejected.append(f"{repairs[0].name}: {why}")
                continue
            self.spent += play(twin, steps=steps, quiet=True).step
            tried[number] = twin
        scored = [
            (-score if math.isfinite(score) else math.inf, number)
            for score, number in zip(side_by_side(*tried.values()), tried, strict=True)
        ]
        return [options[number] for _, number in sorted(scored)]


def _hardly(trace: Trace) -> bool:
    """Whether a run has brought the loss hardly down: a short trial may have chosen badly."""
    name = "val" if "val" in trace.start else "train_eval"
    first, last = (rows.get(name, math.nan) for rows in (trace.start, (trace.epochs or [{}])[-1]))
    return bool(last > HARDLY * abs(first))


def candidates(diagnosis: Diagnosed, apply: tuple[str, ...]) -> list[tuple[Finding, list[Repair]]]:
    """Return the problems that may be repaired, with their repairs: roots only, in their order."""
    found = []
    for f in roots(diagnosis.findings):
        allowed = [
            r for r in f.repairs
            if r.change is not None and (r.mode == "auto" or (r.mode == "ask" and f.code in apply))
        ]  # fmt: skip
        if allowed:
            found.append((f, allowed[:OPTIONS]))
    return found


def _why_not(diagnosis: Diagnosed) -> str:
    if not diagnosis.problems:
        return "nothing is wrong that needs a repair"
    said = []
    for f in diagnosis.problems:
        edit = next((r.edit for r in f.repairs if r.edit), f.advice)
        said.append(f"{f.code} needs a person: {edit}")
    return "; ".join(said)


def _made(repair: Repair, twin: Experiment) -> str:
    assert repair.change is not None
    return repair.change(twin)
