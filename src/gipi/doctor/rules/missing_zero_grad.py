"""Gradients are never set to zero: every step goes along the sum of all gradients so far."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F

from gipi.doctor.finding import CannotRepair, Finding, Repair
from gipi.doctor.rule import DYNAMICS, EXACT, Rule

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor

    from gipi.doctor.experiment import Experiment, Step
    from gipi.doctor.facts import Facts, Moved

PART = 0.4
"""Share of the old gradient in the new one, from which it is called left over."""
ODD, NOISY = 0.3, 0.75
"""A gradient that old and new do not explain but for this share is something else, or has noise in
it (dropout that was drawn anew): then three steps must show it, and its growing length with it."""
LONGER = 1.3, 1.6
ALIKE = 0.98
RATIO = 1.5


def before(facts: Facts) -> Iterator[Finding]:
    """Compare what the optimizer saw at two steps with the gradients of both batches alone."""
    if len(facts.moves) < 2:
        return
    one, two = facts.moves[:2]
    steered = {n for n, p in facts.exp.model.named_parameters() if id(p) in facts.in_optimizer}
    names = [
        n for n in two.grads
        if n in steered and all(v.get(n) is not None for v in (two.grads, two.fresh, one.grads,
                                                               one.fresh))
    ]  # fmt: skip
    if not names:  # the optimizer does not step at each call, or evaluates the loss itself
        return
    part, ratio, odd = _left(one, two, names)
    if part < PART or odd > NOISY:
        return
    if odd > ODD and not (ratio > LONGER[0] and _grows(facts.moves, names)):
        return
    yield Finding(
        "missing_zero_grad",
        f"at the second step the optimizer saw the gradient of its batch and {part:.0%} of that "
        f"of the batch before: {ratio:.2f} times as long as it should be, and longer every step",
        "set gradients to zero before every backward pass",
        evidence={"old_share": part, "ratio": ratio},
        confirmed=True,
        strength=EXACT,
        repairs=(
            Repair("zero gradients first", zero_first, proof="exact",
                   edit="optimizer.zero_grad() before loss.backward()"),
        ),
    )  # fmt: skip


def _left(one: Moved, two: Moved, names: list[str]) -> tuple[float, float, float]:
    """Return what the second gradient holds of the first.

    The share of the first in it, its length over what is right, and the share of either gradient
    that nothing explains.
    """
    g1, f1 = _flat(one.grads, names), _flat(one.fresh, names)
    g2, f2 = _flat(two.grads, names), _flat(two.fresh, names)
    sizes = [float(v.norm()) for v in (g1, f1, g2, f2)]
    if min(sizes) <= 0 or not all(math.isfinite(v) for v in sizes):
        return 0.0, 1.0, 1.0
    scale = float(g1 @ f1) / sizes[1] ** 2
    if scale <= 0:
        return 0.0, 1.0, 1.0
    odd = float((g1 - scale * f1).norm()) / sizes[0]
    ratio = (sizes[2] / sizes[3]) / (sizes[0] / sizes[1])
    if float(F.cosine_similarity(f1, f2, 0)) > ALIKE:
        return (ratio - 1 if ratio > RATIO else 0.0), ratio, odd
    basis = torch.stack([f2, f1], 1)
    a, b = torch.linalg.lstsq(basis, g2[:, None]).solution.flatten().tolist()
    if a <= 0:
        return 0.0, ratio, 1.0
    rest = float((g2 - a * f2 - b * f1).norm()) / sizes[2]
    return b / a, ratio, max(odd, rest)


def _grows(moves: list[Moved], names: list[str]) -> bool:
    """Whether the gradient of a third step is longer still."""
    if len(moves) < 3 or any(moves[2].grads.get(n) is None for n in names):
        return False
    first, third = (
        float(_flat(m.grads, names).norm()) / (float(_flat(m.fresh, names).norm()) + 1e-30)
        for m in (moves[0], moves[2])
    )
    return third > LONGER[1] * first


def _flat(grads: dict[str, Tensor | None], names: list[str]) -> Tensor:
    return torch.cat([g.flatten().double() for n in names if (g := grads[n]) is not None])


@dataclass(frozen=True)
class ZeroFirst:
    """A step before which gradients are set to zero."""

    step: Step

    def __call__(self, exp: Experiment, xb: Any, yb: Any) -> Tensor:
        """Set gradients to zero and take the step."""
        exp.optimizer.zero_grad()
        for p in exp.model.parameters():
            p.grad = None
        return self.step(exp, xb, yb)


def zero_first(exp: Experiment) -> str:
    """Set gradients to zero before the user's own step."""
    if exp.step is None:
        message = "the plain step sets gradients to zero already"
        raise CannotRepair(message)
    exp.step = ZeroFirst(exp.step)
    return "gradients are set to zero before every step"


RULE = Rule(
    code="missing_zero_grad",
    title="gradients are not set to zero",
    looks="the loss falls, then swings ever wider or explodes, as if momentum were 1",
    why="backward adds to what .grad holds. Without zero_grad the step follows the sum of all "
    "gradients since the start, most of which belong to weights of long ago",
    do="call optimizer.zero_grad() before loss.backward()",
    source="PyTorch documentation, Optimizer.zero_grad",
    before=before,
    causes=(*DYNAMICS, "bad_init_scale"),
)
