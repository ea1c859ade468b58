"""Keeps non-finite steps out of the weights, counts them and says what they were."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from gipi.core.errors import NonFiniteError
from gipi.train.finite import GIVE_UP_AFTER, scale_and_check

if TYPE_CHECKING:
    from torch import Tensor

GROWTH_EVERY = 2000
"""Finite steps after which the loss scale of fp16 doubles (Micikevicius et al. 2018)."""


@dataclass
class Guard:
    """Checks gradients and loss of every step in one fused kernel.

    On the CPU the answer is read at once (that costs nothing) and a bad step is not taken. On a
    GPU the flag stays on the device: the optimizer's kernel skips by itself, and the flags are
    read with the next row.
    """

    device: torch.device
    scaled: bool = False
    consecutive: int = 0
    flags: list[tuple[int, int, int, Tensor]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.on_host = self.device.type == "cpu"
        self._flag = torch.zeros((), device=self.device)
        self.found_inf: Tensor | None = None if self.on_host else self._flag
        self._one = torch.ones((), device=self.device)
        self.scale = torch.full((), 2.0**16 if self.scaled else 1.0, device=self.device)
        self._growth = torch.zeros((), dtype=torch.int32, device=self.device)

    def check(
        self,
        grads: list[Tensor],
        total: float | Tensor,
        factor: Tensor | None,
        where: tuple[int, int, int],
    ) -> bool:
        """Multiply the gradients by `factor`; return True where the step must not be taken.

        total  the loss, checked as well: a number on the host, a detached tensor on a GPU
        where  (step, epoch, batch), for the explanation
        """
        plain = factor is None and not self.scaled
        factor = self._one if plain else self._combined(grads, factor)
        if isinstance(total, float):
            scale_and_check(grads, factor, self._flag)
            if self._flag.item() == 0.0 and math.isfinite(total):
                self.consecutive = 0
                return False
            self._flag.zero_()
            self.consecutive += 1
            return True
        self._flag.zero_()
        # the kernel multiplies in place: the loss of the log must keep its value
        value = total.float() if factor is self._one else total.float().clone()
        scale_and_check([*grads, value.reshape(1)], factor, self._flag)
        self.flags.append((*where, self._flag.clone()))
        if self.scaled:
            torch._amp_update_scale_(self.scale, self._growth, self._flag, 2.0, 0.5, GROWTH_EVERY)
        return False

    def _combined(self, grads: list[Tensor], factor: Tensor | None) -> Tensor:
        """Return the factor over the loss scale; float64 gradients are multiplied at once."""
        if factor is not None and grads and grads[0].dtype == torch.float64:
            torch._foreach_mul_(grads, factor)
            factor = None
        factor = self._one if factor is None else factor.float()
        return factor / self.scale if self.scaled else factor

    def read(self) -> list[tuple[int, int, int]]:
        """Return (step, epoch, batch) of the steps that the device skipped since the last call."""
        if not self.flags:
            return []
        values = torch.stack([flag for *_, flag in self.flags]).tolist()  # sync
        bad = [(s, e, b) for (s, e, b, _), v in zip(self.flags, values, strict=True) if v]
        for value in values:
            self.consecutive = self.consecutive + 1 if value else 0
        self.flags = []
        return bad

    def give_up(self, reason: str) -> None:
        """Raise `NonFiniteError` when too many steps in a row were not finite."""
        if self.consecutive < GIVE_UP_AFTER:
            return
        raise NonFiniteError(
            f"{self.consecutive} steps in a row had a non-finite loss or gradient ({reason})",
            "finite losses; the weights are those of the last finite step",
            "lower lr, set clip_norm, or repair the rows named above",
        )

    def state(self) -> dict[str, Tensor | int]:
        """Return what must survive a restart."""
        return {"scale": self.scale, "growth": self._growth, "consecutive": self.consecutive}

    def load_state(self, saved: dict[str, Tensor | int]) -> None:
        """Restore `state`."""
        self.scale.copy_(torch.as_tensor(saved["scale"]))
        self._growth.copy_(torch.as_tensor(saved["growth"]))
        self.consecutive = int(saved["consecutive"])
