"""First weights are so large or so small that signals grow or die on their way."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from torch import Tensor, nn

from gipi.doctor.beside import besides, neutral
from gipi.doctor.contest import contest
from gipi.doctor.finding import Finding, Repair
from gipi.doctor.late import MOST, REST, Question, leave_open
from gipi.doctor.own_weights import own_weights, usual
from gipi.doctor.reinit import renew
from gipi.doctor.rule import DYNAMICS, EXACT, Rule
from gipi.doctor.rules.bad_init_symmetric import LAYERS, drawn, same_rows
from gipi.doctor.spoken import counted
from gipi.doctor.tape import NORMS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from gipi.doctor.experiment import Experiment
    from gipi.doctor.facts import Facts

LOW, HIGH = 0.05, 2.5
"""RMS of a weight times sqrt(inputs); 0.58 is torch's own, 1 Glorot's and orthogonal, 1.41 He's."""
USUAL = 3**-0.5
"""What torch's own draw has."""
NORMED = 0.005
"""The lower bound where norms stand between layers: there small branches are a matter of taste."""

EMBEDDED = 0.004, 4.0
"""RMS of embeddings: 1 is torch's own, 0.02 that of language models."""
KEEPS = 0.3, 2.0
"""Spread of a layer's outputs that is as it should be, whatever its weights are."""
LOUD, QUIET = 10.0, 0.02
WORSE = 3.0
"""Times the loss of a blind guess."""
SAME = 1e-3


def before(facts: Facts) -> Iterator[Finding]:
    """Suspect layers whose gain is far from 1 before the first step."""
    low = NORMED if facts.tape.of(NORMS) else LOW
    gains = _layers(facts, low)
    own = {n: g for n, g in _own(facts, low).items() if n not in gains}
    own = own or ({} if gains else _tables(facts))
    beside = besides(facts, _ends(facts))
    gains |= own | {n: g for n, g in beside.items() if n not in gains}
    if not gains:
        yield from _together(facts, low)
        return
    worst = max(gains, key=lambda n: abs(math.log(gains[n])))
    names = tuple(gains)
    does = "multiplies" if gains[worst] > 1 else "shrinks"
    does = "adds" if beside.get(worst) and worst.rpartition(".")[2].startswith("bias") else does
    to = "to what comes in about" if does == "adds" else "what comes in by about"
    yield Finding(
        "bad_init_scale",
        f"{counted(len(names), 'layer', one='begins', more='begin')} with weights far from "
        f"the usual size: '{worst}' {does} {to} "
        f"{gains[worst]:.3g}; the loss before the first step is {facts.first_loss:.4g}",
        "draw weights with a spread of about 1 / sqrt(inputs): "
        + ("torch.randn(inputs, outputs) / inputs**0.5" if own else "layer.reset_parameters()"),
        where=names,
        evidence={"gain": {n: gains[n] for n in names[:32]}, "first_loss": facts.first_loss}
        | ({"own": len(own) + len(beside)} if own or beside else {}),
        strength=EXACT / 2,
        repairs=(_sized(facts, own, beside, names),) if own or beside else _repairs(names),
    )


def _layers(facts: Facts, low: float) -> dict[str, float]:
    """Return the gains of torch's layers that are far from 1."""
    tied = _shared(facts)
    equal = set(same_rows(facts))
    called = facts.tape.of({"linear", "conv"})
    spread = {op.module: op.output for op in reversed(called)}
    if called and facts.first_loss > WORSE * facts.blind_loss > 0:
        spread.pop(called[-1].module)  # the targets say what its outputs should be, and no norm
    gains: dict[str, float] = {}
    for name, p in facts.exp.model.named_parameters():
        owner = facts.owners.get(name)
        if p.ndim < 2 or not p.requires_grad or not isinstance(owner, (*LAYERS, nn.Embedding)):
            continue
        if id(p) in tied or name in equal:
            continue
        gain = gain_of(p.detach(), owner)
        if isinstance(owner, nn.Embedding) and EMBEDDED[0] <= gain <= EMBEDDED[1]:
            continue
        if gain > 0 and not low <= gain <= HIGH and not _keeps_size(spread.get(_module(name))):
            gains[name] = gain
    return gains


