"""What the rules ask of an experiment, found once: rows, kinds, outputs, gradients, a tape.

Everything is lazy, and looking leaves the experiment as it was.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gipi.doctor.copies import untouched
from gipi.doctor.experiment import batches, call, take_step, tensors, whole
from gipi.doctor.losses import LossKind, loss_kind
from gipi.doctor.tape import Tape, taped

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gipi.doctor.experiment import Experiment

ROWS = 10_000
"""Rows of a split that are looked at."""
BATCH = 512
"""Rows of a batch that probes use, at most."""


@dataclass
class Moved:
    """What one step of the user's own did.

    loss    its loss
    grads   the gradient that the optimizer saw (a copy), by parameter name; None where there was
            none; fresh: what one backward pass from zero gives for the same rows and weights
    moved   largest absolute change of each parameter
    """

    loss: float
    grads: dict[str, Tensor | None]
    fresh: dict[str, Tensor | None]
    moved: dict[str, float]


@dataclass
class Facts:
    """An experiment and what is known of it.

    passes  forward (and backward) passes that looking has cost
    """

    exp: Experiment
    start: Facts | None = None
    """The facts of the experiment before its first step, where `exp` is in the middle of a run."""
    passes: int = 0
    notes: dict[str, Any] = field(default_factory=dict)
    """What one rule leaves for another."""

    # ------------------------------------------------------------------ data

    @cached_property
    def train(self) -> tuple[Any, Any] | None:
        """Up to `ROWS` training rows as one (X, y), in the order of the data."""
        return whole(self.exp.train, ROWS, self.exp.device)

    @cached_property
    def val(self) -> tuple[Any, Any] | None:
        """Up to `ROWS` validation rows."""
        return whole(self.exp.val, ROWS, self.exp.device)

    @cached_property
    def batch(self) -> tuple[Any, Any]:
        """The first batch of the first epoch, at most `BATCH` rows, without transform."""
        for xb, yb in batches(self.exp, 0):
            return _cut(xb), _cut(yb)
        return None, None

    @cached_property
    def rows(self) -> int:
        """Training rows, or batches times rows of the first where a stream does not tell."""
        pair = tensors(self.exp.train)
        if pair is not None:
            return len(pair[0])
        dataset = getattr(self.exp.train, "dataset", None)
        if dataset is not None and hasattr(dataset, "__len__"):
            return len(dataset)
        return self.exp.steps_per_epoch * len(self.batch[1])

    @property
    def X(self) -> Tensor | None:  # noqa: N802  the field's name
        """Training inputs where they are one tensor."""
        return self.train[0] if self.train and isinstance(self.train[0], Tensor) else None

    @property
    def y(self) -> Tensor | None:
        """Training targets where they are one tensor."""
        return self.train[1] if self.train and isinstance(self.train[1], Tensor) else None

    @cached_property
    def inputs(self) -> str:
        """What a row is: "table" (N, D), "sequence" (N, T, D), "image" (N, C, H, W) of floats.

        "tokens" (N, T) of integers; "other" for anything else.
        """
        xb = self.batch[0]
        if not isinstance(xb, Tensor):
            return "other"
        if not xb.is_floating_point():
            return "tokens" if xb.ndim == 2 and xb.dtype == torch.int64 else "other"
        return {2: "table", 3: "sequence", 4: "image"}.get(xb.ndim, "other")

    @cached_property
    def kind(self) -> str:
        """What is asked: "classes", "binary", "multilabel", "tokens", "numbers", "reconstruct".

        "tokens" is a class at every place of a sequence; "other" where nothing fits.
        """
        if self.exp.task is not None:
            return self.exp.task
        xb, yb = self.batch
        if not isinstance(yb, Tensor):
            return "other"
        if not yb.is_floating_point():
            return "classes" if yb.ndim == 1 else "tokens"
        if isinstance(xb, Tensor) and xb.shape == yb.shape and torch.equal(xb, yb):
            return "reconstruct"
        if self.loss.of_probabilities or self.loss.of_logits:
            return "multilabel" if yb.ndim > 1 and yb.shape[-1] > 1 else "binary"
        return "numbers"

    @cached_property
    def classes(self) -> int:
        """Classes that the training targets hold; 0 where they are no classes."""
        if self.y is None or (self.y.is_floating_point() and self.kind != "binary"):
            return 0
        return len(torch.unique(self.y[self.y >= 0] if self.kind != "binary" else self.y))

    # ------------------------------------------------------------------ model at the start

    @cached_property
    def tape(self) -> Tape:
        """One forward pass of the first batch in training mode, with its calls."""
        self.passes += 1
        with untouched(self.exp):
            self.exp.model.train()
            return taped(self.exp, self.batch[0])

    @property
    def outputs(self) -> Any:
        """What the untrained model says of the first batch, without its graph."""
        said = self.tape.outputs
        return said.detach() if isinstance(said, Tensor) else said

    @cached_property
    def loss(self) -> LossKind:
        """What the loss function is, told by what it computes."""
        said = self.outputs
        return loss_kind(self.exp.loss, said, self.batch[1])

    @cached_property
    def first_loss(self) -> float:
        """The loss of the first batch before any step; NaN where it cannot be computed."""
        with torch.no_grad():
            return float(self.exp.loss(self.outputs, self.batch[1]))

    @cached_property
    def gradients(self) -> Mapping[str, Tensor | None]:
        """The gradient of the first batch's loss, from zero, by parameter name."""
        return self.gradients_of(*self.batch)

    def gradients_of(self, xb: Any, yb: Any) -> dict[str, Tensor | None]:
        """Return the gradient of a batch's loss by parameter name; None where none arrives."""
        self.passes += 1
        exp = self.exp
        with untouched(exp):
            exp.model.train()
            for p in exp.model.parameters():
                p.grad = None
            loss = exp.loss(call(exp.model, xb), yb)
            if loss.requires_grad:
                loss.mean().backward()
            return {n: None if p.grad is None else p.grad.clone()
                    for n, p in exp.model.named_parameters()}  # fmt: skip

    @cached_property
    def moves(self) -> list[Moved]:
        """What two steps on the same first batch did, one after the other."""
        exp, seen = self.exp, []
        xb, yb = self.batch
        with untouched(exp):
            exp.model.train()
            for _ in range(2):
                fresh = self.gradients_of(xb, yb)
                before = {n: p.detach().clone() for n, p in exp.model.named_parameters()}
                grads: dict[str, Tensor | None] = {}

                def keep(*_: Any, grads: dict[str, Tensor | None] = grads) -> None:
                    for n, p in exp.model.named_parameters():
                        grads[n] = None if p.grad is None else p.grad.detach().clone()

                handle = exp.optimizer.register_step_pre_hook(keep)
                try:
                    loss = take_step(exp, xb, yb)
                finally:
                    handle.remove()
                self.passes += 1
                moved = {n: float((p.detach() - before[n]).abs().max()) if p.numel() else 0.0
                         for n, p in exp.model.named_parameters()}  # fmt: skip
                seen.append(Moved(float(loss.detach()), grads, fresh, moved))
        return seen

    def says(self, xb: Any, *, training: bool = False) -> Any:
        """Return the outputs for some inputs; the experiment stays as it was."""
        self.passes += 1
        with untouched(self.exp), torch.no_grad():
            self.exp.model.train(training)
            return call(self.exp.model, xb)


def _cut(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value[:BATCH] if value.ndim else value
    if isinstance(value, (tuple, list)):
        return type(value)(_cut(v) for v in value)
    if isinstance(value, dict):
        return {k: _cut(v) for k, v in value.items()}
    return value
