"""ReLU units that are closed for every row: no gradient will ever open them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from gipi.doctor.experiment import call, whole
from gipi.doctor.eye import UNIT_ROWS
from gipi.doctor.finding import CannotRepair, Finding, Repair
from gipi.doctor.flow import first_units
from gipi.doctor.late import Question, leave_open
from gipi.doctor.probes import compared, horizon
from gipi.doctor.rates import times_lr
from gipi.doctor.reinit import LAYERS
from gipi.doctor.rule import Rule
from gipi.doctor.seeded import seeded
from gipi.doctor.spoken import place_of
from gipi.doctor.tape import NORMS, recording
from gipi.doctor.units import RECTIFIERS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from gipi.doctor.experiment import Experiment
    from gipi.doctor.facts import Facts
    from gipi.doctor.tape import Op, Tape
    from gipi.doctor.trace import Trace, UnitLook

CLEARED = "dead units that do no harm"
SHARE = 0.4
"""Dead share of a layer's units from which it is looked at closer."""
LEAST = 4
"""Units of a layer, at least: narrower ones fail for being narrow."""
MISSED, MISSED_SOME = 0.2, 0.5
"""Progress that must be missing where nearly all units of a layer are dead, and where some are."""
ALL = 0.95
LEARNS = 0.3
"""Share of the first loss by which a net that learns may have come down."""
LOW = 0.5
"""Share of the first loss below which a net has what it needs."""


def before(facts: Facts) -> Iterator[Finding]:
    """Suspect a layer with many units that are closed for all rows before the first step."""
    yield from _suspected(first_units(facts), "before")


def during(facts: Facts, trace: Trace) -> Iterator[Finding]:
    """Suspect a layer with many dead units, more than the run began with."""
    if not trace.units or trace.recent < LOW * trace.scale:
        return
    began = facts.notes.get(CLEARED) or (first_units(facts.start) if facts.start else {})
    grown = {
        n: u for n, u in trace.units.items()
        if n not in began or u.dead > began[n].dead + 0.2
    }  # fmt: skip
    facts.notes["seen"] = trace.units
    yield from _suspected(grown, "steps")


def _suspected(units: Mapping[str, UnitLook], phase: str) -> Iterator[Finding]:
    dead = {n: u.dead for n, u in units.items() if u.dead > SHARE and u.units >= LEAST}
    if not dead:
        return
    worst = max(dead, key=lambda n: dead[n])
    at_start = phase == "before"
    yield Finding(
        "dead_relu",
        f"{dead[worst]:.0%} of the units of {place_of(worst)} are 0 on all of "
        f"{units[worst].rows} rows",
        "bias 0 and weights drawn anew where they are dead from the start; a lower learning rate "
        "or leaky ReLU where they died",
        where=tuple(dead),
        evidence={"dead_units": {n: round(v, 3) for n, v in dead.items()}},
        phase="before" if at_start else "steps",
        strength=dead[worst] / SHARE,
        repairs=(
            (Repair("draw dead units anew", revive, edit="nn.init.zeros_(layer.bias)"),)
            if at_start
            else (Repair("lr / 10", times_lr(0.1), setting="lr"),
                  Repair("leaky ReLU", leaky, edit="nn.LeakyReLU(0.01) in place of nn.ReLU()"))
        ),
    )  # fmt: skip


def confirm(facts: Facts, finding: Finding) -> Finding | None:
    """Go on from here as it is, and with the dead units alive: sparse is not sick.

    Through a layer that keeps some units alive a gradient comes: a net that has not begun to learn
    yet may only begin late, as a deep one does. That is left to the end of the run.
    """
    steps = horizon(facts.exp)
    try:
        trial = compared(facts.exp, {"own": None, "revived": revive}, steps=steps)
    except CannotRepair:
        return None
    facts.passes += 2 * steps
    begin = facts.start.first_loss if facts.start is not None else trial.begin
    if begin - trial.end("own") > LEARNS * abs(begin):
        return None  # sparse, and learning
    closed = max(finding.evidence["dead_units"].values()) > ALL
    edge = MISSED if closed else MISSED_SOME
    if not trial.sure("own", "revived") or trial.missed("own", "revived", begin=begin) < edge:
        facts.notes[CLEARED] = facts.notes.get("seen", {})
        return None
    if finding.phase == "before" and not closed:
        leave_open(facts, Question(finding, revive))
        return None
    return finding.but(
        confirmed=True,
        evidence={**finding.evidence, "loss_as_is": trial.end("own"),
                  "loss_revived": trial.end("revived")},
    )  # fmt: skip


