"""Weights that do not ask for a gradient, though nothing was learned into them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gipi.doctor.finding import Change, Finding, Repair
from gipi.doctor.knowledge import PASSES, judged_still, matrices, tables_as_drawn
from gipi.doctor.reach import matter
from gipi.doctor.rule import DYNAMICS, EXACT, Rule
from gipi.doctor.spoken import counted

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import nn

    from gipi.doctor.experiment import Experiment
    from gipi.doctor.facts import Facts


def before(facts: Facts) -> Iterator[Finding]:
    """Suspect layers whose weights do not ask for gradients, were not declared and do not move."""
    held = dict(facts.exp.model.named_parameters())
    resting = [n for n, p in held.items() if not p.requires_grad and p.is_floating_point()]
    frozen = [n for n in resting if not facts.meant_to_stay(n)]
    if not frozen:
        return
    if not any(p.requires_grad for p in held.values()):
        yield _finding(facts, frozen, "every weight of the model").but(confirmed=True)
        return
    layers = matrices(facts, [n for n in frozen if facts.still(n)])
    if layers and matter(facts, layers):
        # An embedding alone may be meant to stay; one that nothing was learned into, beside layers
        # that were not meant to, was frozen with them.
        tables = tables_as_drawn(facts, [n for n in frozen if facts.still(n)])
        beside = {n.rpartition(".")[0] for n in (*layers, *tables)}
        yield _finding(facts, [n for n in frozen if n.rpartition(".")[0] in beside],
                       f"{len(layers)} of the model's weight matrices")  # fmt: skip


def _finding(facts: Facts, names: Sequence[str], what: str) -> Finding:
    count = sum(p.numel() for n, p in facts.exp.model.named_parameters() if n in set(names))
    return Finding(
        "frozen_layer",
        f"{what} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''}; {count} numbers) "
        "have requires_grad=False, and what they hold was not learned",
        "set requires_grad=True, or declare the freeze: declared={'frozen': ['"
        f"{names[0]}']}}",
        where=tuple(names),
        evidence={"parameters": count},
        strength=EXACT,
        repairs=(
            Repair("let them learn", unfreeze(tuple(names)), proof="not worse",
                   edit="for p in layer.parameters(): p.requires_grad_(True), "
                   "before the optimizer is made"),
        ),
    )  # fmt: skip


def unfreeze(names: Sequence[str]) -> Change:
    """Return the change that lets parameters ask for gradients and gives them to the optimizer."""

    def change(exp: Experiment) -> str:
        for name, p in exp.model.named_parameters():
            if name in names:
                p.requires_grad = True
        join(exp, names)
        return f"{counted(len(names), 'parameter', one='learns', more='learn')}, from {names[0]} on"

    return change


def join(exp: Experiment, names: Sequence[str]) -> None:
    """Give the optimizer parameters that it does not have, in its first group."""
    known = {id(p) for g in exp.optimizer.param_groups for p in g["params"]}
    fresh: list[nn.Parameter] = [
        p for n, p in exp.model.named_parameters() if n in names and id(p) not in known
    ]
    exp.optimizer.param_groups[0]["params"].extend(fresh)


RULE = Rule(
    code="frozen_layer",
    title="a layer does not learn",
    looks="the loss stops early; some weights are the same after training as before",
    why="weights with requires_grad=False stay as they were made. Where that was random, what "
    "stands behind them has to make do with random features",
    do="unfreeze them, or say that they are meant to stay",
    source="Yosinski et al. 2014, arXiv:1411.1792 (what frozen features are worth)",
    before=before,
    confirm=judged_still,
    passes=PASSES,
    causes=(*DYNAMICS, "params_not_in_optimizer"),
)
