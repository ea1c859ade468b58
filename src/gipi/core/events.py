"""What the loop says and what it may be told: Step, Action and Observer.

An observer is called after each logged row, after each evaluation and at the end; it answers with
an action from a closed set, or None. Where several observers answer at once the actions are taken
in the order of `PRECEDENCE`, and every one is written to the rows.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

When = Literal["start", "row", "evaluate", "save", "end"]
ActionKind = Literal[
    "stop", "save", "evaluate", "scale_lr", "change", "rollback", "replace", "note"
]
PRECEDENCE: tuple[str, ...] = (
    "rollback", "replace", "change", "scale_lr", "evaluate", "save", "note", "stop",
)  # fmt: skip


@dataclass(frozen=True)
class Action:
    """One thing the loop is asked to do, and why."""

    kind: ActionKind
    reason: str
    value: Any = None
    field: str = ""


@dataclass(frozen=True)
class Step:
    """What an observer sees: where the run stands and the row that was just written.

    model and state are the live objects; an observer that changes them breaks the laws of the
    loop and must answer with an `Action` instead.
    """

    when: When
    step: int
    epoch: int
    progress: float
    row: Mapping[str, Any]
    model: Any = None
    state: Any = None
    total_steps: int | None = None
    steps_per_epoch: int = 0
    history: Sequence[Mapping[str, Any]] = field(default_factory=list)


class Observer(Protocol):
    """Anything that watches a run. `state`/`load_state` only where it remembers something."""

    def __call__(self, step: Step) -> Action | None:
        """See one event; answer with an action or None."""
        ...
