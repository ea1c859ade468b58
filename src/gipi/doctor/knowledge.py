"""Whether weights that do not move know anything: their values against the same values shuffled.

Features that were learned before are kept on purpose; random ones stand still by mistake. Both
look alike from outside, but the rest of the net learns faster from the former than from the same
numbers in another order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import nn

from gipi.doctor.contest import RATE, Side, better, side

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from gipi.doctor.experiment import Experiment
    from gipi.doctor.facts import Facts

STEPS = 40
SHUFFLES = 2
PASSES = STEPS * (1 + SHUFFLES)
KNOWS = 0.85
"""The weights know something where the loss with them is below this share of any without."""
SAME = 0.95
MATRICES = (nn.Linear, nn.Bilinear, nn.modules.conv._ConvNd, nn.RNNBase, nn.RNNCellBase,  # noqa: SLF001
            nn.MultiheadAttention)  # fmt: skip


@dataclass(frozen=True)
class Knowledge:
    """What the weights are worth: "much", "nothing", "unclear", or "unused" where none matters."""

    worth: Literal["much", "nothing", "unclear", "unused"]
    loss: float
    shuffled: tuple[float, ...]


def knowledge(facts: Facts, names: Iterable[str]) -> Knowledge | None:
    """Train what is trained with the weights as they are and shuffled; None where nothing is.

    Both take Adam's steps, on the parameters that the run's optimizer has.
    """
    chosen = tuple(names)
    try:
        as_is = side(facts, _adam, STEPS)
        others = [
            side(facts, _then(shuffled(chosen, seed), _adam), STEPS) for seed in range(SHUFFLES)
        ]
    except (RuntimeError, ValueError, IndexError, TypeError):
        return None
    return Knowledge(_worth(as_is, others, facts.yardstick), as_is.held,
                     tuple(s.held for s in others))  # fmt: skip


def _worth(
    as_is: Side, others: Sequence[Side], first: float
) -> Literal["much", "nothing", "unclear", "unused"]:
    if all(s == as_is for s in others):
        return "unused"
    if all(better(as_is.held, s.held, first, KNOWS) for s in others):
        return "much"
    mean = sum(s.held for s in others) / len(others)
    return "unclear" if better(as_is.held, mean, first, SAME) else "nothing"


def _adam(exp: Experiment) -> None:
    kept = [p for g in exp.optimizer.param_groups for p in g["params"] if p.requires_grad]
    exp.optimizer = torch.optim.Adam(kept, RATE)
    exp.scheduler = None


def _then(*changes: Callable[[Experiment], object]) -> Callable[[Experiment], None]:
    def change(exp: Experiment) -> None:
        for each in changes:
            each(exp)

    return change


def shuffled(names: Sequence[str], seed: int) -> Callable[[Experiment], None]:
    """Return the change that puts the values of parameters in a random order."""

    def change(exp: Experiment) -> None:
        generator = torch.Generator().manual_seed(seed)
        held = dict(exp.model.named_parameters())
        with torch.no_grad():
            for name in names:
                p = held.get(name)
                if p is not None and p.numel() > 1:
                    order = torch.randperm(p.numel(), generator=generator).to(p.device)
                    p.copy_(p.flatten()[order].reshape(p.shape))

    return change


def matrices(facts: Facts, names: Iterable[str]) -> list[str]:
    """Return those names that are weight matrices of layers, which nobody makes to stand still."""
    held = dict(facts.exp.model.named_parameters())
    return [n for n in names if held[n].ndim > 1 and isinstance(facts.owners.get(n), MATRICES)]
