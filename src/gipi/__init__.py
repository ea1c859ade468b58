"""gipi: data in; a trained, diagnosed, explained and deployable model out.

The public names are resolved when they are first used, so that the command line can answer
questions about itself without importing torch.
"""

from __future__ import annotations

import sys
from importlib import import_module
from inspect import Signature, signature
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gipi.api import (
        Run,
        embed,
        evaluate,
        fit,
        load,
        model,
        open,  # noqa: A004
        pretrained,
        rank,
        resume,
        train,
    )
    from gipi.core.config import Config, Recipe
    from gipi.core.errors import GipiError
    from gipi.doctor import Experiment, diagnose, watch

__version__ = "0.1.0"

_WHERE = {
    "resume": "gipi.api",
    "evaluate": "gipi.api",
    "load": "gipi.api",
    "open": "gipi.api",
    "model": "gipi.api",
    "pretrained": "gipi.api",
    "fit": "gipi.api",
    "embed": "gipi.api",
    "rank": "gipi.api",
    "Run": "gipi.api",
    "Experiment": "gipi.doctor",
    "diagnose": "gipi.doctor",
    "watch": "gipi.doctor",
    "Config": "gipi.core.config",
    "Recipe": "gipi.core.config",
    "GipiError": "gipi.core.errors",
}

__all__ = [
    "Config", "Experiment", "GipiError", "Recipe", "Run", "diagnose", "embed", "evaluate", "fit",
    "load", "model", "open", "pretrained", "rank", "resume", "train", "watch",
]  # fmt: skip


class _Callable(ModuleType):
    """`gipi.train` is a folder of this package and also the function of the README."""

    @property
    def __signature__(self) -> Signature:
        """The signature of `gipi.api.train`, which help and editors show."""
        return signature(import_module("gipi.api").train)

    def __call__(self, *args: Any, **kwargs: Any) -> Run:
        """Call `gipi.api.train`."""
        run: Run = import_module("gipi.api").train(*args, **kwargs)
        return run


class _Package(ModuleType):
    """The package: when its folder `train` is imported, that module becomes callable."""

    def __setattr__(self, name: str, value: object) -> None:
        if name == "train" and isinstance(value, ModuleType):
            value.__class__ = _Callable
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __getattr__(name: str) -> Any:
    if name == "train":
        return import_module("gipi.train")
    if name in _WHERE:
        return getattr(import_module(_WHERE[name]), name)
    raise AttributeError(f"module 'gipi' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
