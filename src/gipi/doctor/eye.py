"""What a step did to weights, as the optimizer saw it, and how units of layers stand."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor

from gipi.doctor.copies import generators, left_alone
from gipi.doctor.experiment import call
from gipi.doctor.gradients import norms_of, total_of
from gipi.doctor.tape import recording
from gipi.doctor.trace import LayerLook, Look, UnitLook
from gipi.doctor.units import looks_at

if TYPE_CHECKING:
    from gipi.doctor.experiment import Experiment

UNIT_ROWS = 256
"""Rows that a look at the units takes."""


class Eye:
    """Sees gradients and weights where an optimizer steps; looks at layers when it is open.

    norm  the gradient's norm at the last step, as the optimizer saw it; 0 where the eye is shut
    said  what the model said of all rows of X at the last look; None where it looked at no or not
          all rows, or where the model draws
    """

    def __init__(self, exp: Experiment, *, shut: bool = False) -> None:
        self.exp, self.shut, self.open, self.norm = exp, shut, False, 0.0
        self.names = {id(p): n for n, p in exp.model.named_parameters()}
        self.said: Any = None
        self._handles: list[Any] = []
        self._before: dict[str, Tensor] = {}
        self._grads: dict[str, float] = {}

    def __enter__(self) -> Self:
        if not self.shut:
            self._handles = [self.exp.optimizer.register_step_pre_hook(self._about_to_step)]
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()

    def _about_to_step(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        groups = optimizer.param_groups
        grads = [grad for g in groups for p in g["params"] if (grad := p.grad) is not None]
        if not grads:
            self.norm = 0.0
            return
        norms = norms_of(grads)
        self.norm = total_of(norms)  # sync
        if self.open:
            self._before = {n: p.detach().clone() for n, p in self.exp.model.named_parameters()}
            params = [p for g in groups for p in g["params"] if p.grad is not None]
            self._grads = {
                self.names.get(id(p), "?"): float(n) / math.sqrt(p.numel())
                for p, n in zip(params, norms, strict=True)
            }

    def look(self, step: int, X: Any = None) -> Look:
        """Return a look at the step that was just taken, and at the units on rows of X."""
        before, self._before = self._before, {}
        seen = [
            (name, p.detach(), before[name])
            for name, p in self.exp.model.named_parameters() if name in before and p.numel()
        ]  # fmt: skip
        weights = _norms([old for _, _, old in seen])
        updates = _norms([now - old for _, now, old in seen])
        params = {
            name: LayerLook(self._grads.get(name, 0.0), weight / size, update / size, p.ndim)
            for (name, p, _), weight, update in zip(seen, weights, updates, strict=True)
            if (size := math.sqrt(p.numel()))
        }
        self.said = None
        if X is None:
            return Look(step, params, {})
        units, said = _heard(self.exp, X, rows=UNIT_ROWS)
        self.said = said if not isinstance(X, Tensor) or len(X) <= UNIT_ROWS else None
        return Look(step, params, units)


def _norms(tensors: list[Tensor]) -> list[float]:
    """Return the norm of each of them, however small its kind of numbers is."""
    return [float(n) for n in norms_of([t.float() for t in tensors])] if tensors else []


def units_of(exp: Experiment, X: Any, *, rows: int = UNIT_ROWS) -> dict[str, UnitLook]:
    """Return a look at the activations of `exp` on up to `rows` rows of X."""
    return _heard(exp, X, rows=rows)[0]


def _heard(exp: Experiment, X: Any, *, rows: int) -> tuple[dict[str, UnitLook], Any]:
    """Return the look, and the outputs; None in their place where the model drew for them."""
    model = exp.model
    training = model.training
    model.eval()
    try:
        with left_alone(exp, seed=True), torch.no_grad(), recording(model) as tape:
            before = generators()
            tape.outputs = call(model, X[:rows] if isinstance(X, Tensor) else X)
            after = generators()
    finally:
        model.train(training)
    still = torch.equal(before[0], after[0]) and before[1] == after[1] and before[2] is after[2]
    return looks_at(tape), tape.outputs if still else None
