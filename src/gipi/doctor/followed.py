"""What a loop was heard to compare, as an experiment, if the loss that was given takes it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from gipi.doctor.compared import carried, part_of, returned
from gipi.doctor.copies import duplicate, peeking
from gipi.doctor.experiment import Experiment, call
from gipi.doctor.hushed import hushed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gipi.doctor.compared import Path
    from gipi.doctor.ear import Heard
    from gipi.doctor.experiment import LossFunction


MIXES = frozenset((
    "add", "add_", "__add__", "__radd__", "__iadd__", "mul", "mul_", "__mul__", "__rmul__",
    "__imul__", "div", "true_divide", "__truediv__", "where", "masked_fill", "linear", "matmul",
    "__matmul__",
))  # fmt: skip
"""Functions that make something of outputs and another tensor, and compare nothing."""
EQUAL = 1e-3
"""Difference of two values of one loss, as a share, that rounding may make."""


class Flat(nn.Module):
    """A loss of outputs (N, T, C) and targets (N, T) that a loop calls with (N T, C) and (N T)."""

    def __init__(self, loss: LossFunction) -> None:
        super().__init__()
        self.loss = loss

    def forward(self, said: Any, y: Tensor) -> Tensor:
        """Return the loss of all places of all rows, as if each were a row."""
        if not isinstance(said, Tensor) or said.ndim < 3:
            return self.loss(said, y)
        return self.loss(said.flatten(0, -2), y.reshape(-1, *y.shape[said.ndim - 1 :]))


@dataclass(frozen=True)
class Part:
    """A hook after a model: what the loop compared of its outputs, or the loss among them."""

    path: Path
    loss: bool = False

    def __call__(self, _: nn.Module, __: Any, said: Any) -> Any:
        """Return the part."""
        part = part_of(said, self.path)
        return SimpleNamespace(loss=part.reshape(())) if self.loss else part


def as_heard(plain: Experiment, heard: list[Heard]) -> tuple[Experiment, list[Heard]]:
    """Return an experiment that compares what the loop did, and what was heard that it takes.

    Of outputs of several parts only the one that was compared is said by its model; a model that
    makes the loss itself says that.
    """
    start, told = duplicate(plain), [h for h in heard if h.whole]
    first = told[0] if told else None
    if first is None or any(map(is_lazy, start.model.parameters())):
        return start, []
    if first.carried is not None:
        start.loss = carried if first.carried[-1:] == ("loss",) else returned
        start.model.register_forward_hook(Part(first.carried, loss=True))
    elif first.part:
        start.model.register_forward_hook(Part(first.part))
    if start.loss is carried and first.compared is not None:
        start.loss = first.compared
    alike = [h for h in told if (h.part, h.carried) == (first.part, first.carried)]
    return start, followed(start, alike)


def followed(start: Experiment, heard: list[Heard]) -> list[Heard]:
    """Return what was heard that the given loss takes; nothing where it does not take the first.

    Not what another net made of the outputs, as the one that a generator is trained against.
    Targets get the shape in which the given loss says of them what the loop's own did.
    """
    own = [h for h in heard if not h.further and h.flat == heard[0].flat]
    if not own:
        return []
    if start.loss in (carried, returned):
        return own
    # A loop may drop the one column of outputs, or a loss add one to classes, before it compares.
    target, shape = own[0].target, own[0].shape
    assert target is not None
    forms = [_flat]
    if target.shape[1:] == (1,):
        forms = [_column, _flat]
    elif shape[1:] == (1,):
        forms = [_flat, _column]
    values = [_value(start, replace(own[0], target=form(target))) for form in forms]
    known = math.nan if own[0].loss is None else float(own[0].loss)
    exact = [v is not None and math.isclose(v, known, rel_tol=EQUAL) for v in values]
    if not any(exact) and own[0].by in MIXES:
        return []  # what was added to outputs is no target: a state that a step is added to
    fit = exact if any(exact) else [v is not None for v in values]
    if not any(fit):
        return []
    for h in own:
        h.target = None if h.target is None else forms[fit.index(True)](h.target)
    return own


def _flat(target: Tensor) -> Tensor:
    return target.squeeze(1) if target.shape[1:] == (1,) else target


def _column(target: Tensor) -> Tensor:
    return target.unsqueeze(1) if target.ndim == 1 else target


def why_not(
    start: Experiment, heard: list[Heard], steps: int, backwards: int, *, called: bool
) -> str:
    """Return why nothing can be said of a loop of which so much was heard."""
    if any(map(is_lazy, start.model.parameters())):
        return "some layers had no weights yet: call the model once before the watch begins"
    if any(h.whole for h in heard):
        return "this loss is not followed: what the loop compared, the given one cannot"
    if steps or backwards:
        way = "" if called else "; a model is heard where it is called, not by model.forward(...)"
        return (f"of {steps} steps none was seen whole: what the model was given, and what a loss "
                f"compared its outputs with{way}")  # fmt: skip
    return "no step was seen"


def _value(start: Experiment, heard: Heard) -> float | None:
    """Return the given loss of what was heard, at the weights of the start; None if it fails."""
    exp = experiment_of(start, [heard], None, {})
    X, y = exp.train[0]
    try:
        with hushed(), peeking(exp), torch.enable_grad():
            exp.model.train(heard.training)
            if heard.rng is not None:
                torch.set_rng_state(heard.rng)  # dropout drops what it dropped then
            value = exp.loss(call(exp.model, X), y)
    except Exception:  # noqa: BLE001  what it cannot take is not followed
        return None
    return float(value.detach()) if isinstance(value, Tensor) and value.numel() == 1 else None


def experiment_of(
    start: Experiment, heard: list[Heard], val: Any, declared: Mapping[str, Any]
) -> Experiment:
    """Return an experiment over the batches that were heard, from the weights of the start."""
    pairs = [((h.inputs[0] if len(h.inputs) == 1 else h.inputs) if h.inputs else h.named, h.target)
             for h in heard]  # fmt: skip
    loss = Flat(start.loss) if heard[0].flat and not isinstance(start.loss, Flat) else start.loss
    return Experiment(
        start.model, train=pairs, val=val, loss=loss, optimizer=start.optimizer,
        epochs=1, shuffle=False, declared={"time_ordered": True, "duplicates": True, **declared},
    )  # fmt: skip
