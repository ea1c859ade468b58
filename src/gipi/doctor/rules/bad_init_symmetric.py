"""Units of a layer begin equal and stay so: they can only ever be one unit."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from gipi.doctor.contest import BEGUN, contest
from gipi.doctor.deadlock import held_at_zero
from gipi.doctor.finding import Change, Finding, Repair
from gipi.doctor.late import REST, Question, leave_open
from gipi.doctor.own_weights import along, own_weights, usual
from gipi.doctor.rule import DYNAMICS, EXACT, Rule
from gipi.doctor.seeded import seeded
from gipi.doctor.spoken import counted

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from gipi.doctor.experiment import Experiment
    from gipi.doctor.facts import Facts

LAYERS = (nn.Linear, nn.modules.conv._ConvNd, nn.RNNBase)  # noqa: SLF001  torch has no other name
EQUAL = 1e-3
MANY = 2
"""Layers of zeros, one behind the other, from which on a run that has not begun is held up by them:
what goes through them begins as one number. A single one may only begin late."""


def before(facts: Facts) -> Iterator[Finding]:
    """Look for layers whose rows are equal; sure where their gradients are equal too."""
    gradients = [m.fresh for m in facts.moves]
    held, own = dict(facts.exp.model.named_parameters()), own_weights(facts)
    layers = [
        n for n in same_rows(facts)
        if n not in own or any((g := f.get(n)) is not None and bool(g.any()) for f in gradients)
    ]  # own ones that nothing reaches are held by others  # fmt: skip
    if not layers:
        yield from _held(facts)
        return
    zero = [n for n in layers if not bool(held[n].any())]
    stuck = bool(gradients) and [
        n for n in layers
        if all((g := f.get(n)) is None or _alike(facts, n, g) for f in gradients)
    ]  # fmt: skip
    blank = len(zero) > 1 and len(zero) == len(_matrices(facts))
    hiding = _hiding(facts, zero)
    suspect = [n for n in layers if blank or n not in zero or n in hiding]
    if not stuck and not suspect:
        # A zero layer whose gradients differ is a branch or a head, if rows differ behind it.
        yield from _held(facts)
        return
    names = tuple(stuck or suspect)
    known = {n: own[n].inputs for n in layers if n in own}
    values = sorted({round(float(held[n].detach().flatten()[0]), 4) for n in names})
    yield Finding(
        "bad_init_symmetric",
        f"all units of {counted(len(names), 'layer')} ({', '.join(names[:3])}"
        f"{', ...' if len(names) > 3 else ''}) begin with the same weights "
        f"({', '.join(f'{v:g}' for v in values[:3])})"
        + (" and get the same gradient: they stay one unit for ever" if stuck else ""),
        "draw weights at random: layer.reset_parameters(), or Glorot's or He's rule",
        where=names,
        evidence={"layers": len(names), "values": values[:8], "stuck": bool(stuck)},
        confirmed=bool(stuck) and not known,  # what own matrices are for is not known
        strength=EXACT,
        repairs=(
            Repair("draw the weights at random", drawn((*layers, *_lone(facts)), own=known),
                   proof="exact" if stuck and not known else "better", setting="model.init",
                   edit="for m in model.modules(): m.reset_parameters()" if not known else
                   "nn.Parameter(torch.randn(inputs, outputs) / inputs**0.5)"),
        ),
    )  # fmt: skip


def _held(facts: Facts) -> Iterator[Finding]:
    """Name zeros, of embeddings too, that keep the gradient from each other."""
    names = tuple(held_at_zero(facts))
    if not names:
        return
    yield Finding(
        "bad_init_symmetric",
        f"{counted(len(names), 'parameter')} ({', '.join(names[:3])}"
        f"{', ...' if len(names) > 3 else ''}) begin at zero and are multiplied by each other: the "
        "gradient of each is zero for ever, whatever the others learn",
        "draw one of them, or all, at random: nn.init.normal_(weight, std=0.1)",
        where=names,
        evidence={"layers": len(names), "values": [0.0], "stuck": True},
        confirmed=True,
        strength=EXACT,
        repairs=(
            Repair("draw the weights at random", apart(names), proof="exact",
                   setting="model.init", edit="nn.init.normal_(weight, std=weight.shape[-1] ** "
                   "-0.5) for each of them"),
        ),
    )  # fmt: skip


def confirm(facts: Facts, finding: Finding) -> Finding | None:
    """Train a little with weights drawn at random; the finding stands where they win.

    Where gradients differ units come apart in time: what they lack then is seen at the end of the
    run.
    """
    repair = finding.repair
    assert repair is not None
    assert repair.change is not None
    seen = contest(facts, repair.change)
    if seen is None:
        return None
    some = len(finding.where) < len(_matrices(facts))
    apart = some and not any(finding.evidence["values"])  # by their gradients, in time
    late = apart and (seen.plain.held < BEGUN * facts.yardstick or len(finding.where) < MANY)
    if not seen.wins() or late:
        if (apart or own_weights(facts).keys() & set(finding.where)) and not seen.lost:
            leave_open(facts, Question(finding, repair.change, rest=REST))
        return None
    return finding.but(confirmed=True, evidence={**finding.evidence, **seen.figures})


def _hiding(facts: Facts, zero: Sequence[str]) -> list[str]:
    """Return the zero layers behind which rows are all the same, up to the last layer."""
    said = facts.outputs
    last = facts.tape.source_of(said) if zero and isinstance(said, Tensor) else None
    if last is None or last.kind not in ("linear", "conv") or len(last.inputs[0]) < 2:
        return []
    given, xb = last.inputs[0].detach(), facts.batch[0]
    alike = float((given - given[:1]).abs().max()) <= EQUAL * float(given.abs().max())
    if not alike or (isinstance(xb, Tensor) and bool((xb == xb[:1]).all())):
        return []
    return [n for n in zero if n.rpartition(".")[0] != last.module]


def same_rows(facts: Facts) -> list[str]:
    """Return the weight matrices of layers whose rows are all equal."""
    held = dict(facts.exp.model.named_parameters())
    return [n for n in _matrices(facts) if _alike(facts, n, held[n].detach())]


def _alike(facts: Facts, name: str, weight: Tensor) -> bool:
    """Whether the units of a layer, or of a matrix of the user's own, have the same numbers."""
    own = own_weights(facts).get(name)
    if own is not None:
        return rows_equal(along(weight, own.units))
    return rows_equal(weight, _gates(facts, name))


