"""What the rules ask of an experiment, found once: rows, kinds, outputs, gradients, a tape.

Everything is lazy, and looking leaves the experiment as it was.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from fnmatch import fnmatch
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gipi.doctor.closures import can_step
from gipi.doctor.copies import peeking, untouched
from gipi.doctor.experiment import batches, call, take_step, tensors, whole
from gipi.doctor.gradients import whole_of
from gipi.doctor.hushed import hushed
from gipi.doctor.losses import LossKind, loss_kind
from gipi.doctor.tape import Tape, heard, taped

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import nn

    from gipi.doctor.experiment import Experiment
    from gipi.doctor.trace import Loop

ROWS = 10_000
"""Rows of a split that are looked at."""
BATCH = 512
"""Rows of a batch that probes use, at most."""
STEPS = 3
"""Steps that are looked at one by one."""
FEW = 16
"""Rows for questions about structure."""


@dataclass
class Moved:
    """What one step of the user's own did.

    loss    its loss
    grads   the gradient that the optimizer saw (a copy), by parameter name; None where there was
            none; fresh: what one backward pass from zero gives for the same rows and weights
    moved   largest absolute change of each parameter
    up      cosine of the change of all parameters with the fresh gradient; 0 where there is none
    """

    loss: float
    grads: dict[str, Tensor | None]
    fresh: dict[str, Tensor | None]
    moved: dict[str, float]
    up: float = 0.0


@dataclass
class Facts:
    """An experiment and what is known of it.

    passes   forward (and backward) passes that looking has cost
    allowed  as many as it may cost
    """

    exp: Experiment
    start: Facts | None = None
    """The facts of the experiment before its first step, where `exp` is in the middle of a run."""
    passes: int = 0
    allowed: float = math.inf
    notes: dict[str, Any] = field(default_factory=dict)
    """What one rule leaves for another."""
    loop: Loop | None = None
    """What somebody's own loop did, where one was watched."""

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
        if (
            isinstance(xb, Tensor)
            and xb.shape == yb.shape
            and torch.allclose(xb.to(yb.dtype), yb, rtol=0, atol=0, equal_nan=True)
        ):
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
        """One forward pass of the first batch in training mode, with its calls.

        In evaluation mode where training mode fails, as a batch norm does on a single row.
        """
        self.passes += 1
        with peeking(self.exp):
            self.exp.model.train()
            try:
                return taped(self.exp, self.batch[0])
            except (RuntimeError, ValueError):
                self.exp.model.eval()
                return taped(self.exp, self.batch[0])

    @property
    def outputs(self) -> Any:
        """What the untrained model says of the first batch, without its graph."""
        said = self.tape.outputs
        return said.detach() if isinstance(said, Tensor) else said

    @cached_property
    def loss(self) -> LossKind:
        """What the loss function is, told by what it computes."""
        said, y = self.outputs, self.batch[1]
        with peeking(self.exp):  # a loss may count its calls, or draw
            return loss_kind(self.exp.loss, said, y)

    @cached_property
    def loss_tape(self) -> Tape | None:
        """What the loss function calls for the first batch; None where it fails."""
        with hushed(), peeking(self.exp), torch.no_grad():
            try:
                return heard(self.exp.loss, self.outputs, self.batch[1])
            except (RuntimeError, ValueError, IndexError, TypeError):
                return None

    @cached_property
    def first_loss(self) -> float:
        """The loss of the first batch before any step; NaN where it cannot be computed."""
        with hushed(), peeking(self.exp), torch.no_grad():
            return float(self.exp.loss(self.outputs, self.batch[1]))

    @cached_property
    def blind_loss(self) -> float:
        """The loss of outputs that are all zero, a guess without looking; NaN where it fails."""
        said = self.outputs
        if not isinstance(said, Tensor):
            return math.nan
        with hushed(), torch.no_grad():
            try:
                return float(self.exp.loss(torch.zeros_like(said), self.batch[1]))
            except (RuntimeError, ValueError, IndexError, TypeError):
                return math.nan

    @property
    def yardstick(self) -> float:
        """The size of a loss that means nothing is known yet: the smaller of first and blind."""
        known = [abs(v) for v in (self.first_loss, self.blind_loss) if math.isfinite(v) and v]
        return min(known, default=0.0)

    @cached_property
    def gradients(self) -> Mapping[str, Tensor | None]:
        """The gradient of the first batch's loss, from zero, by parameter name."""
        return self.gradients_of(*self.batch)

    def gradients_of(
        self, xb: Any, yb: Any, *, transformed: bool = False
    ) -> dict[str, Tensor | None]:
        """Return the gradient of a batch's loss by parameter name; None where none arrives.

        transformed  through the experiment's augmentation, as a step that comes next would draw it
        """
        self.passes += 1
        exp = self.exp
        with peeking(exp):
            exp.model.train()
            if transformed and exp.transform is not None:
                xb = exp.transform(xb)
            loss = exp.loss(call(exp.model, xb), yb)
            if loss.requires_grad:
                loss.mean().backward()
            return {n: None if p.grad is None else whole_of(p.grad)
                    for n, p in exp.model.named_parameters()}  # fmt: skip

    @cached_property
    def moves(self) -> list[Moved]:
        """What three steps on the first three batches did, in turn, from no gradient.

        Empty where a step fails: a net without a trainable weight cannot take one.
        """
        exp, seen = self.exp, list[Moved]()
        if not can_step(exp):
            return []
        with untouched(exp):
            exp.model.train()
            for p in exp.model.parameters():
                p.grad = None
            try:
                for xb, yb in self.first_batches:
                    seen.append(self._moved(xb, yb))
            except (RuntimeError, ValueError):
                return []
        return seen

    @cached_property
    def first_batches(self) -> list[tuple[Any, Any]]:
        """The first three batches of the first epoch, repeated where there are fewer."""
        found = [(_cut(xb), _cut(yb)) for xb, yb in islice(batches(self.exp, 0), STEPS)]
        return (found * STEPS)[:STEPS]

    def _moved(self, xb: Any, yb: Any) -> Moved:
        exp = self.exp
        fresh = self.gradients_of(xb, yb, transformed=True)
        before = {n: p.detach().clone() for n, p in exp.model.named_parameters()}
        grads: dict[str, Tensor | None] = {}

        def keep(*_: Any) -> None:
            for n, p in exp.model.named_parameters():
                grads[n] = None if p.grad is None else whole_of(p.grad.detach()).clone()

        handle = exp.optimizer.register_step_pre_hook(keep)
        try:
            loss = take_step(exp, xb, yb)
        finally:
            handle.remove()
        self.passes += 1
        moved = {n: float((p.detach() - before[n]).abs().max()) if p.numel() else 0.0
                 for n, p in exp.model.named_parameters()}  # fmt: skip
        return Moved(float(loss.detach()) if isinstance(loss, Tensor) else float(loss),
                     grads, fresh, moved, self._up(before, fresh))  # fmt: skip

    def _up(self, before: dict[str, Tensor], fresh: dict[str, Tensor | None]) -> float:
        """Return the cosine of what weights moved by with a gradient."""
        found = []
        for n, p in self.exp.model.named_parameters():
            g = fresh[n]
            if g is not None and not g.is_complex() and p.is_floating_point():
                by = (p.detach() - before[n]).flatten()
                flat = g.flatten().to(by)
                found.append(torch.stack([by @ flat, by @ by, flat @ flat]).double())
        if not found:
            return 0.0
        along, way, steep = torch.stack(found).sum(0).tolist()
        size = math.sqrt(way * steep)
        return along / size if math.isfinite(size) and size > 0 else 0.0

    # ------------------------------------------------------------------ structure

    @cached_property
    def few(self) -> Any:
        """Up to `FEW` inputs of the first batch, for questions about structure."""
        return first_rows(self.batch[0], FEW)

    def shown(self, xb: Any) -> Any:
        """Return the outputs in evaluation mode, all-zero weights shaken so that nothing hides.

        A residual branch or a head that begins at zero would hide what stands before it.
        """
        self.passes += 1
        exp = self.exp
        zero = [
            p for p in exp.model.parameters()
            if p.is_floating_point() and p.numel() and not bool(p.any())
        ]  # fmt: skip
        with peeking(exp, weights=zero), torch.no_grad():
            generator = torch.Generator().manual_seed(0)
            for p in zero:
                p.add_(0.1 * torch.randn(p.shape, generator=generator).to(p))
            exp.model.eval()
            return call(exp.model, xb)

    @cached_property
    def base(self) -> Tensor | None:
        """`shown` of the few; None where it is no tensor, not finite or not the same twice."""
        try:
            first, again = self.shown(self.few), self.shown(self.few)
        except (RuntimeError, ValueError, IndexError):
            return None
        if not isinstance(first, Tensor) or not first.is_floating_point() or not first.ndim:
            return None
        return first if bool(first.isfinite().all()) and torch.equal(first, again) else None

    def differ(self, one: Tensor, other: Tensor) -> float:
        """Return the largest difference of outputs, in standard deviations of `base`."""
        assert self.base is not None
        spread = float(self.base.double().std()) if self.base.numel() > 1 else 0.0
        return float((one - other).abs().max()) / (spread + 1e-12) if one.numel() else 0.0

    # ------------------------------------------------------------------ parameters

    @cached_property
    def owners(self) -> dict[str, nn.Module]:
        """The module that holds each parameter, by the parameter's name."""
        return {f"{prefix}.{name}" if prefix else name: module
                for prefix, module in self.exp.model.named_modules()
                for name in module._parameters}  # noqa: SLF001  # fmt: skip

    def meant_to_stay(self, name: str) -> bool:
        """Whether the user declared that a parameter is frozen."""
        declared = self.exp.declared.get("frozen") or ()
        if declared is True:
            return True
        patterns = [declared] if isinstance(declared, str) else list(declared)
        return any(fnmatch(name, p) or name.startswith(f"{p}.") for p in patterns)

    @cached_property
    def in_optimizer(self) -> set[int]:
        """Ids of the tensors that the optimizer updates."""
        return {id(p) for g in self.exp.optimizer.param_groups for p in g["params"]}

    def still(self, name: str) -> bool:
        """Whether none of the first steps moved a parameter."""
        return bool(self.moves) and all(m.moved.get(name, 0.0) == 0 for m in self.moves)

    def says(self, xb: Any, *, training: bool = False) -> Any:
        """Return the outputs for some inputs; the experiment stays as it was."""
        self.passes += 1
        with peeking(self.exp), torch.no_grad():
            self.exp.model.train(training)
            return call(self.exp.model, xb)


def _cut(value: Any) -> Any:
    return first_rows(value, BATCH)


def first_rows(value: Any, rows: int) -> Any:
    """Return the first rows of tensors within tuples and mappings."""
    if isinstance(value, Tensor):
        return value[:rows] if value.ndim else value
    if isinstance(value, (tuple, list)):
        return type(value)(first_rows(v, rows) for v in value)
    if isinstance(value, dict):
        return {k: first_rows(v, rows) for k, v in value.items()}
    return value
