"""One form of evidence: a case of answers beside the truth, and what becomes known of it.

Each module that knows a form of answers (`drawn`, `written`, `spans`, `entities`, `passages`,
`forecasts`, `rowwise`) ends with its `Evidence`; `evidence` holds the tuple of them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np

    from gipi.core.schema import Schema
    from gipi.data import Source
    from gipi.data.stream import Columns
    from gipi.tasks import Task
    from gipi.train.evaluate import Evaluation

WORST = 12  # rows that a report shows
LETTERS = 600  # of a text that is shown


class Rows(Protocol):
    """The part of a data set that shows rows to people."""

    def row_names(self, ids: np.ndarray) -> Sequence[str]:
        """Return a name for each row."""
        ...

    def raw(self, ids: np.ndarray) -> Sequence[dict[str, Any]]:
        """Return the original values of each row."""
        ...

    def picture(self, row: int) -> np.ndarray:
        """Return the picture of a row, (H, W, C) uint8."""
        ...

    def placement(self, ids: np.ndarray) -> np.ndarray:
        """Return (n, 3, 3): pixels of the original pictures -> those that the model sees."""
        ...

    @property
    def columns(self) -> Columns:
        """The prepared columns."""
        ...


@dataclass(frozen=True)
class Case:
    """All there is to judge by.

    summary  what is said of every task: "rows", "metrics", "primary"
    rows     shows rows to people; None: no row is shown
    samples  False keeps every single data row out: counts and curves only
    asked    the windows of questions, whose answers are scored as texts
    texts    what a language model has written
    """

    judged: Evaluation
    task: Task
    schema: Schema
    summary: dict[str, Any]
    rows: Rows | None = None
    samples: bool = True
    asked: Source | None = None
    texts: Sequence[str] = ()

    @property
    def complete(self) -> bool:
        """Whether answers and truth were kept."""
        return self.judged.outputs is not None and self.judged.target is not None

    @property
    def shown(self) -> Rows | None:
        """What shows rows to people, None where no row may be shown."""
        return self.rows if self.samples else None


@dataclass(frozen=True)
class Known:
    """What is known of a case: entries of the summary, arrays of arrays.npz, other files."""

    facts: dict[str, Any] = field(default_factory=dict)
    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True)
class Evidence:
    """One form of evidence: which cases it is for, and what it finds in them."""

    name: str
    fits: Callable[[Case], bool]
    judge: Callable[[Case], Known]


def shortened(value: Any) -> str:
    """Return a text for people: one line, its middle left out where it is long."""
    line = " ".join(str("" if value is None else value).split())
    if len(line) <= LETTERS:
        return line
    return f"{line[: LETTERS * 2 // 3]} […] {line[-LETTERS // 3 :]}"
