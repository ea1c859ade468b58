"""How far a run must go to be known as the worse one: half of it where it is far behind by then.

The run as it was is there for comparison only. Where at half of its steps it has missed most of
what a changed run had won by then, and still more of what that came to, its second half costs as
much as all the looking did and says nothing new.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from gipi.doctor.play import attempt, play
from gipi.doctor.trace import Trace

if TYPE_CHECKING:
    from gipi.doctor.experiment import Experiment

HALF = 0.5
MISSED = 0.5
"""Share of the changed run's progress that must be missing."""
SURE = 3.0
"""Standard errors of the differences between parts of the rows."""


def as_far_as_needed(exp: Experiment, changed: Trace | None) -> Trace:
    """Train `exp` to its end, or to half of its steps where it is `behind` the changed run by then.

    changed  the trace of that run; None: to the end. A run that ends with the best of its epochs
             is not cut, for its best may have been early

    An error of its own leaves an empty trace, as in `attempt`.
    """
    if changed is None or exp.keep_best:
        return attempt(exp)
    try:
        return play(exp, check=lambda now: behind(now, changed), quiet=True)
    except (RuntimeError, ValueError):
        return Trace(exp.total_steps, exp.steps_per_epoch, broken=0)


def behind(now: Trace, changed: Trace) -> bool:
    """Whether a run about half-way is far behind the changed run, as that was then and at its end.

    (now - changed) > MISSED (begin - changed) by losses of validation rows (training rows where
    there are none), begin the smaller of both first losses, and beyond the noise of the rows.
    """
    if not HALF <= now.done < 1 or not now.epochs or not changed.epochs:
        return False
    share = now.step / max(now.planned, 1)
    then = [row for row in changed.epochs if row["step"] <= share * changed.planned]
    if not then or changed.done < 1:
        return False
    name = "val" if "val" in now.start else "train_eval"
    firsts = [t.start.get(name, math.nan) for t in (now, changed)]
    begin = min((v for v in firsts if math.isfinite(v)), default=math.nan)
    return all(_missed(now.epochs[-1], row, begin, name) for row in (then[-1], changed.epochs[-1]))


def _missed(own: dict[str, Any], other: dict[str, Any], begin: float, name: str) -> bool:
    """Whether most of the other's progress is missing, and surely so."""
    mine, better = float(own.get(name, math.nan)), float(other.get(name, math.nan))
    if not math.isfinite(better) or not begin > better:
        return False
    if not math.isfinite(mine):
        return True
    if not mine - better > MISSED * (begin - better):
        return False
    pairs = zip(own.get("val_parts", ()), other.get("val_parts", ()), strict=False)
    gains = [float(a - b) for a, b in pairs]
    if len(gains) < 3 or not all(math.isfinite(g) for g in gains):
        return False
    mean = sum(gains) / len(gains)
    spread = math.sqrt(sum((g - mean) ** 2 for g in gains) / (len(gains) - 1))
    return mean > SURE * spread / math.sqrt(len(gains))
