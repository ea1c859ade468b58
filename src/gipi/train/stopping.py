"""Observers that decide when to stop and when to lower the learning rate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gipi.core.events import Action, Step


@dataclass
class EarlyStopping:
    """Stop when `patience` evaluations in a row brought no better score (Prechelt 1998).

    metric   key of the row, such as "val/accuracy"; greater: whether more is better
    """

    metric: str
    greater: bool
    patience: int
    best: float | None = None
    bad: int = 0

    def __call__(self, step: Step) -> Action | None:
        """Count evaluations without gain; answer "stop" when patience is over."""
        if step.when != "evaluate" or self.metric not in step.row:
            return None
        score = float(step.row[self.metric])
        if self.best is None or (score > self.best if self.greater else score < self.best):
            self.best, self.bad = score, 0
            return None
        self.bad += 1
        if self.bad < self.patience:
            return None
        return Action("stop", f"{self.metric} did not improve in {self.patience} evaluations")

    def state(self) -> dict[str, Any]:
        """Return what must survive a restart."""
        return {"best": self.best, "bad": self.bad}

    def load_state(self, saved: dict[str, Any]) -> None:
        """Restore `state`."""
        self.best, self.bad = saved["best"], saved["bad"]


@dataclass
class Plateau:
    """Multiply the learning rate by `factor` when the validation loss stays on a plateau."""

    factor: float = 0.3
    patience: int = 3
    metric: str = "val/loss"
    best: float | None = None
    bad: int = 0

    def __call__(self, step: Step) -> Action | None:
        """Count evaluations without gain; answer "scale_lr" when patience is over."""
        if step.when != "evaluate" or self.metric not in step.row:
            return None
        loss = float(step.row[self.metric])
        if self.best is None or loss < self.best * (1 - 1e-4):
            self.best, self.bad = loss, 0
            return None
        self.bad += 1
        if self.bad <= self.patience:
            return None
        self.bad = 0
        return Action("scale_lr", f"{self.metric} on a plateau", value=self.factor)

    def state(self) -> dict[str, Any]:
        """Return what must survive a restart."""
        return {"best": self.best, "bad": self.bad}

    def load_state(self, saved: dict[str, Any]) -> None:
        """Restore `state`."""
        self.best, self.bad = saved["best"], saved["bad"]