def _own(facts: Facts, low: float) -> dict[str, float]:
    """Return the gains of matrices that modules of the user's own multiply by.

    Nobody knows what such a parameter is for: large ones are looked at only where the first outputs
    are far larger than what they should say.
    """
    held = dict(facts.exp.model.named_parameters())
    equal = set(same_rows(facts))
    loud = _shouts(facts)
    gains: dict[str, float] = {}
    for name, own in own_weights(facts).items():
        gain = own.gain(held[name])
        wrong = gain > HIGH if loud else 0 < gain < low
        if wrong and name not in equal and not any(_keeps_size(op.output) for op in own.calls):
            gains[name] = gain
    return gains


def _tables(facts: Facts) -> dict[str, float]:
    """Return the gains of embeddings where the first outputs are far too large.

    Rows that are multiplied by rows, or by what a net says, are weights of as many inputs as they
    have numbers: torch's own spread of 1 is far too large there.
    """
    if not _shouts(facts):
        return {}
    gains = {n: gain_of(p.detach(), facts.owners[n]) * p.shape[-1] ** 0.5
             for n, p in facts.exp.model.named_parameters()
             if p.requires_grad and isinstance(facts.owners.get(n), nn.Embedding)}  # fmt: skip
    return {n: g for n, g in gains.items() if g > HIGH}


def _ends(facts: Facts) -> set[str]:
    """Return the modules that make the outputs: what they add is for the targets to say.

    Not where the loss is far above that of a blind guess, which says that it is none of that.
    """
    if facts.first_loss > WORSE * facts.blind_loss > 0:
        return set()
    called = facts.tape.of({"linear", "conv", "matmul"})
    return {called[-1].module} if called else set()


def _shouts(facts: Facts) -> bool:
    """Whether the first outputs spread far more than the targets, or than scores of classes do."""
    said, y = facts.outputs, facts.batch[1]
    if not facts.first_loss > WORSE * facts.blind_loss > 0:
        return False
    if not isinstance(said, Tensor) or not isinstance(y, Tensor) or said.numel() < 2:
        return False
    usual_size = float(y.double().std()) if y.is_floating_point() and y.numel() > 1 else 1.0
    return float(said.detach().double().std()) > HIGH * max(usual_size, 1e-12)


def _sized(
    facts: Facts, own: Mapping[str, float], beside: Mapping[str, float], names: tuple[str, ...]
) -> Repair:
    """Return the repair that divides matrices by their gain, and draws torch's own layers anew."""
    known, held = own_weights(facts), dict(facts.exp.model.named_parameters())
    inputs = {n: known[n].inputs if n in known else held[n].shape[-1] for n in own}
    others = tuple(n for n in names if n not in own and n not in beside)

    def change(exp: Experiment) -> str:
        neutral(exp, beside)
        return usual(inputs, others=(*others, *beside), layers=drawn(others))(exp)

    edit = ("nn.Parameter(torch.randn(inputs, outputs) / inputs**0.5) for every matrix that inputs "
            "are multiplied by" if own else "biases 0, weights of norms 1")  # fmt: skip
    return Repair("give the weights the usual size", change, setting="model.init", edit=edit)


def _repairs(names: tuple[str, ...]) -> tuple[Repair, Repair]:
    return (
        Repair("draw the weights anew", drawn(names), setting="model.init",
               edit="for m in model.modules(): m.reset_parameters()"),
        Repair("draw them anew, scaled by what passes through", renew, setting="model.init",
               edit="nn.init.orthogonal_(layer.weight, gain) for every layer, so that its "
               "outputs have standard deviation 1 (LSUV)"),
    )  # fmt: skip


def _together(facts: Facts, low: float) -> Iterator[Finding]:
    """Suspect layers each of which is a little small, and behind which next to nothing is left.

    Sizes are multiplied on the way: what a layer of `LOW` does, six of 0.3 do as well. They are
    held against torch's own draw, with which a deep net begins quiet too. Rows that are all equal
    may begin as a mean of what comes in, and nobody knows how a module of the user's own is drawn.
    """
    model = facts.exp.model
    called = {op.module: op for op in facts.tape.of({"linear", "conv"}) if len(op.output) > 1}
    gains, equal = {}, set(same_rows(facts))
    for module in called:
        layer, name = model.get_submodule(module), f"{module}.weight"
        weight = getattr(layer, "weight", None)
        if not isinstance(layer, LAYERS) or not isinstance(weight, nn.Parameter):
            continue
        if weight.requires_grad and name not in equal:
            gains[name] = gain_of(weight.detach(), layer)
    total = math.prod(g / USUAL for g in gains.values())
    if low != LOW or len(gains) < 2 or not 0 < total < LOW / USUAL:
        return
    *_, hidden, _ = called.values()
    left = float(hidden.output.detach().float().std(0).mean())
    if left >= LOW:
        return
    yield Finding(
        "bad_init_scale",
        f"{len(gains)} layers together shrink what comes in: their weights begin at "
        f"{total:.2g} times the usual size, multiplied, and the last layer but one says almost "
        f"the same of all rows (a spread of {left:.2g})",
        "draw weights with a spread of about 1 / sqrt(inputs): layer.reset_parameters()",
        where=tuple(gains),
        evidence={"gain": dict(list(gains.items())[:32]), "together": total, "spread": left},
        strength=EXACT / 2,
        repairs=_repairs(tuple(gains))[:1],  # it is the one that the end of the run is asked of
    )


