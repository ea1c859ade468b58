"""Repair: change a copy, train it, keep the change only where it proved better."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from gipi.doctor.begun import beginning
from gipi.doctor.causes import roots
from gipi.doctor.copies import duplicate
from gipi.doctor.course import Course, candidates
from gipi.doctor.gone import guesses
from gipi.doctor.hushed import hushed
from gipi.doctor.play import attempt
from gipi.doctor.proof import Proof, compare, scores

if TYPE_CHECKING:
    from gipi.doctor.begun import Begun
    from gipi.doctor.experiment import Experiment
    from gipi.doctor.finding import Finding, Repair
    from gipi.doctor.trace import Trace


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
        self.grounds, self.remains, self.unlearnt = [], [], ""
        return self.original


_UNLEARNT = "the repaired run is not shown to tell rows better than guessing does (z = {:.1f})"


@hushed()
def treat(diagnosis: Diagnosed, *, apply: tuple[str, ...], budget: float) -> Treatment | None:
    """Repair what `diagnosis` found and return the proof, or None with ``diagnosis.why_not``.

    Exact repairs are made together, first, those after which their rules find nothing any more;
    then one finding after the other, roots in their order, each on top of what was kept so far. Of
    several repairs for one finding those that do best in a short trial are run first. A change
    stays only where its run proved better than the one before. Where the run as it was learned
    nothing, what the exact repairs uncover is looked for and mended on top of them; that costs one
    run more, whatever the budget.
    """
    exp = diagnosis.experiment
    chosen = candidates(diagnosis.findings, apply)
    if not chosen:
        diagnosis.why_not = _why_not(diagnosis)
        return None
    course = Course(exp, roots(diagnosis.findings), int(budget * exp.total_steps))
    exp.begun = diagnosis.begun
    try:
        return _treated(diagnosis, chosen, course, apply=apply)
    finally:
        exp.begun, diagnosis.begun = None, []


def _treated(
    diagnosis: Diagnosed,
    chosen: list[tuple[Finding, list[Repair]]],
    course: Course,
    *,
    apply: tuple[str, ...],
) -> Treatment | None:
    exp = course.exp
    if diagnosis.trained is None:
        twin = duplicate(exp)
        since = beginning(exp, twin, None)
        diagnosis.trained = twin if since is None else since.exp
        diagnosis.trace = attempt(diagnosis.trained, since=since)
        course.took(diagnosis.trace.step, since)
    old = course.best = course.untreated = diagnosis.trained
    blind = guesses(old) is not None
    exact = course.curing([(f, rs[0]) for f, rs in chosen if rs[0].proof == "exact"])
    if exact:
        course.uncovered(exact, course.hidden(exact, apply) if blind else [])
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
        course.spent - course.known, exp, course.partly, course.remains,
        "" if z is None else _UNLEARNT.format(z),
    )  # fmt: skip


def _why_not(diagnosis: Diagnosed) -> str:
    if not diagnosis.problems:
        return "nothing was found that needs a repair"
    said = []
    for f in diagnosis.problems:
        edit = next((r.edit for r in f.repairs if r.edit), f.advice)
        said.append(f"{f.code} needs a person: {edit}")
    return "; ".join(said)
