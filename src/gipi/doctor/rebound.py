"""Functions that reach what was copied by a closure, a global name or an attribute of their own.

A loss with a penalty of its own speaks of ``model`` and not of its arguments: given to a copy of an
experiment as it is, it would pull at the weights of the old one.
"""

from __future__ import annotations

import copy
import dis
from functools import lru_cache, partial
from types import CellType, CodeType, FunctionType, MethodType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Mapping

MANY = 256
"""Items of a list or mapping beyond which it is data, and not searched."""
COPIED = (nn.Module, Tensor, torch.optim.Optimizer)


def rebound(function: Any, memo: Mapping[int, Any]) -> Any:
    """Return a function that means the copy where it meant what was copied; else itself.

    memo  what `copy.deepcopy` noted: id -> copy
    """
    try:
        return _Swap(memo)(function)
    except (AttributeError, TypeError, ValueError):
        return function  # what was made in a way of its own is left as it is


class _Swap:
    """Puts copies in the place of what was copied; what holds none of it stays the same object."""

    def __init__(self, memo: Mapping[int, Any]) -> None:
        self.memo, self.done = memo, dict[int, Any]()

    def __call__(self, value: Any) -> Any:
        if isinstance(value, COPIED):
            return self.memo.get(id(value), value)
        if id(value) not in self.done:
            self.done[id(value)] = value  # what reaches itself
            self.done[id(value)] = self._other(value)
        return self.done[id(value)]

    def _other(self, value: Any) -> Any:
        if isinstance(value, FunctionType):
            return self._of_function(value)
        if isinstance(value, MethodType):
            held = self(value.__self__)
            return value if held is value.__self__ else MethodType(value.__func__, held)
        if isinstance(value, partial):
            parts = (value.func, value.args, value.keywords)
            func, args, named = new = tuple(map(self, parts))
            same = all(a is b for a, b in zip(new, parts, strict=True))
            return value if same else partial(func, *args, **named)
        if type(value) in (list, tuple, dict) and len(value) > MANY:
            return value
        if type(value) in (list, tuple):
            found = [self(v) for v in value]
            same = all(a is b for a, b in zip(found, value, strict=True))
            return value if same else type(value)(found)
        if type(value) is dict:
            swapped = {k: self(v) for k, v in value.items()}
            return value if all(swapped[k] is v for k, v in value.items()) else swapped
        if callable(value) and not isinstance(value, type) and hasattr(value, "__dict__"):
            changed = {k: self(v) for k, v in vars(value).items()}
            changed = {k: v for k, v in changed.items() if v is not vars(value)[k]}
            twin = copy.copy(value) if changed else value
            for key, new_one in changed.items():
                object.__setattr__(twin, key, new_one)
            return twin
        return value

    def _of_function(self, value: FunctionType) -> FunctionType:
        cells, known = value.__closure__ or (), value.__globals__
        names, writes = _globals_of(value.__code__)
        closure = tuple(map(self._of_cell, cells))
        other: dict[str, Any] = {}
        for name in () if writes else names:
            found = known.get(name)
            theirs = getattr(found, "__globals__", known) is not known
            new = found if theirs else self(found)  # somebody else's knows nothing of this run
            if new is not found:
                other[name] = new
        defaults = self(value.__defaults__)
        same = all(a is b for a, b in zip(closure, cells, strict=True))
        if same and not other and defaults is value.__defaults__:
            return value
        space = {**known, **other} if other else known
        twin = FunctionType(value.__code__, space, value.__name__, defaults, closure)
        twin.__kwdefaults__ = value.__kwdefaults__
        return twin

    def _of_cell(self, cell: CellType) -> CellType:
        try:
            held = cell.cell_contents
        except ValueError:  # a name that nothing was given yet
            return cell
        new = self(held)
        return cell if new is held else CellType(new)


@lru_cache(maxsize=256)
def _globals_of(code: CodeType) -> tuple[frozenset[str], bool]:
    """Return the names that a function and all within it may read, and whether it writes one.

    One that counts in a global name goes on counting there.
    """
    inner = [_globals_of(value) for value in code.co_consts if isinstance(value, CodeType)]
    writes = any(i.opname in ("STORE_GLOBAL", "DELETE_GLOBAL") for i in dis.get_instructions(code))
    names = frozenset(code.co_names).union(*(names for names, _ in inner))
    return names, writes or any(w for _, w in inner)
