"""The same watch within other people's trainers: the Hugging Face Trainer and Lightning.

Both packages are imported when a callback is asked for, and only then.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

from gipi.core.errors import MissingExtra, RequestError
from gipi.doctor.watch import Watch, watch

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import nn

    from gipi.doctor.finding import Finding


def for_trainer(*, declared: Mapping[str, Any] | None = None) -> Any:
    """Return a `transformers.TrainerCallback` that watches; `.findings` is known at the end.

    The Trainer calls the model with `labels`, and the model's outputs carry the loss. Raises
    `MissingExtra` where transformers is not installed.
    """
    base = _package("transformers").TrainerCallback

    class WatchTrainer(base):  # type: ignore[misc,valid-type]
        """Begins to watch with the training and ends with it."""

        watch: Watch | None = None

        def on_train_begin(self, *_: Any, **given: Any) -> None:
            """Watch the model and the optimizer of the Trainer."""
            optimizer = given["optimizer"]
            inner = getattr(optimizer, "optimizer", optimizer)  # accelerate wraps it
            self.watch = watch(given["model"], inner, None, declared=declared)
            self.watch.__enter__()

        def on_train_end(self, *_: Any, **__: Any) -> None:
            """Stop, and judge."""
            if self.watch is not None:
                self.watch.__exit__(None, None, None)

        @property
        def findings(self) -> list[Finding]:
            """What was found, ranked."""
            return _findings(self.watch)

    return WatchTrainer()


def for_lightning(
    loss: Any, *, module: str | None = None, declared: Mapping[str, Any] | None = None
) -> Any:
    """Return a `lightning.pytorch.Callback` that watches; `.findings` is known at the end.

    loss    the function or module that `training_step` calls with (outputs, target)
    module  the name of the net within the LightningModule; None: its only child with weights, or
            of several the LightningModule itself, if it has a `forward` of its own

    Raises `MissingExtra` where neither lightning nor pytorch_lightning is installed.
    """
    base = _package("lightning.pytorch", "pytorch_lightning").Callback

    class WatchLightning(base):  # type: ignore[misc,valid-type]
        """Begins to watch with the training and ends with it."""

        watch: Watch | None = None

        def on_train_start(self, trainer: Any, pl_module: Any) -> None:
            """Watch the net and the first optimizer."""
            net = pl_module.get_submodule(module) if module else _net_of(pl_module)
            self.watch = watch(net, trainer.optimizers[0], loss, declared=declared)
            self.watch.__enter__()

        def on_train_end(self, trainer: Any, pl_module: Any) -> None:  # noqa: ARG002
            """Stop, and judge."""
            if self.watch is not None:
                self.watch.__exit__(None, None, None)

        @property
        def findings(self) -> list[Finding]:
            """What was found, ranked."""
            return _findings(self.watch)

    return WatchLightning()


def _package(*names: str) -> Any:
    for name in sorted(names, key=lambda n: n not in sys.modules):  # what the trainer is of
        try:
            return import_module(name)
        except ImportError:
            continue
    package = names[0].partition(".")[0]
    raise MissingExtra(
        f"the package {package} is not installed",
        "the trainer whose runs are to be watched",
        f"pip install {package}",
    )


def _net_of(module: nn.Module) -> nn.Module:
    found = [(n, m) for n, m in module.named_children() if next(m.parameters(), None) is not None]
    if len(found) == 1:
        return found[0][1]
    if not module.forward.__module__.startswith(("torch.", "lightning.", "pytorch_lightning.")):
        return module  # its training_step calls self(x)
    names = ", ".join(n for n, _ in found) or "none"
    raise RequestError(
        f"{type(module).__name__} has {len(found)} children with weights ({names})",
        "the one that training_step calls with the inputs",
        "name it: for_lightning(loss, module=...)",
    )


def _findings(seen: Watch | None) -> list[Finding]:
    return [] if seen is None else seen.findings
