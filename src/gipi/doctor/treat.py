"""Repair: change a copy, train it, keep the change only where it proved better."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from gipi.doctor.causes import ranked, roots
from gipi.doctor.copies import duplicate
from gipi.doctor.finding import CannotRepair
from gipi.doctor.gone import anew, guesses, remaining
from gipi.doctor.hushed import hushed
from gipi.doctor.play import attempt, play
from gipi.doctor.proof import Proof, compare, scores, side_by_side
from gipi.doctor.rules import RULES

if TYPE_CHECKING:
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
HIDDEN = 3
"""Looks for what another fault hid, at most: a frozen layer of zeros hides behind one of zeros."""

Option = list[tuple["Finding", "Repair"]]
"""Repairs that are made together, each with its finding."""


class Diagnosed(Protocol):
    """What a treatment takes of a diagnosis; `why_not` is where it says why nothing was done."""

    experiment: Experiment
    findings: list[Finding]
    trained: Experiment | None
    trace: Trace | None
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
    cured       codes of the findings that the changes belong to, what they harmed restored
    partly      code -> what is left, with figures, where a kept change has mended that in part
    remains     problems that are found at the start of a repaired run that learned nothing
    unlearnt    that it learned nothing, in words; empty where it did
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
    partly: dict[str, str] = field(default_factory=dict)
    remains: list[Finding] = field(default_factory=list)
    unlearnt: str = ""

    def __str__(self) -> str:
        lines = [
            f"cured: {', '.join(dict.fromkeys(self.cured)) or 'nothing'}",
            *(f"in part: {code}: {left}" for code, left in self.partly.items()),
            *([f"not learned: {self.unlearnt}"] if self.unlearnt else []),
            *(f"now found: {f.code}: {f.message}\n  do: {f.advice}" for f in self.remains),
            *(f"  changed: {change}" for change in self.changes),
            f"  score of validation rows {self.proof}",
            f"  their loss {self.before['loss']:.4g} -> {self.after['loss']:.4g}",
            *(f"  tried and not kept: {tried}" for tried in self.rejected),
        ]
        return "\n".join(lines)

    def __repr__(self) -> str:
        cured = ", ".join(dict.fromkeys(self.cured)) or "nothing"
        if self.partly:
            cured += f", in part {', '.join(self.partly)}"
        score = f"{self.before['score']:.4g} -> {self.after['score']:.4g}"
        return f"<Treatment: cured {cured}; score {score}>"

    def undo(self) -> Experiment:
        """Return the experiment as it was before any change, with the weights it had then."""
        assert self.original is not None
        self.experiment, self.changes, self.cured, self.partly = self.original, [], [], {}
        return self.original


_UNLEARNT = "the repaired run is not shown to tell rows better than guessing does (z = {:.1f})"


@hushed()
def treat(diagnosis: Diagnosed, *, apply: tuple[str, ...], budget: float) -> Treatment | None:
    """Repair what `diagnosis` found and return the proof, or None with ``diagnosis.why_not``.

    Exact repairs are made together, first, those after which their rules find nothing any more;
    then one finding after the other, roots in their order, each on top of what was kept so far. Of
    several repairs for one finding those that do best in a short trial are run first. A change
    stays only where its run proved better than the one before. Where the run as it was learned
    nothing, what the exact repairs uncover is looked for and mended with them.
    """
    exp = diagnosis.experiment
    chosen = candidates(diagnosis.findings, apply)
    if not chosen:
        diagnosis.why_not = _why_not(diagnosis)
        return None
    course = _Course(exp, roots(diagnosis.findings), int(budget * exp.total_steps))
    if diagnosis.trained is None:
        diagnosis.trained = duplicate(exp)
        diagnosis.trace = attempt(diagnosis.trained)
        course.spent += diagnosis.trace.step
    old = course.best = course.untreated = diagnosis.trained
    blind = guesses(old) is not None
    exact = course.curing([(f, rs[0]) for f, rs in chosen if rs[0].proof == "exact"])
    if exact:
        more = course.hidden(exact, apply) if blind else []
        course.take([[*exact, *more], exact] if more else [exact])
    for finding, repairs in chosen:
        others = [r for r in repairs if r.proof != "exact"]
        if others and not any(finding is mended for mended in course.mended):
            course.take([[(finding, r)] for r in others])
    if not course.accepted:
        diagnosis.why_not = "no repair proved better: " + "; ".join(course.rejected)
        return None
    twin, z = course.best, guesses(course.best) if blind else None
    if z is not None:
        course.unlearnt()
    return Treatment(
        twin, course.changes, [f.code for f in course.mended if f.code not in course.partly],
        scores(old), scores(twin), compare(old, twin), course.grounds, course.rejected,
        course.spent, exp, course.partly, course.remains,
        "" if z is None else _UNLEARNT.format(z),
    )  # fmt: skip


@dataclass
class _Course:
    """A treatment under way: what was kept, what it cost, and the run that is best so far."""

    exp: Experiment
    problems: list[Finding]
    allowed: int
    spent: int = 0
    accepted: list[Repair] = field(default_factory=list)
    changes: list[str] = field(default_factory=list)
    mended: list[Finding] = field(default_factory=list)
    partly: dict[str, str] = field(default_factory=dict)
    remains: list[Finding] = field(default_factory=list)
    grounds: list[str] = field(default_factory=list)
    rejected: list[str] = field(default_factory=list)
    best: Experiment = field(init=False)
    untreated: Experiment = field(init=False)

    def there(self, finding: Finding, found: list[Finding]) -> bool:
        """Whether no fewer problems of a finding's code are found than there were."""
        return len(found) >= max(1, sum(f.code == finding.code for f in self.problems))

    def curing(self, exact: Option) -> Option:
        """Return the exact repairs that fit, and after which a look finds less than before.

        What was found in the course of a run is looked for again after the changed one.
        """
        found: Option = []
        for finding, repair in exact:
            twin = duplicate(self.exp)
            try:
                for r in (*(kept for _, kept in found), repair):
                    _made(r, twin)
            except CannotRepair as why:
                self.rejected.append(f"{repair.name}: {why}")
                continue
            if finding.phase == "before" and self.there(finding, remaining(finding.code, twin)):
                self.rejected.append(f"{repair.name}: {finding.code} is still there")
                continue
            found.append((finding, repair))
        return found

    def hidden(self, exact: Option, apply: tuple[str, ...]) -> Option:
        """Return what is found at a start once exact repairs are made, with its first repairs.

        Nothing can be told of weights that the loss does not depend on yet.
        """
        more: Option = []
        for _ in range(HIDDEN):
            twin = duplicate(self.exp)
            try:
                for _, repair in (*exact, *more):
                    _made(repair, twin)
            except CannotRepair:
                return more[:-1]
            found = self._fresh(twin, [f for f, _ in (*exact, *more)])
            fresh = [(f, rs[0]) for f, rs in candidates(found, apply)]
            if not fresh:
                break
            more += fresh
        return more

    def _fresh(self, start: Experiment, known: list[Finding]) -> list[Finding]:
        """Return the problems at a start that are not known to be of the same places."""
        found, passes = anew(start)
        self.spent += passes
        places = {(f.code, f.where) for f in known}
        return ranked([f for f in found if (f.code, f.where) not in places], RULES)

    def unlearnt(self) -> None:
        """Say of all that was mended that it did not help, and look for what else is wrong."""
        for finding in self.mended:
            self.partly.setdefault(
                finding.code, "it is gone, and the run learns nothing all the same"
            )
        start = duplicate(self.exp)
        for repair in self.accepted:
            _made(repair, start)
        self.remains = roots(self._fresh(start, []))

    def take(self, options: list[Option]) -> None:
        """Run the options, the most promising first; keep the first that proves better.

        What shows only late in a run cannot be tried in short: there every option that the budget
        allows is run, and the best is kept. So it is where the first has hardly learned.
        """
        first = options[0][0][0]
        if self.spent >= self.allowed and self.accepted:
            self.rejected.append(f"{first.code}: not tried, the budget is used up")
            return
        late = first.phase == "epoch"
        kept: tuple[Experiment, Option, list[str], dict[str, str]] | None = None
        grounds = ""
        for number, option in enumerate(options if late else self._promising(options)):
            if number and self.spent >= self.allowed:
                break
            twin, repairs = duplicate(self.exp), [r for _, r in option]
            try:
                said = [_made(r, twin) for r in (*self.accepted, *repairs)][len(self.accepted) :]
            except CannotRepair as why:
                self.rejected.append(f"{repairs[0].name}: {why}")
                continue
            wanted, measure = repairs[0].proof, repairs[0].measure
            start = duplicate(twin)
            trace = play(twin, quiet=True)
            self.spent += trace.step
            proof = compare(self.best, twin, measure=measure)
            figures = f"{', '.join(said)}: {'' if measure is None else measure.name + ' '}{proof}"
            left = [
                f.code for f, r in option if r.proof == "exact" and f.phase != "before"
                and self.there(f, remaining(f.code, start, trained=(twin, trace)))
            ]  # fmt: skip
            if left:
                figures += f"; {', '.join(left)} is still there"
            if left or not proof.holds(wanted):
                self.rejected.append(figures)
                continue
            lacking = self._lacking(option, start, twin, trace)
            if kept is not None and not (
                len(lacking) < len(kept[3])
                or (len(lacking) == len(kept[3])
                    and compare(kept[0], twin, measure=measure).holds("better"))
            ):  # fmt: skip
                self.rejected.append(figures)
                continue
            kept = twin, option, said, lacking
            gone = list(dict.fromkeys(f.code for f, _ in option if f.code not in lacking))
            verb = "is" if len(gone) == 1 else "are"
            sure = f"; {', '.join(gone)} {verb} gone" if wanted == "exact" and gone else ""
            grounds = figures + sure
            grounds += "".join(f"; {code} in part: {what}" for code, what in lacking.items())
            if not late and not _hardly(trace):
                break
        if kept is not None:
            self.best, option, said, lacking = kept
            self.grounds.append(grounds)
            self.accepted += [r for _, r in option]
            self.changes += said
            self.mended += [f for f, _ in option]
            self.partly |= lacking

    def _lacking(
        self, option: Option, start: Experiment, twin: Experiment, trace: Trace
    ) -> dict[str, str]:
        """Return what changes that may be kept leave of their findings: code -> it, with figures.

        That a run is not worse says nothing of what a finding harmed: its rule is asked again.
        """
        found = {}
        for finding, repair in option:
            if finding.restored is not None:
                whole, said = finding.restored(twin, self.untreated)
                if not whole:
                    found[finding.code] = said
            elif repair.proof == "not worse":
                trained = None if finding.phase == "before" else (twin, trace)
                there = remaining(finding.code, start, trained=trained)
                if self.there(finding, there):
                    found[finding.code] = there[0].message
        return found

    def _promising(self, options: list[Option]) -> list[Option]:
        """Return the options, the one first that is best after a short trial."""
        if len(options) == 1:
            return options
        steps = max(LEAST, round(TRIAL * self.exp.total_steps))
        tried: dict[int, Experiment] = {}
        for number, option in enumerate(options):
            twin, repairs = duplicate(self.exp), [r for _, r in option]
            try:
                for r in (*self.accepted, *repairs):
                    _made(r, twin)
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


def candidates(
    findings: list[Finding], apply: tuple[str, ...]
) -> list[tuple[Finding, list[Repair]]]:
    """Return the problems that may be repaired, with their repairs: roots only, in their order."""
    found = []
    for f in roots(findings):
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