def revive(exp: Experiment) -> str:
    """Draw the weights of dead units anew, with a bias that lets half of the rows through.

    Raises `CannotRepair` where the layer before a ReLU is no linear layer or convolution.
    """
    rows = whole(exp.train, UNIT_ROWS, exp.device)
    if rows is None:
        message = "there are no rows to see which units are dead"
        raise CannotRepair(message)
    modules = dict(exp.model.named_modules())
    changed = 0
    done: set[str] = set()
    for _ in range(64):  # a layer's life depends on the one below: from the bottom up
        tape = _seen(exp, rows[0])
        step = next((s for s in _producers(tape, modules) if s[0].place not in done), None)
        if step is None:
            break
        op, layer, x = step
        done.add(op.place)
        with seeded(exp):
            changed += _open(op, layer, x)
    if not changed:
        message = "no dead unit stands behind a linear layer or a convolution"
        raise CannotRepair(message)
    for param in exp.model.parameters():
        exp.optimizer.state.pop(param, None)
    return f"{changed} dead units drawn anew, with biases that open them for half of the rows"


def _seen(exp: Experiment, X: Any) -> Tape:
    mode = exp.model.training
    exp.model.eval()
    try:
        with seeded(exp), torch.no_grad(), recording(exp.model) as tape:
            call(exp.model, X)
    finally:
        exp.model.train(mode)
    return tape


def _producers(tape: Tape, modules: dict[str, nn.Module]) -> Iterator[tuple[Op, nn.Module, Tensor]]:
    """Yield every ReLU with the layer, or the norm, whose outputs it takes, and the layer's input.

    In the order of execution; a module that is called more than once comes more than once.
    """
    last: Op | None = None
    for op in tape.ops:
        if op.kind in RECTIFIERS and last is not None and last.inputs:
            module = modules.get(last.module)
            if isinstance(module, (*LAYERS, nn.modules.batchnorm._BatchNorm)):  # noqa: SLF001
                yield op, module, last.inputs[0]
        if op.kind in {"linear", "conv"} | NORMS:
            last = op


def _open(op: Op, layer: Any, x: Tensor) -> int:
    """Open the units of `layer` that are closed on all rows, and return how many they were."""
    y = op.output
    channel = y.ndim - 1 if isinstance(layer, nn.Linear) else 1
    dead = (y <= 0).transpose(0, channel).reshape(y.shape[channel], -1).all(1)
    if not bool(dead.any()) or len(dead) != len(layer.weight):
        return 0
    with torch.no_grad():
        if isinstance(layer, LAYERS):
            fresh = torch.empty_like(layer.weight)
            nn.init.kaiming_normal_(fresh, nonlinearity="relu")
            layer.weight[dead] = fresh[dead]
            if layer.bias is not None:
                layer.bias[dead] = 0.0
                said = layer(x).transpose(0, channel)
                middle = said.reshape(said.shape[0], -1).median(1).values
                layer.bias[dead] = -middle[dead]
        else:
            layer.weight[dead] = 1.0
            layer.bias[dead] = 0.0
    return int(dead.sum())


def leaky(exp: Experiment) -> str:
    """Put leaky ReLUs in the place of ReLU modules."""
    count = 0
    for parent in list(exp.model.modules()):
        for leaf, child in list(parent.named_children()):
            if isinstance(child, nn.ReLU):
                setattr(parent, leaf, nn.LeakyReLU(0.01))
                count += 1
    if not count:
        message = "ReLU is called as a function within forward"
        raise CannotRepair(message)
    return f"{count} ReLUs became leaky, slope 0.01"


RULE = Rule(
    code="dead_relu",
    title="ReLU units are dead",
    looks="many units are 0 whatever the row; the loss stops early or never falls",
    why="where a ReLU is closed its slope is 0: a unit closed for every row gets no gradient and "
    "stays closed for good",
    do="bias 0, a lower learning rate, weights drawn anew where units are dead, or leaky ReLU",
    source="Maas, Hannun and Ng 2013; Lu et al. 2020, arXiv:1903.06733",
    before=before,
    during=during,
    confirm=confirm,
    passes=120,
    causes=("vanishing_gradient", "plateau", "underfit", "lr_too_low"),
)
