"""Averages of the weights over a run: exponential (EMA) and equal (SWA)."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

from gipi.core.errors import CheckpointError, ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from torch import Tensor, nn


class Average:
    """A running average of all parameters and buffers of a model, kept beside it.

        a ← a + (w - a)(1 - d)

    ema   d = min(decay, (1 + t)/(10 + t)) in update t = 0, 1, ...: short memory while the weights
          still move fast, so that the start is forgotten (Polyak and Juditsky 1992; the ramp as in
          Tarvainen and Valpola 2017, arXiv:1703.01780)
    swa   d = n/(n + 1) from progress `start` on: the mean of n + 1 equal terms (Izmailov et al.
          2018, arXiv:1803.05407). Differs from the paper, which recomputes the statistics of batch
          norm in a pass over the data: they are averaged like the weights

    Whole numbers (the counters of batch norm) are copied. The average is updated in place with one
    foreach operation; `swapped` exchanges it with the live values and back.
    """

    def __init__(self, model: nn.Module, *, decay: float | None = None, start: float = 0.0) -> None:
        if decay is not None and not 0 < decay < 1:
            raise ConfigError(f"ema={decay}", "a decay between 0 and 1", "use ema=0.999")
        if not 0 <= start < 1:
            raise ConfigError(f"swa={start}", "a share of the run below 1", "use swa=0.75")
        self.decay, self.start, self.updates = decay, start, 0
        live = {**dict(model.named_parameters()), **dict(model.named_buffers())}
        self._names = list(live)
        self._live: list[Tensor] = [live[name] for name in self._names]
        self._mean = [t.detach().clone() for t in self._live]
        floating = [i for i, t in enumerate(self._live) if t.is_floating_point()]
        exact = [i for i, t in enumerate(self._live) if not t.is_floating_point()]
        self._float = [self._mean[i] for i in floating], [self._live[i] for i in floating]
        self._exact = [self._mean[i] for i in exact], [self._live[i] for i in exact]

    @torch.no_grad()
    def update(self, progress: float = 1.0) -> None:
        """Take the live values into the average; before `start` (swa) nothing happens."""
        if progress < self.start:
            return
        n = self.updates
        keep = n / (n + 1) if self.decay is None else min(self.decay, (1 + n) / (10 + n))
        torch._foreach_lerp_(*self._float, 1 - keep)
        if self._exact[0]:
            torch._foreach_copy_(*self._exact)
        self.updates = n + 1

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange the average and the live values in place; a second call undoes the first."""
        if self.updates == 0:
            return
        old = [t.clone() for t in self._live]
        torch._foreach_copy_(self._live, self._mean)
        torch._foreach_copy_(self._mean, old)

    @contextmanager
    def swapped(self) -> Iterator[None]:
        """Within this context the model holds the average (once anything was averaged)."""
        self.swap()
        try:
            yield
        finally:
            self.swap()

    def state(self) -> dict[str, Tensor]:
        """Return the average as tensors by name, with the number of updates."""
        return {
            **dict(zip(self._names, self._mean, strict=True)),
            "average.updates": torch.tensor(self.updates, dtype=torch.int64),
        }

    @torch.no_grad()
    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Take up `state`; raises `CheckpointError` where names or shapes differ."""
        wrong = [
            name for name, mean in zip(self._names, self._mean, strict=True)
            if name not in state or state[name].shape != mean.shape
        ]  # fmt: skip
        if wrong or "average.updates" not in state:
            raise CheckpointError(
                f"the saved average does not match the model: {', '.join(wrong[:3]) or 'updates'}",
                "an average of the same model",
                "resume with the model that the run was started with",
            )
        for name, mean in zip(self._names, self._mean, strict=True):
            mean.copy_(state[name])
        self.updates = int(state["average.updates"])


def ema(model: nn.Module, *, decay: float) -> Average:
    """Return an exponential moving average of `model`."""
    return Average(model, decay=decay)


def swa(model: nn.Module, *, start: float) -> Average:
    """Return an equal-weight average of `model` from the share `start` of the run on."""
    return Average(model, start=start)
