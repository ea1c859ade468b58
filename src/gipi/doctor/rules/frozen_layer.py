"""Weights that do not ask for a gradient, though nothing was learned into them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gipi.doctor.contest import contest, length
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

AHEAD = 0.95
"""Loss of held rows, of that without, up to which random vectors of words are worth learning: a
short trial shows little of what they cost in the end."""


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
    still = [n for n in frozen if facts.still(n)]
    layers, tables = matrices(facts, still), tables_as_drawn(facts, still)
    if layers and matter(facts, layers):
        # An embedding that nothing was learned into, beside layers that were not meant to stay, was
        # frozen with them; alone it may be meant to, and is asked what it costs.
        beside = {n.rpartition(".")[0] for n in (*layers, *tables)}
        yield _finding(facts, [n for n in frozen if n.rpartition(".")[0] in beside],
                       f"{len(layers)} of the model's weight matrices")  # fmt: skip
    elif (tables := [n for n in tables if _reads_rows(facts, n)]) and matter(facts, tables):
        yield _finding(facts, tables, f"the vectors of {counted(len(tables), 'embedding')}")


def confirm(facts: Facts, finding: Finding) -> Finding | None:
    """Ask what matrices know; of an embedding alone, whether learning it helps."""
    if matrices(facts, finding.where):
        return judged_still(facts, finding)
    found = contest(facts, unfreeze(finding.where))
    if found is None or not found.wins(AHEAD):
        return None
    return finding.but(confirmed=True, evidence={**finding.evidence, **found.figures})


def _reads_rows(facts: Facts, name: str) -> bool:
    """Whether an embedding looks up what differs between rows, and no places that all have."""
    weight = dict(facts.exp.model.named_parameters())[name]
    for op in facts.tape.of({"embedding"}):
        ids = next((t for t in op.inputs if not t.is_floating_point()), None)
        read = any(t.data_ptr() == weight.data_ptr() for t in op.inputs if t.shape == weight.shape)
        if read and ids is not None and ids.ndim and len(ids) == len(facts.batch[1]):
            return bool((ids != ids[:1]).any())
    return False


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


def cost(facts: Facts, finding: Finding) -> int:
    """Return the passes of `confirm`: both sides of a contest where embeddings are asked about."""
    return PASSES if matrices(facts, finding.where) else 2 * length(facts.exp)


RULE = Rule(
    code="frozen_layer",
    title="a layer does not learn",
    looks="the loss stops early; some weights are the same after training as before",
    why="weights with requires_grad=False stay as they were made. Where that was random, what "
    "stands behind them has to make do with random features",
    do="unfreeze them, or say that they are meant to stay",
    source="Yosinski et al. 2014, arXiv:1411.1792 (what frozen features are worth)",
    before=before,
    confirm=confirm,
    passes=PASSES,
    cost=cost,
    causes=(*DYNAMICS, "params_not_in_optimizer"),
)
