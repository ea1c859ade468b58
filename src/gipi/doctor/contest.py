"""A change against things as they are: both trained a little on the same batches, then compared."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from gipi.doctor.facts import first_rows
from gipi.doctor.probes import after_steps, end_of, loss_on

if TYPE_CHECKING:
    from collections.abc import Callable

    from gipi.doctor.experiment import Experiment, LossFunction
    from gipi.doctor.facts import Facts

LEAST, MOST = 30, 80
"""Steps of a contest; between them a quarter of the run."""
HELD = 512
"""Rows that both are judged on."""
WINS = 0.85
BEGUN = 0.85
"""Share of a loss that means nothing is known yet above which a side has not begun to learn."""
MATTERS = 0.02
"""A difference below this share of a loss that means nothing is known yet is no difference."""
RATE = 3e-3


@dataclass(frozen=True)
class Side:
    """How one side did: mean training loss at the end, and loss of held rows in evaluation mode."""

    end: float
    held: float


@dataclass(frozen=True)
class Contest:
    """Both sides, and the loss of who knows nothing.

    alike  both sides have the same loss function, so that training losses can be compared
    """

    plain: Side
    changed: Side
    first: float
    alike: bool = True

    def wins(self, share: float = WINS) -> bool:
        """Whether the change is clearly better: held rows and, where alike, training rows."""
        held = better(self.changed.held, self.plain.held, self.first, share)
        return held and (not self.alike or better(self.changed.end, self.plain.end, self.first, 1))

    @property
    def lost(self) -> bool:
        """Whether the change is worse on held rows."""
        return not better(self.changed.held, self.plain.held * 1.05, self.first, 1)

    @property
    def begun(self) -> bool:
        """Whether one of the sides has begun to learn: before that, who is ahead says nothing."""
        return min(self.plain.held, self.changed.held) < BEGUN * abs(self.first)

    @property
    def figures(self) -> dict[str, float]:
        """What a finding keeps as evidence."""
        return {"loss_as_is": self.plain.held, "loss_changed": self.changed.held}


def better(new: float, old: float, first: float, share: float) -> bool:
    """Whether one loss is below `share` of another one by more than next to nothing."""
    if not math.isfinite(new):
        return False
    if not math.isfinite(old):
        return True
    return old - new > (1 - share) * abs(old) and old - new > MATTERS * abs(first) * (share < 1)


def contest(
    facts: Facts,
    change: Callable[[Experiment], object],
    *,
    judge: LossFunction | None = None,
    adam: bool = False,
    steps: int | None = None,
) -> Contest | None:
    """Train both sides and return how they did; None where one of them cannot be trained.

    judge  loss by which held rows are judged, where the change is one of the loss
    adam   both take Adam's steps at `RATE`, whatever optimizer the run has
    The side without a change is trained once, whatever changes it is held against.
    """
    count = steps or length(facts.exp)
    key = f"plain, {count} steps, adam {adam}, judge {id(judge) if judge is not None else 0}"
    try:
        if key not in facts.notes:
            facts.notes[key] = side(facts, None, count, adam=adam, judge=judge)
        changed = side(facts, change, count, adam=adam, judge=judge)
    except (RuntimeError, ValueError, IndexError, TypeError):
        return None
    return Contest(facts.notes[key], changed, facts.yardstick, alike=judge is None)


def length(exp: Experiment) -> int:
    """Return the steps of a contest where nobody says how many they are to be."""
    return max(LEAST, min(MOST, exp.total_steps // 4))


def side(
    facts: Facts,
    change: Callable[[Experiment], object] | None,
    steps: int,
    *,
    adam: bool = False,
    judge: LossFunction | None = None,
) -> Side:
    """Train one side and judge it."""

    def with_adam(twin: Experiment) -> None:
        if change is not None:
            change(twin)
        twin.optimizer = torch.optim.Adam(
            [p for p in twin.model.parameters() if p.requires_grad], RATE
        )
        twin.scheduler = None

    made = with_adam if adam else change
    losses, twin = after_steps(facts.exp, steps, change=made, own_step=not adam)
    facts.passes += steps
    if judge is not None:
        twin = copy.copy(twin)  # who goes on with the training goes on with its own loss
        twin.loss = judge
    return Side(end_of(losses), loss_on(twin, *_held(facts)))


def _held(facts: Facts) -> tuple[Any, Any]:
    rows = facts.val or facts.train
    assert rows is not None
    return first_rows(rows[0], HELD), first_rows(rows[1], HELD)
