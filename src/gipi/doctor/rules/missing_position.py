"""Attention that does not know where a token stands."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from gipi.doctor.contest import contest
from gipi.doctor.finding import CannotRepair, Finding, Repair
from gipi.doctor.late import Question, leave_open
from gipi.doctor.rewire import replace_module
from gipi.doctor.rule import DYNAMICS, EXACT, Rule
from gipi.doctor.sequences import at_every_place, by_place, has_attention, padding_of, sequence_of
from gipi.doctor.tiles import grids, placed, rearranged

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gipi.doctor.experiment import Experiment
    from gipi.doctor.facts import Facts

SAME = 1e-3
STEPS, PASSES = 80, 240
LACKS = 0.2
"""Share of the loss of who knows nothing that a run must end with for places of tiles to be tried:
most bags of tiles that learn more know what they need."""


def before(facts: Facts) -> Iterator[Finding]:
    """Put tokens in another order (or all the same): where nothing moves, order is not seen."""
    x, base = facts.few, facts.base
    if base is None or not isinstance(x, Tensor):
        return
    try:
        blind = _of_sequences(facts, x, base)
        grid = None if blind else _of_tiles(facts, x, base)
    except (RuntimeError, ValueError, IndexError):
        return  # a row of several fields: what stands in one is no token of another
    if grid is not None:
        yield _of_images(x, grid)
    if not blind:
        return
    yield Finding(
        "missing_position",
        "outputs are the same in whatever order the tokens come: attention without positions sees "
        "a bag of tokens",
        "add positions to the embeddings: learned, sinusoidal or rotary",
        evidence={"places": x.shape[1]},
        strength=EXACT / 2,
        repairs=(
            Repair("sinusoidal positions", add_positions,
                   edit="x = embed(tokens) + place(torch.arange(T))"),
        ),
    )  # fmt: skip


def _of_images(x: Tensor, grid: tuple[int, int]) -> Finding:
    what = "an image's tiles" if x.ndim == 4 else "a signal's parts"
    return Finding(
        "missing_position",
        f"outputs are the same in whatever order {what} come ({grid[0]} x {grid[1]} of them): "
        "attention without positions sees a bag of tokens",
        "add positions to the tokens that are made of them: learned, or sinusoidal",
        evidence={"places": grid[0] * grid[1], "grid": list(grid)},
        strength=EXACT / 2,
        repairs=(
            Repair("learned positions", placed(grid),
                   edit="x = patches(images) + place, place = nn.Parameter(torch.zeros(T, D))"),
        ),
    )  # fmt: skip


def confirm(facts: Facts, finding: Finding) -> Finding | None:
    """Train a little with positions; a hint where they do not help, nothing for sets of vectors.

    What tiles show is learned before where they lie, and many tell all by what they show: only the
    end of the run is asked.
    """
    change, begun = finding.repairs[0].change, False
    assert change is not None
    if "grid" in finding.evidence:
        leave_open(facts, Question(finding, change, lacks=LACKS, late=True))
        return None
    for adam in (False, True):
        seen = contest(facts, change, adam=adam, steps=STEPS if adam else None)
        if seen is not None and seen.wins(0.93):
            return finding.but(confirmed=True, evidence={**finding.evidence, **seen.figures})
        begun = begun or seen is None or seen.begun
    words = not (isinstance(facts.few, Tensor) and facts.few.is_floating_point())
    if words or not begun:
        leave_open(facts, Question(finding, change))
    return finding.but(severity="hint") if words else None


def cost(_: Facts, finding: Finding) -> int:
    """Return the passes of `confirm`."""
    return 0 if "grid" in finding.evidence else PASSES


def _of_sequences(facts: Facts, x: Tensor, base: Tensor) -> bool:
    """Whether attention over the tokens of a row does not see their order."""
    if sequence_of(x) is not x or x.shape[1] < 4 or not has_attention(facts):
        return False
    return _same_everywhere(facts, x) if at_every_place(facts) else _any_order(facts, x, base)


def _of_tiles(facts: Facts, x: Tensor, base: Tensor) -> tuple[int, int] | None:
    """Return how images are cut into tiles whose order attention does not see; None where it is."""
    for grid in grids(facts, x):
        other = rearranged(x, grid)
        if other is not None and facts.differ(facts.shown(other), base) <= SAME:
            return grid
    return None


def _same_everywhere(facts: Facts, x: Tensor) -> bool:
    """Whether a row of one repeated token gives one output at all places."""
    said = facts.shown(x[:, :1].expand_as(x).contiguous())
    said = by_place(said, len(x), places=x.shape[1])
    if said is None or said.ndim < 3:
        return False
    return facts.differ(said, said[:, :1].expand_as(said)) <= SAME


def _any_order(facts: Facts, x: Tensor, base: Tensor) -> bool:
    """Whether outputs stay where the tokens between the first and the last change places."""
    padding = padding_of(facts)
    places = x.shape[1]
    if padding is not None:
        whole = padding.lengths[: len(x)] == places
        if int(whole.sum()) < 2:
            shortest = int(padding.lengths[: len(x)].min())
            places = places if padding.front else shortest
            whole = torch.ones(len(x), dtype=torch.bool, device=x.device)
            if padding.front or places < 4:
                return False
    else:
        whole = torch.ones(len(x), dtype=torch.bool, device=x.device)
    order = torch.arange(x.shape[1])
    order[1 : places - 1] = order[1 : places - 1].flip(0)
    changed = x[:, order]
    if float((changed != x)[whole].double().mean()) < 0.1:
        return False
    said = facts.shown(changed)
    return said.shape == base.shape and facts.differ(said[whole], base[whole]) <= SAME


class Placed(nn.Module):
    """An embedding whose outputs get the sines and cosines of their places.

    p_t,2i = sin(t / 10000^(2i/D)), p_t,2i+1 = cos of the same (Vaswani et al. 2017), times `size`
    """

    def __init__(self, inner: nn.Module, size: float) -> None:
        super().__init__()
        self.inner, self.size = inner, size

    @property
    def weight(self) -> Tensor:
        """The inner weights, for heads that share them."""
        held: Tensor = self.inner.weight  # type: ignore[assignment]
        return held

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, T, D) with positions."""
        said: Tensor = self.inner(x)
        T, D = said.shape[-2:]
        t = torch.arange(T, device=said.device, dtype=torch.float32)[:, None]
        rate = torch.exp(
            -math.log(10_000.0) * torch.arange(0, D, 2, device=said.device).float() / D
        )
        angle = t * rate
        place = torch.stack([angle.sin(), angle.cos()], -1).flatten(1)[:, :D]
        return said + self.size * place.to(said.dtype)


def add_positions(exp: Experiment) -> str:
    """Put positions behind the first embedding, or the first linear layer over vectors."""
    for name, module in exp.model.named_modules():
        if not name or not isinstance(module, (nn.Embedding, nn.Linear)):
            continue
        size = 1.0
        if isinstance(module, nn.Embedding):
            size = max(float(module.weight.detach().std()), 0.02)
        replace_module(exp.model, name, by=Placed(module, size))
        return f"'{name}' gives embeddings with positions"
    message = "no embedding stands in the model as a module"
    raise CannotRepair(message)


RULE = Rule(
    code="missing_position",
    title="attention does not see the order of tokens",
    looks="the net does as well as a bag of words, and no better",
    why="attention weighs what is there, wherever it stands: without positions 'dog bites man' and "
    "'man bites dog' are one row",
    do="add positions to the embeddings, or rotate queries and keys by them",
    source="Vaswani et al. 2017, arXiv:1706.03762, section 3.5",
    before=before,
    confirm=confirm,
    passes=PASSES,
    cost=cost,
    causes=DYNAMICS,
)
