"""Layers that the forward pass never uses."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from gipi.doctor.finding import Change, Finding, Repair
from gipi.doctor.knowledge import matrices
from gipi.doctor.reach import unreached
from gipi.doctor.rule import EXACT, Rule
from gipi.doctor.spoken import counted

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from gipi.doctor.experiment import Experiment
    from gipi.doctor.facts import Facts


def before(facts: Facts) -> Iterator[Finding]:
    """Yield layers on which the loss does not depend; a hint where the step may use them."""
    held = dict(facts.exp.model.named_parameters())
    unused = set(unreached(facts).unused)
    used = [n for n in held if n not in unused]
    names = [n for n in held if n in unused and not in_turns(facts.exp.model, n, used=used)]
    if not names:
        return
    count = sum(held[n].numel() for n in names)
    sure = bool(matrices(facts, names)) and facts.exp.step is None
    yield Finding(
        "unused_parameters",
        f"{counted(len(names), 'parameter')} ({', '.join(names[:3])}"
        f"{', ...' if len(names) > 3 else ''}; "
        f"{count} numbers) {'is' if len(names) == 1 else 'are'} never used: the loss is the "
        f"same whatever {'it holds' if len(names) == 1 else 'they hold'}",
        "call the layer in forward, or delete it",
        severity="problem" if sure else "hint",
        where=tuple(names),
        evidence={"parameters": count},
        confirmed=True,
        strength=EXACT / 2,
        repairs=(
            # Which of the two is meant only its author knows; leaving it out cures nothing where
            # a line of forward was forgotten.
            Repair("leave them out of training", leave_out(tuple(names)), mode="ask",
                   proof="exact", edit="call the layer in forward, or delete it from __init__"),
        ),
    )  # fmt: skip


def in_turns(model: nn.Module, name: str, *, used: Sequence[str]) -> bool:
    """Whether a layer stands in a list of layers of which this pass used others."""
    parts = name.split(".")
    for i in range(len(parts) - 1):
        above = ".".join(parts[:i])
        if isinstance(model.get_submodule(above), (nn.ModuleList, nn.ModuleDict)):
            return any(n.startswith(f"{above}." if above else "") for n in used)
    return False


def leave_out(names: Sequence[str]) -> Change:
    """Return the change that takes parameters out of the optimizer and out of training."""

    def change(exp: Experiment) -> str:
        gone = set()
        for name, p in exp.model.named_parameters():
            if name in names:
                p.requires_grad = False
                gone.add(id(p))
        for group in exp.optimizer.param_groups:
            group["params"] = [p for p in group["params"] if id(p) not in gone]
        for held in [t for t in exp.optimizer.state if id(t) in gone]:
            del exp.optimizer.state[held]
        return f"{len(names)} unused parameters are not trained"

    return change


RULE = Rule(
    code="unused_parameters",
    title="a layer is made and never used",
    looks="weights that are the same after training as before; the net is smaller than it seems",
    why="what forward does not call cannot learn: often a line was forgotten, or the output of "
    "another layer was used in its place",
    do="call the layer, or delete it",
    source="PyTorch documentation, DistributedDataParallel (find_unused_parameters)",
    before=before,
)
