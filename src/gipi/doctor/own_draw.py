"""Own matrices drawn anew and scaled by what passes through them, as layers of torch are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from gipi.doctor.copies import peeking
from gipi.doctor.own_weights import PRODUCTS, bare, own_weights_of
from gipi.doctor.tape import NAMES, taped

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from gipi.doctor.experiment import Experiment
    from gipi.doctor.own_weights import Own

HEADS = 3
"""Dimensions of a stack of matrices."""


def own_layers(exp: Experiment, X: Any) -> tuple[list[Own], str]:
    """Return the own matrices that may be drawn anew, and the name of the one that makes outputs.

    The name is empty where a layer of torch makes them. Nothing is asked of a net of torch's layers
    alone.
    """
    if not any(p.ndim > 1 and p.requires_grad for _, p in bare(exp.model)):
        return [], ""
    with peeking(exp), torch.no_grad():
        tape = taped(exp, X)
    found = list(own_weights_of(exp.model, tape).values())
    products = tape.of(PRODUCTS)
    head = next((o.name for o in found if any(op is products[-1] for op in o.calls)), "")
    return found, head


def drawn_anew(exp: Experiment, own: Iterable[Own]) -> None:
    """Draw own matrices orthogonal, kernels unit by unit."""
    held = dict(exp.model.named_parameters())
    for o in own:
        p = held[o.name]
        stack = p.ndim == HEADS and o.calls[0].kind == "matmul"
        for matrix in p if stack else (p,):
            nn.init.orthogonal_(matrix)


class Scaled(TorchFunctionMode):
    """Scale every own matrix at its first product so that what it says has a given spread.

    A bias that is added at once is set so that every unit has mean 0. Square ones that are called
    again and again are recurrent: orthogonal is what they are to be.

    head, spread  name of the matrix that makes the outputs, and what these are to spread by
    """

    def __init__(self, model: nn.Module, own: Iterable[Own], *, head: str, spread: float) -> None:
        super().__init__()
        held = dict(model.named_parameters())
        self.todo = {held[o.name].data_ptr(): (held[o.name], spread if o.name == head else 1.0)
                     for o in own if not _recurs(o, held[o.name])}  # fmt: skip
        self.biases = {p.data_ptr(): p for _, p in bare(model) if p.ndim == 1 and p.requires_grad}
        self.said: Tensor | None = None

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Call the function; what it multiplies by is scaled before it is called once more."""
        result = func(*args, **(kwargs or {}))
        kind = NAMES.get(getattr(func, "__name__", ""))
        if not isinstance(result, Tensor) or kind not in (*PRODUCTS, "add"):
            return result
        given = [a for a in args[:2] if isinstance(a, Tensor)]
        with torch.no_grad():
            if kind == "add":
                added = next((self.biases.get(a.data_ptr()) for a in given[1:]), None)
                if added is None or self.said is None or given[0] is not self.said:
                    return result
                if given[1].ndim == 1 and len(added) == self.said.shape[-1]:
                    added.copy_(-self.said.reshape(-1, self.said.shape[-1]).mean(0))
                    return func(*args, **(kwargs or {}))
                return result
            for a in given:
                weight, spread = self.todo.get(a.data_ptr(), (None, 1.0))
                std = _spread(result) if weight is not None else 0.0
                if weight is not None and std > 0:
                    del self.todo[a.data_ptr()]
                    weight.mul_(spread / std)
                    self.said = result = func(*args, **(kwargs or {}))
        return result


def _spread(said: Tensor) -> float:
    """Return the standard deviation around the means of the units; 0 for a single row."""
    rows = said.reshape(-1, said.shape[-1]).float()
    return float((rows - rows.mean(0)).std()) if len(rows) > 1 else 0.0


def _recurs(own: Own, weight: Tensor) -> bool:
    return len(own.calls) > 1 and weight.ndim > 1 and weight.shape[-1] == weight.shape[-2]
