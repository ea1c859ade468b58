"""Linear layers in a row, which are one linear layer."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from torch import Tensor, nn

from gipi.doctor.contest import contest, length
from gipi.doctor.finding import CannotRepair, Change, Finding, Repair
from gipi.doctor.rewire import replace_module
from gipi.doctor.rule import Rule
from gipi.doctor.spoken import counted
from gipi.doctor.tape import ACTIVATIONS, VIEWS, same_numbers

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from gipi.doctor.experiment import Experiment
    from gipi.doctor.facts import Facts
    from gipi.doctor.tape import Op

BESIDE = VIEWS | {"dropout", "mean", "batch_norm"}
"""Calls between two layers that leave the whole linear (a mean pool, a norm in use)."""
AT_ONCE = BESIDE - {"mean"}
"""The same without a pool: many nets end their places, and begin the whole, with a linear layer."""
CONVS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
WINS = 0.9
LONG = 80
"""Steps of the second contest, by Adam: the run's own steps may be too short to tell."""


def before(facts: Facts) -> Iterator[Finding]:
    """Suspect layers whose input is the output of another layer, with nothing in between.

    What a residual stream of a net that bends begins with is to go past its branches as it is.
    """
    pairs = in_a_row(facts)
    if _bends(facts):
        pairs = [p for p in pairs if not _goes_elsewhere(facts, p[0], only=frozenset({"add"}))]
    if not pairs:
        return
    names = _names(pairs)
    yield Finding(
        "missing_nonlinearity",
        _message(pairs),
        "put an activation between them, such as ReLU",
        where=names,
        evidence={"pairs": _told(pairs)},
        strength=5.0,
        repairs=_repairs(names),
    )  # fmt: skip


