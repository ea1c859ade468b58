"""Questions that a short training before the run left open, answered by the end of the run.

A net may need most of a run to begin to learn. So long as neither side of a contest has begun, who
of them is ahead says nothing; the run that is trained anyway is then one side of a longer one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gipi.doctor.causes import SYMPTOM
from gipi.doctor.copies import duplicate
from gipi.doctor.experiment import whole
from gipi.doctor.finding import CannotRepair, Finding
from gipi.doctor.play import play
from gipi.doctor.probes import FLOOR, loss_on
from gipi.doctor.proof import compare

if TYPE_CHECKING:
    from collections.abc import Callable

    from gipi.doctor.experiment import Experiment
    from gipi.doctor.facts import Facts
    from gipi.doctor.trace import Trace

KEY = "questions left open"
LEARNED = 0.1
"""Share of the loss of who knows nothing below which a run has learned so well that no question is
left."""
MATTERS = 0.1
"""Share of all progress that a run must lack at its end, where its rule asks for no more."""
MOST, SHARE = 1000, 0.4
"""Steps of the longer training: as many as the run took, up to so many or this share of them."""
ROWS = 1024


@dataclass(frozen=True)
class Question:
    """What was suspected before the first step, and the change that would cure it.

    share  of all progress that the run must lack at its end
    """

    finding: Finding
    change: Callable[[Experiment], object]
    share: float = MATTERS


def leave_open(
    facts: Facts,
    finding: Finding,
    change: Callable[[Experiment], object],
    *,
    share: float = MATTERS,
) -> None:
    """Keep a question until the end of the run."""
    (facts.start or facts).notes.setdefault(KEY, []).append(Question(finding, change, share))


def settled(start: Facts, trained: Experiment, trace: Trace, found: list[Finding]) -> list[Finding]:
    """Return the findings with the first open question answered, if there is one.

    Where a problem was found that explains the run it is not asked. The changed run has no more
    steps than the run itself had: who learns in fewer what the other did not in more is the better
    one. Where as many steps do not help, or the run has learned nearly all, a hint is taken back.
    """
    open_: list[Question] = start.notes.get(KEY, [])
    sure = any(f.confirmed and f.severity == "problem" and f.code != SYMPTOM for f in found)
    rows = whole(start.exp.val, ROWS, start.exp.device)
    if not open_ or sure or rows is None or trace.broken is not None or trace.done < 1:
        return found
    asked = open_[0]
    begin, own = loss_on(start.exp, *rows), loss_on(trained, *rows)
    known = (abs(v) for v in (begin, start.yardstick) if math.isfinite(v) and v)
    nothing = min(known, default=math.nan)  # a start may be far worse than a guess
    start.passes += 2
    if not math.isfinite(nothing) or not math.isfinite(own):
        return found
    rest = [f for f in found if f.code != asked.finding.code or f.phase != "before"]
    if own <= LEARNED * nothing:
        return rest
    steps = min(trace.step, max(MOST, int(SHARE * trace.step)))
    twin = duplicate(start.exp)
    try:
        asked.change(twin)
        play(twin, steps=steps, quiet=True)
        other = loss_on(twin, *rows)
        proof = compare(trained, twin)
    except (CannotRepair, RuntimeError, ValueError, IndexError, TypeError):
        return found
    start.passes += steps
    progress = max(nothing - other, FLOOR * nothing)
    better = math.isfinite(other) and own > other and proof.holds("better")
    if better and own - other > asked.share * progress:
        evidence = {"loss_at_the_end": own, "loss_changed_at_the_end": other, "steps": steps}
        told = asked.finding.but(
            confirmed=True,
            severity="problem",
            evidence={**asked.finding.evidence, **evidence},
            message=f"{asked.finding.message}; after {trace.step} steps validation loss is "
            f"{own:.3g}, and {other:.3g} after {steps} steps without that",
        )
        return [told, *rest]
    return rest if steps == trace.step and not better else found
