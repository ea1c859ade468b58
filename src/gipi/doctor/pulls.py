"""What a loss or a step pulls weights to zero by itself, beside what the outputs tell.

A penalty on the weights stands in no optimizer. But the loss of outputs that are held fast has no
gradient, unless it reaches the weights by another way; and what an optimizer sees, less the
gradient of the loss, is what the step has added. Where that points along the weights it is decay.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gipi.doctor.copies import peeking
from gipi.doctor.finding import CannotRepair

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gipi.doctor.experiment import Experiment, LossFunction, Step
    from gipi.doctor.facts import Facts
    from gipi.doctor.finding import Change

ALONG = 0.97
"""Cosine from which a pull points along the weights, or along their signs: of weights that are
drawn evenly, the weights and their signs have one of 0.87."""
KEY = "pull of the loss and the step"


@dataclass(frozen=True)
class Pull:
    """A decay that the loss or the step brings along.

    decay   as an optimizer would be given it: pull over weight, the median over matrices
    over    pull over the gradient that the outputs bring, the median over matrices
    degree  2: of squares, 1: of absolute values
    by      parameter name -> gradient over weight, or over its sign
    within  "loss" or "step"
    """

    decay: float
    over: float
    degree: int
    by: dict[str, float]
    within: str


def own_pull(facts: Facts) -> Pull | None:
    """Return the decay that the loss or the step brings along, None for none; found once."""
    if KEY not in facts.notes:
        facts.notes[KEY] = _of_loss(facts) or _of_step(facts)
    found: Pull | None = facts.notes[KEY]
    return found


def _of_loss(facts: Facts) -> Pull | None:
    exp, params = facts.exp, dict(facts.exp.model.named_parameters())
    with peeking(exp), torch.enable_grad():
        try:
            apart = exp.loss(_held(facts.outputs), facts.batch[1])
            if not isinstance(apart, Tensor) or apart.grad_fn is None:
                return None
            trained = [p for p in params.values() if p.requires_grad]
            given = torch.autograd.grad(apart.mean(), trained, allow_unused=True)
        except (RuntimeError, ValueError, IndexError, TypeError):
            return None
    by_id = {id(p): g for p, g in zip(trained, given, strict=True)}
    pulls = {n: g for n, p in params.items() if (g := by_id.get(id(p))) is not None}
    whole = facts.gradients
    rest: dict[str, Tensor | None] = {
        n: g - pulls[n] for n in pulls if (g := whole.get(n)) is not None
    }
    return _told(exp, pulls, rest, "loss")


def _of_step(facts: Facts) -> Pull | None:
    if facts.exp.step is None or not facts.moves:
        return None
    seen = facts.moves[0]
    pulls = {
        n: g - f for n, g in seen.grads.items()
        if isinstance(g, Tensor) and isinstance(f := seen.fresh.get(n), Tensor)
    }  # fmt: skip
    return _told(facts.exp, pulls, seen.fresh, "step")


def _told(
    exp: Experiment, pulls: dict[str, Tensor], rest: dict[str, Tensor | None], within: str
) -> Pull | None:
    """Return the pull where it points along most matrices that it acts on."""
    found: dict[int, dict[str, float]] = {2: {}, 1: {}}
    decays, overs, matrices = list[float](), list[float](), 0
    for name, p in exp.model.named_parameters():
        pull, weight = pulls.get(name), p.detach()
        if pull is None or not float(pull.norm()) > 0 or not float(weight.norm()) > 0:
            continue
        matrices += p.ndim > 1
        for degree, along in ((2, weight), (1, weight.sign())):
            size = float(along.norm())
            if float((pull * along).sum()) > ALONG * size * float(pull.norm()):
                found[degree][name] = float((pull * along).sum()) / size**2
                if p.ndim > 1:
                    decays.append(float(pull.norm() / weight.norm()))
                    other = rest.get(name)
                    left = float(other.norm()) if other is not None else 0.0
                    overs.append(float(pull.norm()) / max(left, 1e-12))
                break
    degree = max(found, key=lambda d: len(found[d]))
    if not decays or 2 * len(decays) < matrices:
        return None
    return Pull(median(decays), median(overs), degree, found[degree], within)


def _held(said: Any) -> Any:
    """Return outputs through which no gradient goes."""
    if isinstance(said, Tensor):
        return said.detach()
    if isinstance(said, (tuple, list)):
        return type(said)(_held(part) for part in said)
    return {k: _held(v) for k, v in said.items()} if isinstance(said, dict) else said


def lighter(pull: Pull, share: float) -> Change:
    """Return the change that leaves a share of the pull; what the loss says stays as it is."""

    def change(exp: Experiment) -> str:
        if pull.within == "loss":
            exp.loss = _LighterLoss(exp.loss, share)
        elif exp.step is None:
            message = "the step that pulled at weights is gone"
            raise CannotRepair(message)
        else:
            exp.step = _LighterStep(exp.step, pull, share)
        return f"the {pull.within} pulls weights to zero by {share:g} of what it did"

    return change


@dataclass(eq=False)
class _LighterLoss:
    """A loss whose gradient past the outputs counts for less; its value is the same."""

    own: LossFunction
    share: float

    def __call__(self, said: Any, y: Any) -> Tensor:
        value = self.own(said, y)
        if not torch.is_grad_enabled() or value.grad_fn is None:
            return value
        apart = self.own(_held(said), y)
        return value - (1 - self.share) * (apart - apart.detach())


@dataclass(eq=False)
class _LighterStep:
    """A step whose optimizer sees less of the pull."""

    own: Step
    pull: Pull
    share: float

    def __call__(self, exp: Experiment, xb: Any, yb: Any) -> Tensor:
        def less(*_: Any) -> None:
            for name, p in _named(exp.model.named_parameters(), self.pull):
                along = p.detach() if self.pull.degree > 1 else p.detach().sign()
                if p.grad is not None:
                    p.grad.sub_((1 - self.share) * self.pull.by[name] * along)

        handle = exp.optimizer.register_step_pre_hook(less)
        try:
            return self.own(exp, xb, yb)
        finally:
            handle.remove()


def _named(params: Iterable[tuple[str, Any]], pull: Pull) -> list[tuple[str, Any]]:
    return [(n, p) for n, p in params if n in pull.by]
