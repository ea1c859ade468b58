"""What a loop compared: which part of the outputs, by which ways, with which loss of torch."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, TypeAlias

import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Iterator

Path: TypeAlias = tuple[Any, ...]
"""The way to a part of what a model said: places, keys, names."""


class Gap:
    """Stands where a tensor stood; a class, since it is one and the same in every copy."""


@dataclass(frozen=True)
class Call:
    """A function that was called with one tensor, to be called again with another."""

    func: Callable[..., Any]
    args: tuple[Any, ...]
    named: dict[str, Any]

    @classmethod
    def of(
        cls, func: Callable[..., Any], args: Any, kwargs: dict[str, Any], tensor: Tensor
    ) -> Call:
        """Return the call with a gap where the tensor stood."""
        return cls(func, tuple(Gap if a is tensor else a for a in args),
                   {k: Gap if v is tensor else v for k, v in kwargs.items()})  # fmt: skip

    def __call__(self, tensor: Tensor) -> Any:
        """Call it with the tensor in the gap."""
        named = {k: tensor if v is Gap else v for k, v in self.named.items()}
        return self.func(*(tensor if a is Gap else a for a in self.args), **named)


@dataclass(frozen=True)
class Made:
    """A tensor that was made of a part of the outputs, and how; None where by more than itself."""

    tensor: Tensor
    path: Path
    way: tuple[Call, ...] | None


@dataclass(frozen=True)
class Compared:
    """A loss as a loop called it, as a function of outputs and target."""

    func: Callable[..., Any]
    rest: dict[str, Any]
    way: tuple[Call, ...]
    turned: bool = False
    """Whether the target stood first."""

    def __call__(self, said: Any, y: Tensor) -> Tensor:
        """Return the mean loss."""
        for call in self.way:
            said = call(said)
        pair = (y, said) if self.turned else (said, y)
        loss: Tensor = self.func(*pair, **self.rest)
        return loss.mean() if loss.ndim else loss


def carried(said: Any, _: Any) -> Tensor:
    """Return the loss that a model's outputs carry by that name, as those of `transformers` do."""
    loss: Tensor = said.loss
    return loss


def returned(said: Any, _: Any) -> Tensor:
    """Return the one number that a model says; whether less or more is better is not known."""
    loss: Tensor = said.loss
    return loss


def tensors_of(said: Any, path: Path = (), *, depth: int = 3) -> Iterator[tuple[Path, Tensor]]:
    """Yield the tensors of floats of what a model said, each with the way to it."""
    if isinstance(said, Tensor):
        if said.is_floating_point() or said.is_complex():
            yield path, said
        return
    if not depth:
        return
    if isinstance(said, (tuple, list)):
        parts: Any = enumerate(said)
    elif isinstance(said, Mapping):
        parts = said.items()
    else:
        parts = getattr(said, "__dict__", {}).items()
    for key, part in parts:
        yield from tensors_of(part, (*path, key), depth=depth - 1)


def part_of(said: Any, path: Path) -> Any:
    """Return the part of what a model said to which the way leads."""
    for key in path:
        said = said[key] if isinstance(said, (tuple, list, Mapping)) else getattr(said, key)
    return said


def compared(
    func: Callable[..., Any], args: Any, kwargs: dict[str, Any], made: Made
) -> Compared | None:
    """Return the loss of `torch.nn.functional` that was called so; None for any other function."""
    if made.way is None or func not in _losses():
        return None
    rest = dict(inspect.signature(func).bind(*args, **kwargs).arguments)
    first, second = rest.pop("input"), rest.pop("target")
    if not (first is made.tensor or second is made.tensor) or any(
        isinstance(v, Tensor) and v.shape[:1] == first.shape[:1] for v in rest.values()
    ):
        return None  # weights of these rows are no part of a loss of others
    return Compared(func, rest, made.way, turned=second is made.tensor)


@cache
def _losses() -> frozenset[Any]:
    """Return the functions of `torch.nn.functional` that compare an input with a target."""
    known = [getattr(F, n) for n in dir(F) if n.endswith(("_loss", "_entropy", "_div", "_logits"))]
    return frozenset(f for f in known if _asked(f)[:2] == ["input", "target"])


def _asked(func: Any) -> list[str]:
    try:
        return list(inspect.signature(func).parameters)
    except (TypeError, ValueError):  # of C
        return []