def confirm(facts: Facts, finding: Finding) -> Finding | None:
    """Train a little with weights of the usual size; the finding stands where they win.

    Where the net begins far worse than a blind guess, or says the same of all rows, it stands
    unless they lose. Layers that are too small only together are left to the end of the run.
    """
    change = finding.repairs[0].change
    assert change is not None
    seen = contest(facts, change)
    if seen is None:
        return None
    if "together" in finding.evidence:
        if seen.wins() or not seen.begun:  # a run may make up for it: its end decides
            leave_open(facts, Question(finding, change))
        return None
    # What a matrix of the user's own is for is not known: only winning shows that it is too large.
    plain = "own" not in finding.evidence and is_plain(facts, finding.evidence["gain"])
    if not seen.wins() and (seen.lost or not plain):
        # Large weights learn fast, and by heart: rows never seen pay for it at the end of the run.
        # Only as many steps tell that from having trained for longer.
        loud = max(finding.evidence["gain"].values()) > HIGH
        if not seen.begun or (loud and facts.exp.total_steps <= MOST):
            leave_open(facts, Question(finding, change, rest=REST))
        return None
    return finding.but(confirmed=True, evidence={**finding.evidence, **seen.figures})


def is_plain(facts: Facts, gains: Mapping[str, float]) -> bool:
    """Whether the first outputs themselves show it: far too large, or all the same."""
    loud = max(gains.values()) > LOUD
    if loud and facts.first_loss > WORSE * facts.blind_loss > 0:
        return True
    said = facts.outputs
    quiet = sum(g < QUIET for g in gains.values()) > 1
    return quiet and isinstance(said, Tensor) and float(said.float().std(0).max()) < SAME


def gain_of(weight: Tensor, layer: nn.Module) -> float:
    """Return RMS of the weights times sqrt(inputs of a unit)."""
    if isinstance(layer, nn.Embedding):
        return float(weight.float().square().mean().sqrt())
    inputs = layer.hidden_size if isinstance(layer, nn.RNNBase) else weight[0].numel()
    if isinstance(layer, nn.modules.conv._ConvTransposeNd):  # noqa: SLF001  its inputs come first
        inputs = weight.shape[0] * weight[0, 0].numel() // layer.groups
    return float(weight.float().square().mean().sqrt()) * math.sqrt(max(1, inputs))


def _module(name: str) -> str:
    return name.rpartition(".")[0]


def _keeps_size(said: Tensor | None) -> bool:
    """Whether what leaves a layer has about unit size: its weights make up for what comes in."""
    if said is None or said.numel() < 2:
        return False
    return KEEPS[0] <= float(said.detach().float().std()) <= KEEPS[1]


def _shared(facts: Facts) -> set[int]:
    """Return ids of parameters that stand in two places, as those of tied embeddings."""
    seen: set[int] = set()
    twice: set[int] = set()
    for module in facts.exp.model.modules():
        for p in module.parameters(recurse=False):
            if id(p) in seen or isinstance(module, nn.EmbeddingBag):
                twice.add(id(p))
            seen.add(id(p))
    return twice


RULE = Rule(
    code="bad_init_scale",
    title="first weights are too large or too small",
    looks="the loss begins far above that of a blind guess, or hardly moves",
    why="every layer multiplies the spread of what comes in by about sqrt(inputs) times the size "
    "of its weights; over some layers that grows or dies, and gradients with it",
    do="draw weights by the rule of the activation: He for ReLU, Glorot for tanh",
    source="Glorot and Bengio 2010; He et al. 2015, arXiv:1502.01852; Mishkin and Matas 2016, "
    "arXiv:1511.06422",
    before=before,
    confirm=confirm,
    passes=160,
    causes=(*DYNAMICS, "bn_stats_mismatch"),
)
