"""Which parameters the gradient does not reach, and whether the loss depends on them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from gipi.doctor.copies import peeking
from gipi.doctor.experiment import call

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from gipi.doctor.facts import Facts

GROUPS = 6
"""Modules that are tried one by one; of more, the rest goes with the most."""


@dataclass(frozen=True)
class Unreached:
    """Names of trainable parameters without a gradient in the first batches, which no step moved.

    cut     the loss depends on them: the graph is cut between them and the loss
    unused  it does not
    """

    cut: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()


def unreached(facts: Facts) -> Unreached:
    """Return the parameters that no gradient reaches, found once an experiment."""
    if "unreached" not in facts.notes:
        try:
            facts.notes["unreached"] = _found(facts)
        except (RuntimeError, ValueError):  # the net cannot be trained on its first batch at all
            facts.notes["unreached"] = Unreached()
    found: Unreached = facts.notes["unreached"]
    return found


def _found(facts: Facts) -> Unreached:
    gradients: list[Mapping[str, Tensor | None]] = [m.fresh for m in facts.moves]
    gradients = gradients or [facts.gradients]
    names = [
        n for n, p in facts.exp.model.named_parameters()
        if p.requires_grad and p.numel() and not facts.meant_to_stay(n)
        and all(g.get(n) is None for g in gradients) and (not facts.moves or facts.still(n))
    ]  # fmt: skip
    if not names:
        return Unreached()
    base = _loss_with(facts, [])
    if _loss_with(facts, names) == base:
        return Unreached(unused=tuple(names))
    groups: dict[str, list[str]] = {}
    for n in names:
        groups.setdefault(n.rpartition(".")[0], []).append(n)
    if len(groups) == 1:
        return Unreached(cut=tuple(names))
    unused: list[str] = []
    for group in list(groups.values())[:GROUPS]:
        if _loss_with(facts, group) == base:
            unused += group
    return Unreached(tuple(n for n in names if n not in unused), tuple(unused))


def matter(facts: Facts, names: Sequence[str]) -> bool:
    """Whether the first batch's loss depends on some parameters."""
    try:
        return _loss_with(facts, list(names)) != _loss_with(facts, [])
    except (RuntimeError, ValueError):
        return True


def _loss_with(facts: Facts, names: list[str]) -> float:
    """Return the first batch's loss after noise is added to some parameters."""
    facts.passes += 1
    exp = facts.exp
    held = dict(exp.model.named_parameters())
    with peeking(exp, weights=[held[n] for n in names]), torch.no_grad():
        exp.model.train()
        generator = torch.Generator().manual_seed(0)
        for n in names:
            noise = torch.randn(held[n].shape, generator=generator).to(held[n])
            held[n].add_(noise * (held[n].float().abs().mean() + 0.1))
        return float(exp.loss(call(exp.model, facts.batch[0]), facts.batch[1]))
