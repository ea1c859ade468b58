"""Optimizers without torch's compiler, which takes long to import.

torch keeps four methods of `Optimizer` out of compiled graphs, and imports the compiler at their
first call to do so: at the first optimizer of a process, whether anything is compiled or not.
`benchmarks/speed/startup.py` measures both.
"""

from __future__ import annotations

import sys
from typing import Any

from torch.optim import Optimizer

_METHODS = ("add_param_group", "load_state_dict", "state_dict", "zero_grad")
_MARK = "__dynamo_disable"  # where torch keeps what it calls instead of the method


def _plain() -> list[Any]:
    """Return the methods as they are below torch's wrapper."""
    found = [getattr(getattr(Optimizer, name), "__wrapped__", None) for name in _METHODS]
    return [method for method in found if method is not None]


def spare_compiler() -> bool:
    """Call the methods directly from now on; False where the compiler is there already."""
    if "torch._dynamo" in sys.modules:
        return False
    for method in _plain():
        if not hasattr(method, _MARK):
            setattr(method, _MARK, method)
    return True


def allow_compiler() -> None:
    """Undo `spare_compiler`: the next call of a method imports the compiler again."""
    for method in _plain():
        if getattr(method, _MARK, None) is method:
            delattr(method, _MARK)
