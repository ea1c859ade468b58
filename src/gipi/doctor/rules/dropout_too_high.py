"""So many units are dropped that hardly anything of a row comes through."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from torch import Tensor, nn

from gipi.doctor.experiment import whole
from gipi.doctor.finding import CannotRepair, Change, Finding, Repair
from gipi.doctor.late import Question, leave_open
from gipi.doctor.probes import compared, horizon, loss_on
from gipi.doctor.rule import Rule
from gipi.doctor.spoken import place_of
from gipi.doctor.tape import same_numbers

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from gipi.doctor.experiment import Experiment
    from gipi.doctor.facts import Facts

HIGH = 0.65
"""Share dropped at one place from which it is looked at closer."""
LEFT = 0.12
"""Share that all places together let through."""
USUAL = 0.2
MISSED, SOME = 0.3, 0.05
"""Share of the progress that must be missing; of a run that is longer than the trial a smaller one
is worth a hint: what comes late, a short training shows in part, and of a high rate it is asked at
the end whatever was shown."""
DROPS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout,
         nn.FeatureAlphaDropout)  # fmt: skip


def before(facts: Facts) -> Iterator[Finding]:
    """Suspect a rate above 0.65, or many places that let through an eighth together."""
    rates = _rates(facts)
    if not rates:
        return
    left = math.prod(1 - p for p in rates.values())
    high = {n: p for n, p in rates.items() if p > HIGH}
    if not high and left > LEFT:
        return
    named = high or rates
    repairs = [Repair(f"dropout {USUAL}", usual, edit=f"nn.Dropout({USUAL})")]
    first = _at_inputs(facts)
    if first.intersection(named):
        edit = f"no dropout of the inputs, nn.Dropout({USUAL}) behind hidden layers"
        repairs.append(Repair("no dropout of the inputs", whole_inputs(first), edit=edit))
    yield Finding(
        "dropout_too_high",
        "dropout is " + ", ".join(f"{p:.2g} at {place_of(n)}" for n, p in list(named.items())[:4])
        + f": {left:.1%} of the signal passes all places",
        "dropout of 0.1 to 0.3 between hidden layers, 0.5 at most",
        where=tuple(named),
        evidence={"rates": {n: round(p, 3) for n, p in rates.items()}, "left": left},
        strength=max(max(rates.values()) / HIGH, LEFT / max(left, 1e-6) / 10),
        repairs=tuple(repairs),
    )  # fmt: skip


def confirm(facts: Facts, finding: Finding) -> Finding | None:
    """Train a little with dropout as it is, and usual; compare losses without any dropout."""
    exp = facts.exp
    steps = horizon(exp, low=40)
    rows = whole(exp.val if exp.val is not None else exp.train, 512, exp.device)
    if rows is None:
        return None
    begin = loss_on(exp, *rows)
    try:
        trial = compared(exp, {"own": None, "usual": usual}, steps=steps)
    except CannotRepair:
        return finding.but(severity="hint")
    facts.passes += 2 * steps + 4
    own, other = loss_on(trial.twins["own"], *rows), loss_on(trial.twins["usual"], *rows)
    if not math.isfinite(other) or not math.isfinite(begin):
        return None
    missed = (own - other) / max(begin - other, 0.2 * abs(begin))
    evidence = {**finding.evidence, "loss_before": begin, "loss_as_is": own, "loss_usual": other}
    if missed < MISSED:
        in_part, longer = missed >= SOME, exp.total_steps > 2 * steps
        if longer and (in_part or max(finding.evidence["rates"].values()) > HIGH):
            leave_open(facts, Question(finding.but(evidence=evidence), usual))
        return finding.but(severity="hint", evidence=evidence) if longer and in_part else None
    return finding.but(confirmed=True, evidence=evidence)


def _rates(facts: Facts) -> dict[str, float]:
    """Return the dropout of modules that are called, and of functions by what they let through."""
    modules = dict(facts.exp.model.named_modules())
    rates: dict[str, float] = {}
    for op in facts.tape.of({"dropout"}):
        module = modules.get(op.module)
        if isinstance(module, DROPS):
            if module.p > 0:
                rates[op.module] = float(module.p)
        elif op.inputs:
            given, said = op.inputs[0], op.output
            if given.shape != said.shape or said is given:
                continue
            was = given != 0
            count = int(was.sum())
            share = float(((said == 0) & was).sum()) / count if count else 0.0
            if share > 0 and count >= 100:
                rates[op.place] = share
    for name, module in modules.items():  # recurrent nets drop within
        if isinstance(module, nn.RNNBase) and module.num_layers > 1 and module.dropout > 0:
            rates[name] = float(module.dropout)
    return rates


def _at_inputs(facts: Facts) -> set[str]:
    """Return the dropouts that are given what the net is given."""
    x = facts.batch[0]
    if not isinstance(x, Tensor):
        return set()
    ops = facts.tape.of({"dropout"})
    return {op.module for op in ops if op.inputs and same_numbers(op.inputs[0], x)}


def whole_inputs(names: Collection[str]) -> Change:
    """Return the change that drops no inputs, and of hidden units as many as usual.

    Hidden units repeat each other; what one column tells, often no other one does.
    """

    def change(exp: Experiment) -> str:
        parts = dict(exp.model.named_modules())
        chosen = {n: m for n, m in parts.items() if n in names and isinstance(m, DROPS)}
        if not chosen:
            message = "inputs are dropped by a function with a rate of its own"
            raise CannotRepair(message)
        said = f"dropout {', '.join(f'{n} {m.p:g}' for n, m in chosen.items())} -> 0"
        for m in chosen.values():
            m.p = 0.0
        if any(isinstance(m, DROPS) and m.p > USUAL for m in parts.values()):
            said += f", {usual(exp)}"
        return said

    return change


def usual(exp: Experiment) -> str:
    """Set every dropout that is higher to 0.2."""
    changed = []
    for name, m in exp.model.named_modules():
        if isinstance(m, DROPS) and m.p > USUAL:
            changed.append(f"{name} {m.p:g}")
            m.p = USUAL
        elif isinstance(m, (nn.RNNBase, nn.MultiheadAttention)) and m.dropout > USUAL:
            changed.append(f"{name} {m.dropout:g}")
            m.dropout = USUAL
    if not changed:
        message = "dropout is called as a function with a rate of its own"
        raise CannotRepair(message)
    return f"dropout {', '.join(changed)} -> {USUAL}"


RULE = Rule(
    code="dropout_too_high",
    title="dropout is too high",
    looks="the training loss stays high and noisy; without dropout it is not much better",
    why="what a layer gets is a different tenth of its input each time, scaled up tenfold: noise "
    "larger than the signal",
    do="dropout of 0.1 to 0.3, 0.5 at most before the last layer",
    source="Srivastava et al. 2014, Dropout, JMLR 15, figure 9",
    before=before,
    confirm=confirm,
    passes=120,
    causes=("underfit", "plateau", "lr_too_low"),
)
