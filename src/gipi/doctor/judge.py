"""How an experiment does: loss and score of the same rows of its splits, each time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, overload

import torch
from torch import Tensor

from gipi.doctor.copies import left_alone
from gipi.doctor.experiment import judged, outputs, whole

if TYPE_CHECKING:
    from gipi.doctor.experiment import Experiment

JUDGED, JUDGED_TRAIN = 512, 256
"""Rows of validation and of training that are judged after an epoch."""
HELD = 2**17
"""Numbers of an answer that is held until somebody asks for the losses of its parts."""
PARTS = 10
"""Parts of the validation rows whose losses are noted: their differences tell the noise."""


class Judge:
    """Judges an experiment by the same rows of its splits each time, in evaluation mode.

    A model may draw or count in evaluation too: a run is the same however often it is judged. An
    evaluation of the user's own is part of the run, and may change what it will.
    """

    def __init__(self, exp: Experiment) -> None:
        self.exp = exp
        self.train = whole(exp.train, JUDGED_TRAIN, exp.device)
        self.val = whole(exp.val, JUDGED, exp.device)

    def __call__(self, known: Any = None) -> dict[str, Any]:
        """Return loss and score of both splits, and the losses of parts of validation.

        known  what the model says of the training rows in evaluation mode, as it is now
        """
        with left_alone(self.exp) if self.exp.evaluate is None else nullcontext():
            return self._row(known if self.exp.evaluate is None else None)

    def _row(self, known: Any) -> dict[str, Any]:
        row: dict[str, Any] = {}
        exp = self.exp
        loss = exp.judge or exp.loss
        for name, split in (("train", self.train), ("val", self.val)):
            if split is None:
                continue
            X, y = split
            said = outputs(exp, X) if known is None or name == "val" else known
            with torch.no_grad():
                row["train_eval" if name == "train" else "val"] = found = float(loss(said, y))
                own = exp.metric is not None
                row[f"{name}_score"] = judged(exp, said, y) if own else -found
                if name == "val":
                    row["val_parts"] = Parts(loss, said, y)
                    row["val_right"] = right(said, y)
        return row


def right(said: Any, y: Any) -> float:
    """Return the share of right classes, or NaN where outputs and targets are no classes."""
    told = answers(said, y)
    return math.nan if told is None else float((told == y)[y >= 0].float().mean())


def answers(said: Any, y: Any) -> Tensor | None:
    """Return the class that is said for every target, 0 or 1 for yes-or-no answers.

    None where outputs and targets are no classes. One edge holds for all rows that are given.
    """
    if not isinstance(said, Tensor) or not isinstance(y, Tensor) or not y.numel():
        return None
    if y.is_floating_point():
        if said.shape != y.shape or not bool(((y == 0) | (y == 1)).all()):
            return None
        edge = 0.5 if bool(((said >= 0) & (said <= 1)).all()) else 0.0
        return said > edge
    if said.ndim != y.ndim + 1:
        return None
    return said.argmax(-1 if said.ndim == 2 or said.shape[:-1] == y.shape else 1)


class Parts(Sequence[float]):
    """The losses of parts of the rows, none where rows cannot be taken apart.

    Few are ever read: they are asked for then. Large answers are not held until then.
    """

    def __init__(self, loss: Any, said: Any, y: Any) -> None:
        self._ask: tuple[Any, Any, Any] | None = (loss, said, y)
        self._found: list[float] = []
        if not isinstance(said, Tensor) or said.numel() > HELD:
            self._all()

    def _all(self) -> list[float]:
        if self._ask is not None:
            with torch.no_grad():
                self._found, self._ask = _parts(*self._ask), None
        return self._found

    @overload
    def __getitem__(self, at: int) -> float: ...

    @overload
    def __getitem__(self, at: slice) -> list[float]: ...

    def __getitem__(self, at: int | slice) -> float | list[float]:
        """Return the loss of one part."""
        return self._all()[at]

    def __len__(self) -> int:
        """Return the number of parts."""
        return len(self._all())

    def __eq__(self, other: object) -> bool:
        """Whether the losses are the same."""
        return isinstance(other, (Parts, list)) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        """Return the losses as a list is shown."""
        return repr(self._all())


def _parts(loss: Any, said: Any, y: Any) -> list[float]:
    """Return the loss of parts of the rows; nothing where rows cannot be taken apart."""
    if not isinstance(said, Tensor) or not isinstance(y, Tensor) or len(said) != len(y):
        return []
    if len(y) < 2 * PARTS:
        return []
    try:
        return [float(loss(said[i::PARTS], y[i::PARTS])) for i in range(PARTS)]
    except (RuntimeError, ValueError, IndexError, TypeError):
        return []
