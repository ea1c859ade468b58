"""Training climbs: the loss, the optimizer or the step has the wrong sign."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from gipi.doctor.against import alike, driven, loss_of, nats, prefers_wrong
from gipi.doctor.asked import by_likeness
from gipi.doctor.bottomless import bottomless
from gipi.doctor.compared import carried
from gipi.doctor.copies import peeking
from gipi.doctor.ends import class_width
from gipi.doctor.experiment import call, judged
from gipi.doctor.finding import Finding, Repair
from gipi.doctor.likeness import nearer, parts_alike
from gipi.doctor.losses import shared_out
from gipi.doctor.oriented import decided, ordered
from gipi.doctor.probes import after_steps
from gipi.doctor.rule import DYNAMICS, EXACT, Rule
from gipi.doctor.rules.double_softmax import are_probabilities

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gipi.doctor.experiment import Experiment
    from gipi.doctor.facts import Facts

AGAINST = -0.9
"""Cosine of the gradient that the optimizer sees with that of the loss."""
UPWARD = 0.3
"""Cosine of what weights move by with the gradient: of signs alone it is about 0.6, turned."""
STEPS = 20
WORSE, OPPOSED, OPPOSITE = 0.2, 0.3, -0.5
"""Nats by which the truth must have become less likely after `STEPS`, of numbers the fall of their
correlation with the targets, and the correlation below which any fall is enough."""


def before(facts: Facts) -> Iterator[Finding]:
    """Yield the finding where an odd number of signs is turned."""
    turned = []
    if facts.loss.sign < 0 and not _is_expected_cost(facts):
        turned.append(f"the loss function is minus {facts.loss.name}")
    if all(g.get("maximize") for g in facts.exp.optimizer.param_groups):
        turned.append("the optimizer was made with maximize=True")
    if facts.loss.name != "other" or turned or facts.exp.loss is carried:
        turned += _steps_against(facts)
        if len(turned) % 2:
            yield _finding(" and ".join(turned), confirmed=True)
    elif any(isinstance(v, Tensor) and v.is_complex() for v in (facts.outputs, facts.batch[1])):
        return  # nothing of them is more than another
    elif prefers_wrong(facts):
        yield _finding("the loss falls where the true class becomes less likely", confirmed=False)
    elif driven(facts) is not None:
        yield _finding("the loss falls where outputs leave what they shall be", confirmed=False)
    elif by_likeness(facts):
        if parts_alike(facts):
            yield _finding("the loss falls where rows of one class part", confirmed=False)
    elif bottomless(facts):
        yield _finding("the loss falls without end wherever outputs go", confirmed=False)
    elif against := _steps_against(facts):
        yield _finding(against[0], confirmed=facts.exp.step is None)
    else:
        yield from _turned_or_not(facts)


def confirm(facts: Facts, finding: Finding) -> Finding | None:
    """Take some steps: the finding stands where the truth has become less likely."""
    xb, yb = facts.batch
    if not isinstance(yb, Tensor) or yb.is_floating_point():
        return _opposed(facts, finding)
    if by_likeness(facts):
        return _parted(facts, finding)
    wide = class_width(facts)
    if wide is None:
        return None
    losses, twin = after_steps(facts.exp, STEPS)
    facts.passes += STEPS + 2
    with torch.no_grad():
        first, after = (F.cross_entropy(said.movedim(wide[0], 1), yb.long())
                        for said in (_said(facts.exp, xb), _said(twin, xb)))  # fmt: skip
    if not float(after) > float(first) + WORSE:
        return None
    return finding.but(confirmed=True, evidence={
        "nats_before": float(first), "nats_after": float(after), "loss": losses[-1]})  # fmt: skip


def _finding(what: str, *, confirmed: bool) -> Finding:
    return Finding(
        "loss_sign_flipped",
        f"training makes the net worse on purpose: {what}",
        "minimise the loss: cross-entropy is minus the log-probability of the truth, an error is "
        "the error itself",
        evidence={"signs": what},
        confirmed=confirmed,
        strength=EXACT,
        repairs=(
            Repair("turn the sign", turn, mode="ask", proof="exact",
                   edit="loss = -loss, or maximize=False in the optimizer"),
        ),
    )  # fmt: skip


def _steps_against(facts: Facts) -> list[str]:
    """Return what of the step, not said by `maximize`, has weights go up the gradient.

    Either the optimizer is given minus the gradient, or it, or who writes it by hand, adds it.
    """
    found = []
    if _step_turns(facts):
        found.append("the step goes against the gradient of the loss")
    most = all(g.get("maximize") for g in facts.exp.optimizer.param_groups)
    up = [move.up for move in facts.moves]
    if len(up) > 1 and min(up) > UPWARD and not found and not most:
        found.append("weights go up the gradient of the loss, not down: it is added to them")
    return found


def _is_expected_cost(facts: Facts) -> bool:
    """Whether a loss is linear in probabilities: the cost of two choices may be their targets.

    Minus a divergence of logarithms looks alike, but falls without end.
    """
    y = facts.batch[1]
    return facts.loss.name == "kl" and are_probabilities(facts, shared_out(y))


def _step_turns(facts: Facts) -> bool:
    """Whether the optimizer saw minus the gradient of the loss, twice."""
    seen = []
    for move in facts.moves:
        names = [n for n, g in move.grads.items() if g is not None and move.fresh[n] is not None]
        if not names:
            return False
        g, f = (torch.cat([_numbers(grads[n]) for n in names])
                for grads in (move.grads, move.fresh))  # fmt: skip
        seen.append(float(F.cosine_similarity(g, f, 0)))
    return len(seen) > 1 and max(seen) < AGAINST


def _numbers(grad: Tensor | None) -> Tensor:
    """Return the numbers of a gradient, both parts of complex ones."""
    assert grad is not None
    return (torch.view_as_real(grad) if grad.is_complex() else grad).flatten()


def _said(exp: Experiment, xb: Any) -> Any:
    """Return the outputs in training mode, as steps see them, or in the other where that fails."""
    with peeking(exp, seed=True), torch.no_grad():
        exp.model.train()
        try:
            return call(exp.model, xb)
        except (RuntimeError, ValueError):  # a batch norm that is given one row
            exp.model.eval()
            return call(exp.model, xb)


def _opposed(facts: Facts, finding: Finding) -> Finding | None:
    """Take some steps: the finding stands where outputs have become less like the targets.

    A loss of logarithms, as of counts, may rise on the way to the target, and is learned rightly.
    """
    place = driven(facts)
    xb, yb = facts.batch
    asked = place is not None or bottomless(facts)
    if not asked and facts.exp.metric is None:
        return None
    losses, twin = after_steps(facts.exp, STEPS)
    facts.passes += STEPS + 2
    with torch.no_grad():
        was, now = (_said(exp, xb) for exp in (facts.exp, twin))
        if not asked:
            return _worse(facts, finding, was, now)
        if place is None:
            return _fallen(facts, finding, was, now)
        first, after = (alike(place.of(said), yb) for said in (was, now))
        likely, unlikely = (nats(facts, place, said) for said in (was, now))
    if not (after < first - OPPOSED or after < min(first, OPPOSITE) or unlikely > likely + WORSE):
        return _fallen(facts, finding, was, now) if bottomless(facts) else None
    if facts.exp.metric is not None and judged(facts.exp, now, yb) > judged(facts.exp, was, yb):
        return None  # whoever says how it is judged says what is right
    return finding.but(confirmed=True, evidence={
        "correlation_before": first, "correlation_after": after, "loss": losses[-1]})  # fmt: skip


def _fallen(facts: Facts, finding: Finding, was: Any, now: Any) -> Finding | None:
    """Return the finding where steps go down a loss without a bottom, and no metric is better."""
    first, after = loss_of(facts, was), loss_of(facts, now)
    if not after < first:
        return None
    if facts.exp.metric is not None:
        yb = facts.batch[1]
        if judged(facts.exp, now, yb) > judged(facts.exp, was, yb):
            return None
    return finding.but(confirmed=True, evidence={"loss_before": first, "loss_after": after})


def _worse(facts: Facts, finding: Finding, was: Any, now: Any) -> Finding | None:
    """Return the finding where the metric is worse after steps that go down the loss."""
    first, after = (judged(facts.exp, said, facts.batch[1]) for said in (was, now))
    if not after < first or not loss_of(facts, now) < loss_of(facts, was):
        return None
    return finding.but(confirmed=True, evidence={"metric_before": first, "metric_after": after})


def _parted(facts: Facts, finding: Finding) -> Finding | None:
    """Take some steps both ways: the finding stands where the other way has like rows nearer."""
    xb, yb = facts.batch

    def turned(twin: Experiment) -> None:
        twin.loss = Turned(twin.loss)

    found = []
    for change in (None, turned):
        _, twin = after_steps(facts.exp, STEPS, change=change)
        facts.passes += STEPS + 1
        found.append(nearer(_said(twin, xb), yb))
    if not found[0] < found[1]:
        return None
    return finding.but(confirmed=True, evidence={"nearer": found[0], "nearer_turned": found[1]})


def _turned_or_not(facts: Facts) -> Iterator[Finding]:
    """Tell of numbers that are driven down where targets are high, as energies and times may be.

    A margin, or an order, tells by nothing but its targets which way is right: a hint, unless
    whoever trains says how outputs are judged.
    """
    place = ordered(facts) or decided(facts)
    if place:
        found = _finding(place, confirmed=False)
        yield found if facts.exp.metric is not None else found.but(severity="hint")


@dataclass(frozen=True)
class Turned:
    """Minus a loss."""

    loss: Any

    def __call__(self, said: Any, y: Any) -> Tensor:
        """Return minus the loss."""
        value: Tensor = -self.loss(said, y)
        return value


def turn(exp: Experiment) -> str:
    """Turn maximize where it is set, else the loss."""
    if any(g.get("maximize") for g in exp.optimizer.param_groups):
        for group in exp.optimizer.param_groups:
            group["maximize"] = False
        return "the optimizer minimises"
    exp.loss = Turned(exp.loss)
    return "the sign of the loss is turned"


RULE = Rule(
    code="loss_sign_flipped",
    title="the loss has the wrong sign",
    looks="the loss goes to minus infinity while predictions get worse",
    why="an optimizer goes down: a loss that is smaller for a worse answer is learned to the end",
    do="give the optimizer what shall become small",
    source="Bottou 2012, Stochastic Gradient Descent Tricks (verify the gradients)",
    before=before,
    confirm=confirm,
    passes=2 * (STEPS + 1),
    causes=(*DYNAMICS, "bad_init_scale"),
)
