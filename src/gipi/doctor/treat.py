"""Repair: change a copy, train it, keep the change only where it proved better."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gipi.doctor.copies import duplicate
from gipi.doctor.experiment import judged, outputs, whole
from gipi.doctor.finding import CannotRepair
from gipi.doctor.play import play

if TYPE_CHECKING:
    from gipi.doctor.diagnose import Diagnosis
    from gipi.doctor.experiment import Experiment
    from gipi.doctor.finding import Finding, Repair

PARTS = 20
"""Parts of the validation rows by whose differences the noise of a comparison is told."""
JUDGED = 10_000
BETTER_SE, WORSE_SE = 2.0, 1.0
TRIAL = 0.15
"""Where there is a choice of repairs each is tried for this share of the run first."""
OPTIONS = 3
"""Repairs of one finding that are tried, at most."""


@dataclass(frozen=True)
class Proof:
    """How a changed run compares with the one before, on validation rows; more is better.

    gain   mean difference of scores over parts of the rows, and its standard error `se`
    """

    before: float
    after: float
    gain: float
    se: float

    def holds(self, wanted: str) -> bool:
        """Whether a repair with that kind of proof is kept."""
        if not math.isfinite(self.after):
            return False
        if wanted == "exact" or not math.isfinite(self.before):
            return True
        if wanted == "not worse":
            return self.gain >= -WORSE_SE * self.se
        return self.gain > BETTER_SE * self.se and self.gain > 0


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


def treat(diagnosis: Diagnosis, *, apply: tuple[str, ...], budget: float) -> Treatment | None:
    """Repair what `diagnosis` found and return the proof, or None with ``diagnosis.why_not``."""
    exp = diagnosis.experiment
    chosen = candidates(diagnosis, apply)
    if not chosen:
        diagnosis.why_not = _why_not(diagnosis)
        return None
    spent, allowed = 0, int(budget * exp.total_steps)
    if diagnosis.trained is None:
        diagnosis.trained = duplicate(exp)
        diagnosis.trace = play(diagnosis.trained)
        spent += diagnosis.trace.step
    old = diagnosis.trained
    best: tuple[Experiment, Proof] | None = None
    changes: list[str] = []
    cured: list[str] = []
    rejected: list[str] = []
    accepted: list[Repair] = []

    exact = [(f, r) for f, rs in chosen for r in rs[:1] if r.proof == "exact"]
    rounds: list[tuple[list[Finding], list[list[Repair]]]] = []
    if exact:
        rounds.append(([f for f, _ in exact], [[r for _, r in exact]]))
    rounds += [([f], [[r] for r in rs]) for f, rs in chosen if rs[0].proof != "exact"]
    for findings, options in rounds:
        if spent >= allowed and best is not None:
            rejected.append(f"{findings[0].code}: not tried, the budget is used up")
            continue
        picked, cost = _promising(exp, accepted, options)
        spent += cost
        for repairs in picked:
            twin = duplicate(exp)
            try:
                said = [_made(r, twin) for r in (*accepted, *repairs)][len(accepted) :]
            except CannotRepair as why:
                rejected.append(f"{repairs[0].name}: {why}")
                continue
            spent += play(twin).step
            proof = compare(best[0] if best is not None else old, twin)
            wanted = "exact" if any(r.proof == "exact" for r in repairs) else repairs[0].proof
            if proof.holds(wanted):
                best, accepted = (twin, proof), [*accepted, *repairs]
                changes += said
                cured += [f.code for f in findings]
                break
            rejected.append(
                f"{', '.join(said)}: {proof.before:.4g} -> {proof.after:.4g}, "
                f"gain {proof.gain:.3g} with a standard error of {proof.se:.3g}"
            )
            if spent >= allowed:
                break
    if best is None:
        diagnosis.why_not = "no repair proved better: " + "; ".join(rejected)
        return None
    twin = best[0]
    return Treatment(
        twin, changes, cured, scores(old), scores(twin), compare(old, twin), rejected, spent, exp
    )


def candidates(diagnosis: Diagnosis, apply: tuple[str, ...]) -> list[tuple[Finding, list[Repair]]]:
    """Return the problems that may be repaired, with their repairs: roots only, in their order."""
    found = []
    for f in diagnosis.findings:
        if f.severity != "problem" or not f.confirmed or f.parents:
            continue
        allowed = [
            r for r in f.repairs
            if r.change is not None and (r.mode == "auto" or (r.mode == "ask" and f.code in apply))
        ]  # fmt: skip
        if allowed:
            found.append((f, allowed[:OPTIONS]))
    return found


def _why_not(diagnosis: Diagnosis) -> str:
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


def _promising(
    exp: Experiment, accepted: list[Repair], options: list[list[Repair]]
) -> tuple[list[list[Repair]], int]:
    """Return the options, the one first that is best after a short trial, and the trial's steps."""
    if len(options) == 1:
        return options, 0
    steps = max(1, round(TRIAL * exp.total_steps))
    spent, scored = 0, []
    for number, repairs in enumerate(options):
        twin = duplicate(exp)
        try:
            for r in (*accepted, *repairs):
                _made(r, twin)
        except CannotRepair:
            continue
        spent += play(twin, steps=steps).step
        score = scores(twin)["score"]
        scored.append((-score if math.isfinite(score) else math.inf, number))
    return [options[number] for _, number in sorted(scored)], spent


def scores(exp: Experiment) -> dict[str, float]:
    """Return score and loss, as asked, of the validation rows (training rows where none are)."""
    X, y = _rows(exp)
    said = outputs(exp, X)
    with torch.no_grad():
        loss = float((exp.judge or exp.loss)(said, y))
    return {"score": judged(exp, said, y), "loss": loss}


def compare(old: Experiment, new: Experiment) -> Proof:
    """Return how two trained experiments compare on the same validation rows.

    Those of the changed one: a repair may have taken rows out that nobody can be judged by.
    """
    X, y = _rows(new)
    said_old, said_new = outputs(old, X), outputs(new, X)
    before, after = judged(old, said_old, y), judged(new, said_new, y)
    parts = _parts(y)
    if parts is None or not isinstance(said_old, Tensor) or not isinstance(said_new, Tensor):
        return Proof(before, after, after - before, 0.0)
    gains = [judged(new, said_new[p], y[p]) - judged(old, said_old[p], y[p]) for p in parts]
    values = torch.tensor([g for g in gains if math.isfinite(g)], dtype=torch.float64)
    if len(values) < 2:
        return Proof(before, after, after - before, 0.0)
    se = float(values.std() / math.sqrt(len(values)))
    return Proof(before, after, float(values.mean()), se)


def _rows(exp: Experiment) -> tuple[Any, Any]:
    found = whole(exp.val if exp.val is not None else exp.train, JUDGED, exp.device)
    assert found is not None
    return found


def _parts(y: Any) -> list[Tensor] | None:
    if not isinstance(y, Tensor) or len(y) < 2 * PARTS:
        return None
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(0))
    return list(order.to(y.device).tensor_split(PARTS))
