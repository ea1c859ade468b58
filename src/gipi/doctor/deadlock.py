"""Weights at zero that hold each other there: no gradient reaches them, whatever the others do."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from gipi.doctor.copies import peeking
from gipi.doctor.seeded import seeded

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import Tensor

    from gipi.doctor.facts import Facts

MOVED = 0.05
"""Noise that weights are moved by, beside a tenth of their own size."""


def held_at_zero(facts: Facts) -> list[str]:
    """Return names of parameters that begin at zero and can never leave it; matrices among them.

    df/du = v and df/dv = u of f = u v: where both are zero, so are their gradients, for ever. But a
    zero behind a last layer of zeros gets its gradient one step later. So all others are moved at
    random: who gets a gradient then is left out, until what is left gets none. And it must be the
    zeros that keep it away: with random numbers in their place as well it has to come.
    """
    held = {
        n: p for n, p in facts.exp.model.named_parameters()
        if p.requires_grad and p.numel() and not bool(p.detach().any())
        and facts.moves and all(_is_zero(m.fresh.get(n)) for m in facts.moves)
    }  # fmt: skip
    while any(p.ndim > 1 for p in held.values()):
        others = [(n, p) for n, p in facts.exp.model.named_parameters() if n not in held]
        found = _moved(facts, others)
        left = {n: p for n, p in held.items() if _is_zero(found.get(n))}
        if len(left) == len(held):
            free = _moved(facts, [*others, *held.items()])
            names = [n for n in held if free.get(n) is not None and not _is_zero(free[n])]
            return names if any(held[n].ndim > 1 for n in names) else []
        held = left
    return []


def _is_zero(gradient: Tensor | None) -> bool:
    """Whether there is a gradient, and nothing in it."""
    if gradient is None:
        return False
    return not bool((gradient.coalesce().values() if gradient.is_sparse else gradient).any())


def _moved(facts: Facts, params: Iterable[tuple[str, Tensor]]) -> dict[str, Tensor | None]:
    """Return the gradients of the first batch's loss with some weights moved at random."""
    weights = [p for _, p in params if p.is_floating_point()]
    with peeking(facts.exp, weights=weights), seeded(facts.exp), torch.no_grad():
        for p in weights:
            size = MOVED + 0.1 * float(p.float().square().mean().sqrt()) if p.numel() else 0.0
            p.add_(torch.randn_like(p), alpha=size)
        with torch.enable_grad():
            return facts.gradients_of(*facts.batch)
