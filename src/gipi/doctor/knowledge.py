"""Whether weights that do not move know anything, or are as they were drawn.

Features that were learned before are kept on purpose; random ones stand still by mistake. What
torch draws has sharp bounds that no training respects. Where that does not tell, the rest of the
net does: it learns faster from what knows something than from the same numbers in another order.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import nn

from gipi.doctor.contest import RATE, Side, better, side
from gipi.doctor.tape import NORMS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from torch import Tensor

    from gipi.doctor.experiment import Experiment
    from gipi.doctor.facts import Facts
    from gipi.doctor.finding import Finding

STEPS = 40
SHUFFLES = 2
PASSES = STEPS * (1 + SHUFFLES)
KNOWS = 0.85
"""The weights know something where the loss with them is below this share of any without."""
SAME = 0.95
MATRICES = (nn.Linear, nn.Bilinear, nn.modules.conv._ConvNd, nn.RNNBase, nn.RNNCellBase,  # noqa: SLF001
            nn.MultiheadAttention)  # fmt: skip


NEAR = 6
"""Of n uniform numbers the largest is about 1/n below the bound; so many times that may be."""
FEWEST = 12
EVEN = 1.63
"""Kolmogorov and Smirnov's bound, times the square root of the count, at one in a hundred."""


@dataclass(frozen=True)
class Knowledge:
    """What the weights are worth: "much", "nothing", "unclear", or "unused" where none matters."""

    worth: Literal["much", "nothing", "unclear", "unused"]
    loss: float
    shuffled: tuple[float, ...]


def judged_still(facts: Facts, finding: Finding) -> Finding | None:
    """Return a finding about weights that stand still after asking what they know.

    A problem where at least half of them are as they were drawn; a hint where they know nothing
    though they are not; None where they know something.
    """
    fresh = as_drawn(facts, finding.where)
    if fresh and 2 * len(fresh) >= len(matrices(facts, finding.where)):
        seen: dict[str, object] = {"as_drawn": fresh[:32]}
        return finding.but(confirmed=True, evidence={**finding.evidence, **seen})
    found = knowledge(facts, finding.where)
    if found is None or found.worth != "nothing":
        return None
    seen = {"loss": found.loss, "loss_shuffled": list(found.shuffled)}
    return finding.but(severity="hint", evidence={**finding.evidence, **seen})


def as_drawn(facts: Facts, names: Iterable[str]) -> list[str]:
    """Return those weight matrices that are as torch drew them.

    Uniform numbers within 1/sqrt(inputs), or Glorot's or He's bound, beside a bias within its own;
    or any numbers beside a bias of zeros (which a norm behind the layer would keep so).
    """
    held = dict(facts.exp.model.named_parameters())
    normed = bool(facts.tape.of(NORMS))
    found = []
    for name in matrices(facts, names):
        weight = held[name].detach()
        inputs, outputs = _fans(weight, facts.owners[name])
        bounds = (inputs**-0.5, math.sqrt(6 / (inputs + outputs)), math.sqrt(6 / inputs))
        bias = held.get(name.replace("weight", "bias"))
        blank = bias is not None and not bool(bias.any())
        within = bias is None or float(bias.detach().abs().max()) <= inputs**-0.5 * (1 + 1e-6)
        if (blank and not normed) or (within and any(_uniform(weight, b) for b in bounds)):
            found.append(name)
    return found


def _fans(weight: Tensor, layer: nn.Module) -> tuple[int, int]:
    if isinstance(layer, (nn.RNNBase, nn.RNNCellBase)):
        return layer.hidden_size, layer.hidden_size
    size = weight[0, 0].numel()
    if isinstance(layer, nn.MultiheadAttention):
        return weight.shape[1], weight.shape[0]
    return weight.shape[1] * size, weight.shape[0] * size


def _uniform(values: Tensor, bound: float) -> bool:
    """Whether numbers fill an interval evenly up to its bound and never leave it."""
    count = values.numel()
    share = values.abs().flatten().double().cpu() / bound
    largest = float(share.max())
    return count >= FEWEST and 1 - NEAR / count <= largest <= 1 + 1e-6 and _even(share)


def _even(share_n: Tensor) -> bool:
    """Whether numbers between 0 and 1 fill all of it evenly (Kolmogorov and Smirnov's test)."""
    count = len(share_n)
    even = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    return float((share_n.sort().values - even).abs().max()) <= EVEN / math.sqrt(count)


def tables_as_drawn(facts: Facts, names: Iterable[str]) -> list[str]:
    """Return those embeddings that are as torch drew them: normal numbers of spread 1.

    Rows of zeros, as that of padding, are left out. What was learned elsewhere has a spread and
    tails of its own.
    """
    held = dict(facts.exp.model.named_parameters())
    found = []
    for name in names:
        rows = held[name].detach().double().cpu()
        if not isinstance(facts.owners.get(name), (nn.Embedding, nn.EmbeddingBag)):
            continue
        drawn = rows[rows.any(1)].flatten()
        if len(drawn) >= FEWEST and _even(torch.special.ndtr(drawn)):
            found.append(name)
    return found


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
