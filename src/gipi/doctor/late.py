"""Questions that a short training before the run left open, answered by the end of the run.

A net may need most of a run to begin to learn. So long as neither side of a contest has begun, who
of them is ahead says nothing; the run that is trained anyway is then one side of a longer one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gipi.doctor.causes import SYMPTOM
from gipi.doctor.contest import BEGUN
from gipi.doctor.copies import duplicate
from gipi.doctor.finding import CannotRepair, Finding
from gipi.doctor.look import LEAST_PASSES
from gipi.doctor.play import play
from gipi.doctor.probes import FLOOR
from gipi.doctor.proof import compare

if TYPE_CHECKING:
    from collections.abc import Callable

    from gipi.doctor.experiment import Experiment
    from gipi.doctor.facts import Facts
    from gipi.doctor.trace import Trace

KEY = "questions left open"
HOW = frozenset((SYMPTOM, "plateau"))
"""Problems that say how a run went, and not why."""
LEARNED = 0.1
"""Share of the loss of who knows nothing below which a run has learned so well that no question is
left."""
MATTERS = 0.1
"""Share of all progress that a run must lack at its end, where its rule asks for no more."""
OF_NOTHING = 0.05
"""Share of the loss of who knows nothing that a change must win: a share of what was learned is
next to nothing where next to nothing was."""
REST = 1 / 3
"""Share of the best loss of a run by which another one is better all the same, however much both
have learned, where what was suspected is never natural."""
MOST, SHARE = 1000, 0.4
"""Steps of the longer training: as many as the run took, up to so many or this share of them."""


@dataclass(frozen=True)
class Question:
    """What was suspected before the first step, and the change that would cure it.

    share  of all progress that the run must lack at its end
    lacks  share of the loss of who knows nothing below which the run leaves nothing to be won
    rest   share of the run's best loss that is enough as well
    late   whether nothing was tried before the run, so that only few passes may be spent now
    """

    finding: Finding
    change: Callable[[Experiment], object]
    share: float = MATTERS
    lacks: float = LEARNED
    rest: float = math.inf
    late: bool = False


def leave_open(facts: Facts, question: Question) -> None:
    """Keep a question until the end of the run."""
    (facts.start or facts).notes.setdefault(KEY, []).append(question)


def settled(start: Facts, trained: Experiment, trace: Trace, found: list[Finding]) -> list[Finding]:
    """Return the findings with the first open question answered, if there is one.

    Where a problem was found that explains the run it is not asked. The changed run has no more
    steps than the run itself had, and is held against the best that the run ever was: who learns in
    fewer what the other did not in more is the better one, and who only had no time to learn by
    heart is not. It must have begun to learn, since chance tells two apart that know nothing. A
    hint is taken back where as many steps do not help, or fewer do not by which the run had begun
    to learn, or where it has learned nearly all. All that looking costs stays within one run, a
    short training excepted.
    """
    open_: list[Question] = start.notes.get(KEY, [])
    sure = any(f.confirmed and f.severity == "problem" and f.code not in HOW for f in found)
    if not open_ or sure or trace.broken is not None or trace.done < 1:
        return found
    asked = open_[0]
    own = _Ends.of(trace, math.nan if start.exp.judge is not None else start.yardstick)
    if own is None:
        return found
    rest = [f for f in found if f.code != asked.finding.code or f.phase != "before"]
    if own.best <= asked.lacks * own.nothing:
        return rest
    if own.risen:
        return found
    left = max(LEAST_PASSES, trace.planned - start.passes)
    if asked.late:
        left = int(max(LEAST_PASSES, trace.planned) - start.passes)
    steps = min(trace.step, max(MOST, int(SHARE * trace.step)), left)
    if steps < SHARE * trace.step:
        return found
    twin = duplicate(start.exp)
    try:
        asked.change(twin)
        rows = play(twin, steps=steps, quiet=True, brief=True).epochs
        proof = compare(trained, twin)
    except (CannotRepair, RuntimeError, ValueError, IndexError, TypeError):
        return found
    start.passes += steps
    other = rows[-1].get("val", math.nan) if rows else math.nan
    progress = max(own.nothing - other, FLOOR * own.nothing)
    better = math.isfinite(other) and own.best > other and proof.holds("better")
    begun = other < BEGUN * own.nothing
    share = min(asked.share * progress, asked.rest * own.best)
    wins = own.best - other > max(share, OF_NOTHING * own.nothing)
    if better and begun and wins:
        evidence = {"loss_at_the_end": own.end, "loss_changed_at_the_end": other, "steps": steps}
        lowest = f", {own.best:.3g} at its lowest" if own.best < own.end else ""
        told = asked.finding.but(
            confirmed=True,
            severity="problem",
            evidence={**asked.finding.evidence, **evidence},
            message=f"{asked.finding.message}; after {trace.step} steps validation loss is "
            f"{own.end:.3g}{lowest}, and {other:.3g} after {steps} steps without that",
        )
        return [told, *rest]
    then = min(v for step, v in own.rows if step <= steps) if own.rows[0][0] <= steps else math.nan
    idle = own.learned(then) and then - other <= asked.share * progress
    return rest if idle or (steps == trace.step and not better) else found


@dataclass(frozen=True)
class _Ends:
    """What validation loss was in the course of a run.

    nothing  where nothing is known; rows: (step, loss) in order, those that are finite
    """

    nothing: float
    rows: list[tuple[int, float]]

    @classmethod
    def of(cls, trace: Trace, yardstick: float) -> _Ends | None:
        """Return it as the trace has it, or None where it has not."""
        begin = trace.start.get("val", math.nan)
        known = (abs(v) for v in (begin, yardstick) if math.isfinite(v) and v)
        nothing = min(known, default=math.nan)  # a start may be far worse than a guess
        rows = [(row["step"], row.get("val", math.nan)) for row in trace.epochs]
        if not rows or not math.isfinite(nothing) or not math.isfinite(rows[-1][1]):
            return None
        return cls(nothing, [row for row in rows if math.isfinite(row[1])])

    @property
    def end(self) -> float:
        """The last one."""
        return self.rows[-1][1]

    @property
    def best(self) -> float:
        """The lowest one."""
        return min(loss for _, loss in self.rows)

    def learned(self, loss: float) -> bool:
        """Whether that loss is by more than matters below that of who knows nothing."""
        return self.nothing - loss > MATTERS * self.nothing

    @property
    def risen(self) -> bool:
        """Whether it had learned, and has lost more of that than matters by learning by heart.

        Who never learned may get worse than a guess and still lack what the change would give.
        """
        lost = self.end - self.best
        return self.learned(self.best) and lost > MATTERS * (self.nothing - self.best)