def _lone(facts: Facts) -> list[str]:
    """Return the layers of one unit that weighs all its inputs alike, by more than nothing.

    Alone it does no harm. With the others it was filled with one number, and units that begin at
    random are hardly told apart by it: they are all to say the same.
    """
    return [
        n for n, p in facts.exp.model.named_parameters()
        if p.ndim == 2 and len(p) == 1 and p.shape[1] > 1 and p.requires_grad
        and type(facts.owners.get(n)) is nn.Linear and bool(p.any()) and _rows_equal(p.detach().T)
    ]  # fmt: skip


def _gates(facts: Facts, name: str) -> int:
    """Return how many gates the rows of a matrix belong to: those of one gate are units alike."""
    owner = facts.owners.get(name)
    if not name.rpartition(".")[2].startswith(("weight_ih", "weight_hh")):
        return 1  # a projection has none
    return 4 if isinstance(owner, nn.LSTM) else 3 if isinstance(owner, nn.GRU) else 1


def _matrices(facts: Facts) -> list[str]:
    own = own_weights(facts)
    return [
        n for n, p in facts.exp.model.named_parameters()
        if p.ndim > 1 and p.requires_grad and p.shape[own[n].units if n in own else 0] > 1
        and (n in own or isinstance(facts.owners.get(n), LAYERS))
    ]  # fmt: skip


def rows_equal(weight: Tensor, parts: int = 1) -> bool:
    """Whether at least half of the rows of a matrix, and of every part of it, are the first one.

    A part of one row is one unit: there is none that it could be equal to.
    """
    pieces = weight.chunk(parts)
    return all(len(part) > 1 and _rows_equal(part.flatten(1)) for part in pieces)


def _rows_equal(rows: Tensor) -> bool:
    size = float(rows.abs().max())
    return size == 0 or float(((rows - rows[0]).abs().amax(1) <= EQUAL * size).float().mean()) > 0.5


def drawn(names: Sequence[str], *, own: Mapping[str, int] | None = None) -> Change:
    """Return the change that draws the layers of some weights anew, as torch does.

    own  of them those that modules of the user's own hold: name -> inputs of a unit

    But the recurrent matrices of nets without gates are orthogonal: torch's own halve a state at
    every place, and its gradient (Saxe et al. 2014, arXiv:1312.6120; Le et al. 2015,
    arXiv:1504.00941).
    """

    def layers_of_torch(exp: Experiment) -> str:
        layers = {n.rpartition(".")[0] for n in names if n not in (own or ())}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(exp.seed)
            for name in sorted(layers):
                module = exp.model.get_submodule(name)
                assert isinstance(module, (*LAYERS, nn.Embedding))
                module.reset_parameters()
                if isinstance(module, nn.RNN):
                    for leaf, p in module.named_parameters():
                        if "weight_hh" in leaf:
                            nn.init.orthogonal_(p)
        return f"the weights of {counted(len(layers), 'layer')} are drawn at random"

    return usual(own, others=names, layers=layers_of_torch) if own else layers_of_torch


def apart(names: Sequence[str]) -> Change:
    """Return the change that draws some matrices anew with a spread of 1 / sqrt(their last size).

    A product of two such rows has that spread again, however long they are.
    """

    def change(exp: Experiment) -> str:
        held = dict(exp.model.named_parameters())
        matrices = [n for n in names if held[n].ndim > 1]
        with seeded(exp), torch.no_grad():
            for name in matrices:
                held[name].normal_(0, held[name].shape[-1] ** -0.5)
        done = "of zeros {} drawn at random"
        return counted(len(matrices), "table", one=done.format("is"), more=done.format("are"))

    return change


RULE = Rule(
    code="bad_init_symmetric",
    title="all units of a layer begin equal",
    looks="the loss stops where the best guess without looking at the input stands",
    why="equal units get equal gradients: a layer of a hundred equal units is a layer of one",
    do="draw weights at random; only biases, the last layer and the end of a residual branch may "
    "begin at zero",
    source="Goodfellow, Bengio and Courville 2016, section 8.4 (breaking symmetry)",
    before=before,
    confirm=confirm,
    passes=160,
    causes=(*DYNAMICS, "bad_init_scale", "missing_nonlinearity"),
)
