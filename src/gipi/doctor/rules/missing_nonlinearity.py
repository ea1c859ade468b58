"""Layers without anything between them: together they are one linear layer."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from gipi.doctor.copies import untouched
from gipi.doctor.experiment import call, some_rows
from gipi.doctor.finding import CannotRepair, Finding, Repair
from gipi.doctor.probes import compared, horizon, loss_on
from gipi.doctor.reinit import LAYERS
from gipi.doctor.rule import Rule

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gipi.doctor.experiment import Experiment
    from gipi.doctor.facts import Facts

ROWS = 32
CLOSE = 1e-3
MISSED = 0.2


def before(facts: Facts) -> Iterator[Finding]:
    """Suspect a net of several layers whose outputs are a linear function of its inputs."""
    layers = [op for op in facts.tape.of({"linear", "conv"}) if op.module]
    xb = facts.batch[0]
    if len({op.module for op in layers}) < 2 or facts.kind == "reconstruct":
        return
    if not isinstance(xb, Tensor) or not xb.is_floating_point() or len(xb) < 4:
        return
    if not is_linear(facts, xb):
        return
    names = tuple(dict.fromkeys(op.module for op in layers))
    yield Finding(
        "missing_nonlinearity",
        f"the {len(names)} layers {', '.join(names[:5])} have no activation between them: outputs "
        "are a linear function of the inputs, as those of one layer would be",
        "put an activation, such as nn.ReLU(), between the layers",
        where=names,
        evidence={"layers": len(names)},
        repairs=(
            Repair("ReLU between the layers", with_relu, mode="ask",
                   edit="nn.ReLU() after every layer but the last"),
        ),
    )  # fmt: skip


def is_linear(facts: Facts, xb: Tensor) -> bool:
    """Whether f(a + b) - f(a) - f(b) + f(0) is zero for rows a, b: one pass in evaluation mode."""
    half = min(ROWS, len(xb) // 2)
    a, b = xb[:half], xb[half : 2 * half]
    facts.passes += 1
    with untouched(facts.exp), torch.no_grad():
        facts.exp.model.eval()
        said = call(facts.exp.model, torch.cat([a, b, a + b, torch.zeros_like(a[:1])]))
    if not isinstance(said, Tensor) or len(said) != 3 * half + 1:
        return False
    said = said.double()
    fa, fb, fab, f0 = said[:half], said[half : 2 * half], said[2 * half : 3 * half], said[-1:]
    size = float((fa - f0).abs().max() + (fb - f0).abs().max())
    return size > 0 and float((fab - fa - fb + f0).abs().max()) < CLOSE * size


def confirm(facts: Facts, finding: Finding) -> Finding | None:
    """Train a little as it is and with ReLU between the layers: a bend must be needed."""
    exp = facts.exp
    steps = horizon(exp, 0.4, low=60, high=200)
    rows = some_rows(exp.val if exp.val is not None else exp.train, 512, exp.device)
    try:
        trial = compared(exp, {"own": None, "relu": with_relu}, steps=steps)
    except CannotRepair:
        return finding.but(severity="hint")
    facts.passes += 2 * steps
    if trial.missed("own", "relu") < MISSED or not trial.sure("own", "relu"):
        return None
    if rows is not None:
        own, other = (loss_on(trial.twins[n], *rows) for n in ("own", "relu"))
        if not math.isfinite(other) or other > own:
            return None
    return finding.but(
        confirmed=True,
        evidence={**finding.evidence, "loss_as_is": trial.end("own"),
                  "loss_with_relu": trial.end("relu")},
    )  # fmt: skip


def with_relu(exp: Experiment) -> str:
    """Put a ReLU after every layer but the last, wherever it stands."""
    order: list[nn.Module] = []
    layers = [m for m in exp.model.modules() if isinstance(m, LAYERS)]
    hooks = [m.register_forward_hook(lambda m, *_: order.append(m)) for m in layers]
    rows = some_rows(exp.train, 2, exp.device)
    mode = exp.model.training
    try:
        exp.model.eval()
        with torch.no_grad():
            call(exp.model, rows[0] if rows is not None else None)
    finally:
        exp.model.train(mode)
        for hook in hooks:
            hook.remove()
    inner = {id(m) for m in order[:-1] if m is not order[-1]} if order else set()
    count = 0
    for parent in list(exp.model.modules()):
        for leaf, child in list(parent.named_children()):
            if id(child) in inner:
                setattr(parent, leaf, nn.Sequential(child, nn.ReLU()))
                count += 1
    if not count:
        message = "there is no layer before the last one"
        raise CannotRepair(message)
    return f"a ReLU after each of {count} layers"


RULE = Rule(
    code="missing_nonlinearity",
    title="no activation between layers",
    looks="the net is no better than a linear model, however many layers it has",
    why="a linear function of a linear function is a linear function: without a bend between them "
    "two layers can do nothing that one cannot",
    do="put an activation between the layers",
    source="Minsky and Papert 1969; Goodfellow, Bengio and Courville 2016, section 6.1",
    before=before,
    confirm=confirm,
    passes=120,
    causes=("underfit", "plateau"),
)
