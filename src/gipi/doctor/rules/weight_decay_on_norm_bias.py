"""Weight decay pulls the scales of norms, and biases, towards zero."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from gipi.doctor.finding import Finding, Repair
from gipi.doctor.rule import Rule

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gipi.doctor.experiment import Experiment
    from gipi.doctor.facts import Facts

SHRINK = 0.05
"""Share by which decay alone would shrink a scale over the run, from which it is mentioned."""
LASTING, USUAL = 10.0, 1e-3
"""Times as far as by one step that momentum carries its decay, at most; and the decay above which
that is counted: up to it well-known recipes for pictures decay all they have."""
STRONG, LITTLE = 0.1, 0.02
"""A decay from which a smaller share is mentioned too."""
COUPLED = 0.01
"""Decay from which it is mentioned where it goes through Adam's division."""
DIVIDES = (torch.optim.Adam, torch.optim.NAdam, torch.optim.RAdam, torch.optim.RMSprop,
           torch.optim.Adamax, torch.optim.Adagrad)  # fmt: skip


def before(facts: Facts) -> Iterator[Finding]:
    """Yield a hint where scales of norms are decayed by more than next to nothing."""
    exp = facts.exp
    names = {id(p): n for n, p in exp.model.named_parameters()}
    norms = _scales(exp.model)
    hit: list[str] = []
    strongest = 0.0
    for group in exp.optimizer.param_groups:
        decay = float(group.get("weight_decay", 0.0) or 0.0)
        rate = max(float(group["lr"]), float(group.get("initial_lr", 0.0)))
        further = min(LASTING, 1 / max(1e-6, 1 - float(group.get("momentum", 0.0) or 0.0)))
        further = further if decay > USUAL else 1.0
        shrink = 1 - math.exp(-min(50.0, rate * decay * exp.total_steps * further))
        coupled = isinstance(exp.optimizer, DIVIDES) and not group.get("decoupled_weight_decay")
        strong = shrink >= SHRINK or (decay >= STRONG and shrink >= LITTLE)
        if not strong and not (coupled and decay >= COUPLED):
            continue
        found = [names[id(p)] for p in group["params"] if id(p) in norms and id(p) in names]
        if found:
            hit += found
            strongest = max(strongest, decay)
    if not hit:
        return
    yield Finding(
        "weight_decay_on_norm_bias",
        f"weight decay {strongest:.3g} also holds for {len(hit)} scales and shifts of norms "
        f"({', '.join(hit[:3])}{', ...' if len(hit) > 3 else ''})",
        "decay weight matrices only: put norms and biases into a group with weight_decay=0",
        severity="hint",
        where=tuple(hit),
        evidence={"weight_decay": strongest, "parameters": len(hit)},
        confirmed=True,
        repairs=(
            Repair("two groups of parameters", split_groups, proof="not worse",
                   edit="Optimizer([{'params': matrices}, {'params': norms_and_biases, "
                   "'weight_decay': 0.0}], ...)"),
        ),
    )  # fmt: skip


def _scales(model: nn.Module) -> set[int]:
    """Return the ids of what scales and shifts: of norms by name, and what begins as ones alone.

    No other vector begins so: with a scale of a norm that somebody wrote, or calls as a function,
    goes every vector of the same module that is as long.
    """
    found: set[int] = set()
    for module in model.modules():
        held = [p for p in module.parameters(recurse=False)
                if not is_lazy(p) and p.ndim == 1 and p.numel() > 1]  # fmt: skip
        ones = {len(p) for p in held if bool((p.detach() == 1).all())}
        named = "Norm" in type(module).__name__
        found |= {id(p) for p in held if named or len(p) in ones}
    return found


def split_groups(exp: Experiment) -> str:
    """Move parameters of one dimension into groups without decay."""
    more: list[dict[str, Any]] = []
    moved = 0
    for group in exp.optimizer.param_groups:
        flat = [p for p in group["params"] if p.ndim <= 1]
        if not flat or not group.get("weight_decay"):
            continue
        moved += len(flat)
        group["params"] = [p for p in group["params"] if p.ndim > 1]
        options = {k: v for k, v in group.items() if k != "params"}
        more.append({**options, "params": flat, "weight_decay": 0.0})
    exp.optimizer.param_groups.extend(more)
    if exp.scheduler is not None:
        for key in ("base_lrs", "lr_lambdas", "max_lrs", "min_lrs", "_last_lr"):
            held = getattr(exp.scheduler, key, None)
            if isinstance(held, list) and held:
                held.extend(held[-1:] * len(more))
    return f"{moved} norms and biases are not decayed"


RULE = Rule(
    code="weight_decay_on_norm_bias",
    title="weight decay on norms and biases",
    looks="scales of norm layers shrink over the run; a little is lost at the end",
    why="decay makes functions smoother by smaller matrices. A norm's scale and a bias hold no "
    "such complexity: pulling them to zero only moves what the net can say",
    do="make two groups of parameters, the second without decay",
    source="Loshchilov and Hutter 2019, arXiv:1711.05101; He et al. 2019, arXiv:1812.01187, 3.1",
    before=before,
)
