"""What layers that stay as they are make of the inputs: all that those above can learn from."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from gipi.doctor.copies import peeking
from gipi.doctor.experiment import call
from gipi.doctor.knowledge import matrices
from gipi.doctor.reference import linear_of
from gipi.doctor.tape import WEIGHTED

if TYPE_CHECKING:
    from gipi.doctor.facts import Facts


def share_kept(facts: Facts) -> float:
    """Return the share of the numbers in layers' matrices that the run does not train."""
    held = dict(facts.exp.model.named_parameters())
    layers = matrices(facts, held)
    whole = sum(held[n].numel() for n in layers)
    return sum(held[n].numel() for n in layers if _stays(facts, n)) / whole if whole else 0.0


def told_by_kept(facts: Facts) -> float:
    """Return what a linear function of what the kept layers make of a row tells, on new rows.

    In the measure of `bar`. NaN where layers that are trained stand below them, or none above: what
    those could still make of it is not known then.
    """
    reader = _reader(facts)
    if reader is None:
        return math.nan

    def look(X: Tensor) -> Tensor | None:
        made: list[Tensor] = []

        def keep(_: nn.Module, given: tuple[Any, ...]) -> None:
            if given and isinstance(given[0], Tensor):
                made.append(given[0])

        with peeking(facts.exp), torch.no_grad():
            facts.exp.model.eval()
            hook = reader.register_forward_pre_hook(keep)
            try:
                call(facts.exp.model, X)
            finally:
                hook.remove()
        facts.passes += 1
        return made[0] if len(made) == 1 and len(made[0]) == len(X) else None

    return linear_of(facts, look)


def _stays(facts: Facts, name: str) -> bool:
    held = facts.exp.model.get_parameter(name)
    return not held.requires_grad or id(held) not in facts.in_optimizer


def _reader(facts: Facts) -> nn.Module | None:
    """Return the first trained layer, where all that are kept are called before it."""
    names = dict(facts.exp.model.named_parameters())
    of: dict[str, list[bool]] = {}
    for name in matrices(facts, names):
        of.setdefault(name.rpartition(".")[0], []).append(_stays(facts, name))
    called = [op.module for op in (facts.start or facts).tape.of(WEIGHTED) if op.module in of]
    kept = [all(of[module]) for module in called]
    first = kept.index(False) if False in kept else 0
    if not first or any(kept[first:]):
        return None
    return facts.exp.model.get_submodule(called[first])