def _names(pairs: list[tuple[Op, Op]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(a.module for a, _ in pairs))


def _repairs(names: tuple[str, ...]) -> tuple[Repair, ...]:
    edit = f"nn.ReLU() behind '{names[0]}'"
    return (Repair("ReLU between them", activated(names), mode="ask", edit=edit),)


def _told(pairs: list[tuple[Op, Op]]) -> list[str]:
    return [f"{a.place} -> {b.place}" for a, b in pairs[:16]]


def _message(pairs: list[tuple[Op, Op]]) -> str:
    return (
        f"{counted(len(pairs), 'layer', one='takes', more='take')} the output of a linear layer as "
        "it is ("
        f"{', '.join(_told(pairs)[:3])}): two linear layers in a row are one"
    )


def confirm(facts: Facts, finding: Finding) -> Finding | None:
    """Train a little with ReLUs between the layers; where they do not win it is a hint.

    It is one too where no training can be afforded, but for pairs that no single layer could stand
    in the place of: of them nothing is known then.
    """
    tried = asked = False
    for adam in (False, True):
        steps = LONG if adam else length(facts.exp)
        if facts.passes + 2 * steps > facts.allowed:
            break
        tried = True
        seen = contest(facts, activated(finding.where), adam=adam, steps=steps)
        if seen is not None and seen.wins(WINS):
            return finding.but(confirmed=True, evidence={**finding.evidence, **seen.figures})
        asked = asked or seen is not None
    pairs = [p for p in in_a_row(facts, beside=AT_ONCE) if not _goes_elsewhere(facts, p[0])]
    if not pairs or (tried and not asked):
        return None
    said = "; a short training with ReLUs between them was no better, so that one layer in their "
    return replace(
        finding,
        severity="hint",
        message=_message(pairs) + (f"{said}place would do" if asked else ""),
        advice="put one layer in their place, or an activation between them where the net is to "
        "say more than a linear one",
        where=_names(pairs),
        evidence={**finding.evidence, "pairs": _told(pairs)},
        repairs=_repairs(_names(pairs)),
    )


def cost(_: Facts, __: Finding) -> int:
    """Return no passes: how many trainings can be afforded is seen when they are made."""
    return 0


def in_a_row(facts: Facts, *, beside: frozenset[str] | set[str] = BESIDE) -> list[tuple[Op, Op]]:
    """Return pairs of layers (modules) of which the second takes what the first gives.

    beside  calls that may stand between the two

    A narrow layer between wide ones is a bottleneck, and what comes before a layer that is tied to
    an embedding turns to the embedding's space: neither is counted.
    """
    tied = {id(m.weight) for m in facts.exp.model.modules() if isinstance(m, nn.Embedding)}
    layers = [op for op in facts.tape.of({"linear", "conv"}) if _is_layer(facts, op)]
    found = []
    for op in layers:
        before_it = _source(facts, op, beside)
        if before_it is None or before_it.kind not in ("linear", "conv"):
            continue
        if not _is_layer(facts, before_it) or _is_bottleneck(facts, before_it, op):
            continue
        if id(facts.exp.model.get_submodule(op.module).weight) in tied:
            continue
        found.append((before_it, op))
    return found


def _bends(facts: Facts) -> bool:
    """Whether an activation stands in the net, but for one that makes its outputs."""
    said = facts.outputs
    last = facts.tape.source_of(said) if isinstance(said, Tensor) else None
    return any(op is not last for op in facts.tape.of(ACTIVATIONS))


def _goes_elsewhere(facts: Facts, layer: Op, *, only: frozenset[str] | None = None) -> bool:
    """Whether something else than a layer takes a layer's output too, as a residual stream does.

    No layer could then stand in the place of both.

    only  the kinds of calls that count; None: all of them
    """
    made, ops = [layer.output], facts.tape.ops
    for op in ops[1 + next(i for i, other in enumerate(ops) if other is layer) :]:
        if any(same_numbers(value, given) for value in made for given in op.inputs):
            if op.kind in BESIDE:
                made.append(op.output)
            elif op.kind in only if only is not None else op.kind not in ("linear", "conv"):
                return True
    return False


def _is_layer(facts: Facts, op: Op) -> bool:
    if not op.module or not op.inputs:
        return False
    module = facts.exp.model.get_submodule(op.module)
    if isinstance(module, CONVS):
        return module.groups == 1
    return isinstance(module, nn.Linear)


def _is_bottleneck(facts: Facts, one: Op, other: Op) -> bool:
    """Whether what passes between the layers is narrower than what comes in and what goes out."""
    model = facts.exp.model
    a, b = model.get_submodule(one.module), model.get_submodule(other.module)
    if isinstance(a, nn.Linear) and isinstance(b, nn.Linear):
        return a.out_features < min(a.in_features, b.out_features)
    if isinstance(a, CONVS) and isinstance(b, CONVS):
        return a.out_channels < min(a.in_channels, b.out_channels)
    return False


def _source(facts: Facts, layer: Op, beside: frozenset[str] | set[str]) -> Op | None:
    """Return the call that a layer's input comes from, through what leaves it linear."""
    op: Op | None = layer
    for _ in range(8):
        assert op is not None
        op = facts.tape.source_of(op.inputs[0], before=op)
        if op is None or op.kind not in beside or not op.inputs:
            return op
    return None


def activated(names: Sequence[str]) -> Change:
    """Return the change that puts a ReLU behind some layers."""

    def change(exp: Experiment) -> str:
        done = []
        for name in names:
            layer = exp.model.get_submodule(name)
            if isinstance(layer, (nn.Linear, *CONVS)):
                replace_module(exp.model, name, by=nn.Sequential(layer, nn.ReLU()))
                done.append(name)
        if not done:
            message = "the layers are not modules of the model"
            raise CannotRepair(message)
        return f"a ReLU stands behind {', '.join(done)}"

    return change


RULE = Rule(
    code="missing_nonlinearity",
    title="linear layers in a row",
    looks="a deep net that does no better than a linear model",
    why="a linear function of a linear function is linear: depth adds weights and nothing that "
    "could not be said without",
    do="put an activation between layers",
    source="Goodfellow, Bengio and Courville 2016, section 6.1 (learning XOR)",
    before=before,
    confirm=confirm,
    passes=4 * LONG,
    cost=cost,
    causes=("underfit", "plateau"),
)
