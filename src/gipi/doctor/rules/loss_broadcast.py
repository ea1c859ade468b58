"""Outputs (N, 1) and targets (N,) are stretched to (N, N) without a word."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gipi.doctor.finding import Finding, Repair
from gipi.doctor.hushed import hushed
from gipi.doctor.rule import DYNAMICS, EXACT, Rule

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gipi.doctor.experiment import Experiment
    from gipi.doctor.facts import Facts

APART = 1e-4


def before(facts: Facts) -> Iterator[Finding]:
    """Yield the finding where the loss changes when outputs take the shape of the targets."""
    said, y = facts.outputs, facts.batch[1]
    if not isinstance(said, Tensor) or not isinstance(y, Tensor):
        return
    if said.shape == y.shape or said.numel() != y.numel() or said.numel() < 2:
        return
    if not said.is_floating_point() or facts.loss.of_classes:
        return
    noise = torch.linspace(-1, 1, said.numel(), device=said.device, dtype=said.dtype)
    moved = said + noise.reshape(said.shape) * (said.std() + 0.1)
    as_is, aligned = _value(facts, moved, y), _value(facts, moved.reshape(y.shape), y)
    if as_is is None or aligned is None or abs(as_is - aligned) <= APART * (1 + abs(aligned)):
        return
    yield Finding(
        "loss_broadcast",
        f"outputs have shape {tuple(said.shape)} and targets {tuple(y.shape)}: the loss compares "
        f"every output with every target ({len(y)} x {len(y)} pairs), so that the best answer is "
        "the mean of all targets",
        "give both the same shape: squeeze the outputs or unsqueeze the targets",
        evidence={"outputs": list(said.shape), "targets": list(y.shape), "loss": as_is,
                  "loss_aligned": aligned},
        confirmed=True,
        strength=EXACT,
        repairs=(
            Repair("outputs in the shape of the targets", align, proof="exact",
                   edit="loss(outputs.squeeze(-1), y)" if said.ndim > y.ndim
                   else "loss(outputs, y.squeeze(-1))"),
        ),
    )  # fmt: skip


def _value(facts: Facts, said: Tensor, y: Tensor) -> float | None:
    with hushed(), torch.no_grad():
        try:
            return float(facts.exp.loss(said, y))
        except (RuntimeError, ValueError, IndexError, TypeError):
            return None


@dataclass(frozen=True)
class Aligned:
    """A loss whose outputs first take the shape of the targets."""

    loss: Any

    def __call__(self, said: Any, y: Any) -> Tensor:
        """Return the loss of outputs and targets that have as many numbers."""
        if isinstance(said, Tensor) and isinstance(y, Tensor) and said.numel() == y.numel():
            said = said.reshape(y.shape)
        value: Tensor = self.loss(said, y)
        return value


def align(exp: Experiment) -> str:
    """Give the loss outputs in the shape of the targets."""
    exp.loss = Aligned(exp.loss)
    return "outputs take the shape of the targets before the loss"


RULE = Rule(
    code="loss_broadcast",
    title="the loss compares every output with every target",
    looks="the net learns to say the mean of the targets, whatever the input",
    why="shapes (N, 1) and (N,) are stretched to (N, N): every output is pulled towards all "
    "targets at once",
    do="squeeze the last dimension of the outputs, or give the targets one",
    source="NumPy broadcasting rules; the warning of torch.nn.functional.mse_loss",
    before=before,
    causes=(*DYNAMICS, "target_unscaled"),
)
