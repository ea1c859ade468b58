"""Optimizers whose step asks for the loss itself, as L-BFGS does, several times a step."""

from __future__ import annotations

import inspect
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch
    from torch import Tensor


class Stepping(Protocol):
    """What takes steps by an optimizer; in a way of its own where it has a step."""

    step: Any
    optimizer: torch.optim.Optimizer


def can_step(exp: Stepping) -> bool:
    """Whether a step is one gradient of one batch, or a way of the experiment's own.

    Of an optimizer that asks for the loss itself it is many: what one gradient does says nothing.
    """
    return exp.step is not None or not asks_for_loss(exp.optimizer)


def asks_for_loss(optimizer: torch.optim.Optimizer) -> bool:
    """Whether ``step`` cannot be called without a function that returns the loss."""
    kind: Any = type(optimizer)
    return _asks(kind)


@lru_cache
def _asks(kind: Any) -> bool:
    try:
        closure = inspect.signature(kind.step).parameters.get("closure")
    except (TypeError, ValueError):
        return False
    return closure is not None and closure.default is closure.empty


def minimised(optimizer: Any, loss: Callable[[], Tensor]) -> Tensor:
    """Let such an optimizer take one step; return the loss before it (Liu and Nocedal 1989)."""
    seen: list[Tensor] = []

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = loss()
        value.backward()
        seen.append(value.detach())
        return value

    optimizer.step(closure)
    return seen[0]


def with_closure(
    args: tuple[Any, ...], kwargs: dict[str, Any], then: Callable[[], None]
) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
    """Return the arguments of a step whose closure calls ``then`` after its first loss.

    None where the step was given no closure: its gradient is there already.
    """
    own, *given = args  # the optimizer itself, as a hook of its steps is told
    closure = given[0] if given else kwargs.get("closure")
    if closure is None:
        return None
    told = False

    def first(*a: Any, **k: Any) -> Any:
        nonlocal told
        loss = closure(*a, **k)
        if not told:
            told = True
            then()
        return loss

    return ((own, first, *given[1:]), kwargs) if given else (args, {**kwargs, "closure": first})
