"""An observer watches a run and answers with an action: here, stop once the loss is low enough."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import gipi
from gipi.core.events import Action

if TYPE_CHECKING:
    from gipi.core.events import Step

QUICK = "--quick" in sys.argv


@dataclass
class Enough:
    """Stop when the training loss of a row falls below `limit`; remember the losses seen."""

    limit: float
    seen: list[float] = field(default_factory=list)

    def __call__(self, step: Step) -> Action | None:
        """See one event; answer with an action or None."""
        loss = step.row.get("train/loss")
        if loss is None:
            return None
        self.seen.append(loss)
        if loss >= self.limit:
            return None
        return Action("stop", f"loss {loss:.3f} is below {self.limit}")


def main() -> None:
    """Train with it, and read in the rows why the run ended."""
    watch = Enough(limit=1.0 if QUICK else 0.5)
    run = gipi.train("digits", epochs=30, seed=0, observers=[watch])
    print(f"{len(watch.seen)} rows seen, the lowest loss {min(watch.seen):.3f}")
    for row in run.rows:
        if "event" in row:
            print(row["event"], "-", row.get("reason", ""))


if __name__ == "__main__":
    main()
