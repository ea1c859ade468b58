"""gipi: data in; a trained, diagnosed, explained and deployable model out.

The public names are resolved when they are first used, so that the command line can answer
questions about itself without importing torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gipi.api import Run, evaluate, fit, load, model, open, resume, train  # noqa: A004
    from gipi.core.config import Config, Recipe
    from gipi.core.errors import GipiError

__version__ = "0.1.0"

_WHERE = {
    "train": "gipi.api",
    "resume": "gipi.api",
    "evaluate": "gipi.api",
    "load": "gipi.api",
    "open": "gipi.api",
    "model": "gipi.api",
    "fit": "gipi.api",
    "Run": "gipi.api",
    "Config": "gipi.core.config",
    "Recipe": "gipi.core.config",
    "GipiError": "gipi.core.errors",
}

__all__ = [
    "Config", "GipiError", "Recipe", "Run", "evaluate", "fit", "load", "model", "open", "resume",
    "train",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        return getattr(import_module(_WHERE[name]), name)
    raise AttributeError(f"module 'gipi' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
