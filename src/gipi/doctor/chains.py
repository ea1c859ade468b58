"""Transforms that are chains of steps: their parts, and the same without one of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import nn

if TYPE_CHECKING:
    from collections.abc import Callable

    from gipi.doctor.experiment import Experiment


class Chain:
    """Functions over a batch, one after the other."""

    def __init__(self, steps: list[Callable[[Any], Any]]) -> None:
        self.transforms = steps

    def __call__(self, xb: Any) -> Any:
        """Return what the steps make of a batch."""
        for step in self.transforms:
            xb = step(xb)
        return xb


def steps_of(transform: Any) -> list[Any] | None:
    """Return the steps of a chain as torch or torchvision make one; None for any other function.

    Not of what chooses among them, as `RandomChoice`, `RandomApply` and `RandomOrder` do.
    """
    if any(part.__name__.startswith("Random") for part in type(transform).__mro__):
        return None
    if isinstance(transform, nn.Sequential):
        return list(transform)
    found = getattr(transform, "transforms", None)
    return list(found) if isinstance(found, (list, tuple)) else None


def name_of(step: Any) -> str:
    """Return what people call a step."""
    return str(getattr(step, "__name__", type(step).__name__))


def without_step(number: int) -> Callable[[Experiment], str]:
    """Return the change that takes one step out of the chain that an experiment has."""

    def change(exp: Experiment) -> str:
        steps = steps_of(exp.transform) or []
        exp.transform = Chain([s for i, s in enumerate(steps) if i != number])
        return f"took step {number + 1} ({name_of(steps[number])}) out of the transform"

    return change
