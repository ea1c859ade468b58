"""Sigmoids and tanhs stand where they are flat: hardly any gradient comes through."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from gipi.doctor.cells import first_cells
from gipi.doctor.contest import BEGUN
from gipi.doctor.finding import CannotRepair, Finding, Repair
from gipi.doctor.flow import first_units, renewed
from gipi.doctor.late import Question, leave_open
from gipi.doctor.reinit import rectified, renew
from gipi.doctor.rule import Rule

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from gipi.doctor.facts import Facts
    from gipi.doctor.trace import Trace, UnitLook

SHARE = 0.5
MISSED = 0.12
HIGH = 0.7
"""Share of the first loss below which a run is not held up."""


def before(facts: Facts) -> Iterator[Finding]:
    """Suspect a hidden layer, or cell, more than half of whose units are flat at the start."""
    yield from _suspected({**first_units(facts), **first_cells(facts)}, "before")


def during(_: Facts, trace: Trace) -> Iterator[Finding]:
    """Suspect layers that have become flat while the loss stayed high."""
    if trace.recent > HIGH * trace.scale:
        yield from _suspected(trace.units, "steps")


def _suspected(units: Mapping[str, UnitLook], phase: str) -> Iterator[Finding]:
    flat = {n: u.saturated for n, u in units.items() if u.saturated > SHARE}
    if not flat:
        return
    worst = max(flat, key=lambda n: flat[n])
    yield Finding(
        "saturated_activation",
        f"{flat[worst]:.0%} of the units of {units[worst].kind} '{worst}' stand where its slope is "
        f"less than a twentieth of the largest ({units[worst].rows} rows)",
        "standardise the inputs, draw smaller weights, put a normalisation before the activation, "
        "or use ReLU",
        where=tuple(flat),
        evidence={"flat_units": {n: round(v, 3) for n, v in flat.items()}},
        phase="before" if phase == "before" else "steps",
        strength=flat[worst] / SHARE,
        repairs=(
            Repair("draw the weights anew", renew,
                   edit="smaller weights: nn.init.xavier_uniform_(layer.weight); bias 0"),
            Repair("ReLU instead of sigmoid or tanh", rectified, mode="ask",
                   edit="nn.ReLU() in place of nn.Sigmoid()/nn.Tanh() between the layers"),
        ),
    )  # fmt: skip


def confirm(facts: Facts, finding: Finding) -> Finding | None:
    """Train a little as it is, and with weights drawn anew so that no unit begins flat."""
    try:
        trial = renewed(facts)
    except CannotRepair:
        return None
    own, new = trial.end("own"), trial.end("renewed")
    if not math.isfinite(new):
        return None
    if not trial.sure("own", "renewed") or trial.missed("own", "renewed") < MISSED:
        if finding.phase == "before" and min(own, new) > BEGUN * facts.yardstick:
            leave_open(facts, Question(finding, renew, share=MISSED))
        return None
    return finding.but(
        confirmed=True, evidence={**finding.evidence, "loss_as_is": own, "loss_renewed": new}
    )


RULE = Rule(
    code="saturated_activation",
    title="sigmoid or tanh units are saturated",
    looks="the loss falls slowly; outputs of hidden units are all near 0, 1 or -1",
    why="where a sigmoid is flat its slope is near zero, and so is every gradient through it",
    do="standardise inputs, draw smaller weights, normalise before the activation, or use ReLU",
    source="Glorot and Bengio 2010; LeCun et al. 1998, Efficient BackProp, section 4.4",
    before=before,
    during=during,
    confirm=confirm,
    passes=120,
    causes=("vanishing_gradient", "plateau", "underfit", "lr_too_low"),
)
