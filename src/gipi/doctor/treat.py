"""Repair: change a copy, train it, keep the change only where it proved better."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from gipi.doctor.attempt import attempt
from gipi.doctor.causes import roots
from gipi.doctor.copies import duplicate
from gipi.doctor.experiment import judged, outputs, whole
from gipi.doctor.finding import CannotRepair
from gipi.doctor.play import play, right

if TYPE_CHECKING:
    from gipi.doctor.experiment import Experiment
    from gipi.doctor.finding import Finding, Repair
    from gipi.doctor.trace import Trace

PARTS = 20
"""Parts of the validation rows by whose differences the noise of a comparison is told."""
JUDGED = 10_000
BETTER_SE, WORSE_SE, WON_SE = 2.0, 1.0, 3.0
TRIAL = 0.15
"""Where there is a choice of repairs each is tried for this share of the run first."""
LEAST = 20
"""Steps of such a trial, at least."""
OPTIONS = 3
"""Repairs of one finding that are tried, at most."""
HARDLY = 0.6
"""Share of the first loss above which a repaired run has hardly learned."""
UNKNOWN = 0.05
"""Where the noise cannot be told, this share of the score stands for its standard error."""


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


@dataclass(frozen=True)
class Proof:
    """How a changed run compares with the one before, on validation rows; more is better.

    gain   mean difference of scores over parts of the rows, and its standard error `se`
    won    standard errors by which more than half of the parts gained: a run that failed has losses
           so wild that their mean says little
    """

    before: float
    after: float
    gain: float
    se: float
    won: float = 0.0

    def holds(self, wanted: str) -> bool:
        """Whether a repair with that kind of proof is kept."""
        if not math.isfinite(self.after):
            return False
        if wanted == "exact" or not math.isfinite(self.before):
            return True
        if wanted == "not worse":
            return self.gain >= -WORSE_SE * self.se
        return self.gain > 0 and (self.gain > BETTER_SE * self.se or self.won >= WON_SE)


@dataclass
class Treatment:
    """A repaired and trained experiment, and the proof.

    experiment  the repaired copy, trained; the one that was diagnosed is untouched
    changes     what was changed, in words, in order
    cured       codes of the findings that the changes belong to
    before, after  score (more is better) and loss of the validation rows of the old and new run
    rejected    repairs that were tried and rolled back, with their figures
    passes      steps that treating cost
    """

    experiment: Experiment
    changes: list[str]
    cured: list[str]
    before: dict[str, float]
    after: dict[str, float]
    proof: Proof
    rejected: list[str] = field(default_factory=list)
    passes: int = 0
    original: Experiment | None = field(default=None, repr=False)

    def undo(self) -> Experiment:
        """Return the experiment as it was before any change, with the weights it had then."""
        assert self.original is not None
        self.experiment, self.changes, self.cured = self.original, [], []
        return self.original


def treat(diagnosis: Diagnosed, *, apply: tuple[str, ...], budget: float) -> Treatment | None:
    """Repair what `diagnosis` found and return the proof, or None with ``diagnosis.why_not``.

    Exact repairs are made together, first; then one finding after the other, roots in their order,
    each on top of what was kept so far. Of several repairs for one finding those that do best in a
    short trial are run first. A change stays only where its run proved better than the one before.
    """
    exp = diagnosis.experiment
    chosen = candidates(diagnosis, apply)
    if not chosen:
        diagnosis.why_not = _why_not(diagnosis)
        return None
    course = _Course(exp, int(budget * exp.total_steps))
    if diagnosis.trained is None:
        diagnosis.trained = duplicate(exp)
        diagnosis.trace = attempt(diagnosis.trained)
        course.spent += diagnosis.trace.step
    old = course.best = diagnosis.trained
    exact = [(f, r) for f, rs in chosen for r in rs[:1] if r.proof == "exact"]
    if exact:
        course.take([f for f, _ in exact], [[r for _, r in exact]])
    for finding, repairs in chosen:
        if repairs[0].proof != "exact":
            course.take([finding], [[r] for r in repairs])
    if not course.accepted:
        diagnosis.why_not = "no repair proved better: " + "; ".join(course.rejected)
        return None
    twin = course.best
    return Treatment(
        twin, course.changes, course.cured, scores(old), scores(twin), compare(old, twin),
        course.rejected, course.spent, exp,
    )  # fmt: skip


@dataclass
class _Course:
    """A treatment under way: what was kept, what it cost, and the run that is best so far."""

    exp: Experiment
    allowed: int
    spent: int = 0
    accepted: list[Repair] = field(default_factory=list)
    changes: list[str] = field(default_factory=list)
    cured: list[str] = field(default_factory=list)
    rejected: list[str] = field(default_factory=list)
    best: Experiment = field(init=False)

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
        for number, repairs in enumerate(options if late else self._promising(options)):
            if number and self.spent >= self.allowed:
                break
            twin = duplicate(self.exp)
            try:
                said = [_made(r, twin) for r in (*self.accepted, *repairs)][len(self.accepted) :]
            except CannotRepair as why:
                self.rejected.append(f"{repairs[0].name}: {why}")
                continue
            trace = play(twin, quiet=True)
            self.spent += trace.step
            proof = compare(self.best, twin)
            wanted = "exact" if any(r.proof == "exact" for r in repairs) else repairs[0].proof
            figures = (
                f"{', '.join(said)}: {proof.before:.4g} -> {proof.after:.4g}, "
                f"gain {proof.gain:.3g} with a standard error of {proof.se:.3g}"
            )
            beaten = kept is not None and not compare(kept[0], twin).holds("better")
            if beaten or not proof.holds(wanted):
                self.rejected.append(figures)
                continue
            kept = twin, repairs, said
            if not late and not _hardly(trace):
                break
        if kept is not None:
            self.best, repairs, said = kept
            self.accepted += repairs
            self.changes += said
            self.cured += [f.code for f in findings]

    def _promising(self, options: list[list[Repair]]) -> list[list[Repair]]:
        """Return the options, the one first that is best after a short trial."""
        if len(options) == 1:
            return options
        steps = max(LEAST, round(TRIAL * self.exp.total_steps))
        tried: list[int] = []
        said: list[tuple[Experiment, Any, Any]] = []
        for number, repairs in enumerate(options):
            twin = duplicate(self.exp)
            try:
                for r in (*self.accepted, *repairs):
                    _made(r, twin)
            except CannotRepair as why:
                self.rejected.append(f"{repairs[0].name}: {why}")
                continue
            self.spent += play(twin, steps=steps, quiet=True).step
            X, y = _rows(twin)
            tried.append(number)
            said.append((twin, outputs(twin, X), y))
        scored = [
            (-score if math.isfinite(score) else math.inf, number)
            for score, number in zip(_scores(*said), tried, strict=True)
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


def scores(exp: Experiment) -> dict[str, float]:
    """Return score and loss, as asked, of the validation rows (training rows where none are)."""
    X, y = _rows(exp)
    said = outputs(exp, X)
    with torch.no_grad():
        loss = float((exp.judge or exp.loss)(said, y))
    return {"score": _scores((exp, said, y))[0], "loss": loss}


def _scores(*said: tuple[Experiment, Any, Any]) -> list[float]:
    """Return comparable scores of (experiment, outputs, targets).

    Where a loss is not finite though the outputs are, as the logarithm of a zero, all are judged by
    their share of right classes; outputs that are not finite have no score.
    """
    found = [judged(exp, o, y) for exp, o, y in said]
    sound = [isinstance(o, Tensor) and bool(o.isfinite().all()) for _, o, _ in said]
    if not any(s and not math.isfinite(v) for s, v in zip(sound, found, strict=True)):
        return found
    shares = [right(o, y) if s else math.nan for s, (_, o, y) in zip(sound, said, strict=True)]
    return shares if any(math.isfinite(v) for v in shares) else found


def compare(old: Experiment, new: Experiment) -> Proof:
    """Return how two trained experiments compare on the same validation rows.

    Those of the changed one: a repair may have taken rows out that nobody can be judged by. Both
    answer the same rows, so that what is hard about a row is hard for both: the noise is that of
    the differences between parts of the rows, not of the scores.
    """
    X, y = _rows(new)
    said_old, said_new = outputs(old, X), outputs(new, X)
    before, after = _scores((old, said_old, y), (new, said_new, y))
    unknown = Proof(before, after, after - before, UNKNOWN * abs(before))
    parts = _parts(y)
    if parts is None or not isinstance(said_old, Tensor) or not isinstance(said_new, Tensor):
        return unknown
    try:
        gains = [judged(new, said_new[p], y[p]) - judged(old, said_old[p], y[p]) for p in parts]
    except (RuntimeError, ValueError, IndexError, TypeError):
        return unknown
    values = torch.tensor([g for g in gains if math.isfinite(g)], dtype=torch.float64)
    if len(values) < 3:
        return unknown
    n = len(values)
    se = float(values.std() / math.sqrt(n))
    won = (int((values > 0).sum()) - n / 2) / math.sqrt(n / 4)
    return Proof(before, after, float(values.mean()), se, won)


def _rows(exp: Experiment) -> tuple[Any, Any]:
    found = whole(exp.val if exp.val is not None else exp.train, JUDGED, exp.device)
    assert found is not None
    return found


def _parts(y: Any) -> list[Tensor] | None:
    """Return the numbers of rows of up to `PARTS` parts of two rows or more."""
    if not isinstance(y, Tensor) or len(y) < 8:
        return None
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(0))
    return list(order.to(y.device).tensor_split(min(PARTS, len(y) // 2)))
