"""How gradients come down through a net before its first step, layer by layer."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from gipi.doctor.copies import peeking
from gipi.doctor.experiment import call
from gipi.doctor.eye import units_of
from gipi.doctor.own_weights import PRODUCTS, own_weights
from gipi.doctor.probes import Trial, compared, horizon
from gipi.doctor.reinit import renew
from gipi.doctor.tape import WEIGHTED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gipi.doctor.facts import Facts
    from gipi.doctor.own_weights import Own
    from gipi.doctor.tape import Op
    from gipi.doctor.trace import UnitLook


ROWS = 1024
"""Rows on which a unit must be closed to be called dead."""
MOST = 2**24
"""Numbers that the answers to all rows may be, where the loss of one answer for all is asked."""


def flow(facts: Facts) -> list[tuple[str, float]]:
    """Return (name, RMS gradient / RMS weight) of every matrix, in the order of their calls.

    Embeddings are left out: most of their rows get no gradient in a batch. Matrices that stand at
    zero or get no gradient at all are left out as well.
    """
    model = dict(facts.exp.model.named_modules())
    grads, own = facts.gradients, own_weights(facts)
    found: dict[str, float] = {}
    for op in facts.tape.of((WEIGHTED | PRODUCTS) - {"embedding"}):
        module = model.get(op.module)
        if module is None:
            continue
        for leaf, p in module.named_parameters(recurse=False):
            name = f"{op.module}.{leaf}" if op.module else leaf
            grad = grads.get(name)
            if p.ndim < 2 or grad is None or name in found or _elsewhere(op, own.get(name)):
                continue
            size = float(p.detach().norm())
            if size > 0:
                found[name] = float(grad.norm()) / size
    return [(n, v) for n, v in found.items() if math.isfinite(v)]


def _elsewhere(op: Op, own: Own | None) -> bool:
    """Whether an own matrix is none of those of a call: its module may make many."""
    return own is not None and not any(op is o for o in own.calls)


def places(facts: Facts) -> list[float]:
    """Return the size of the loss's gradient at every place of the rows of the first batch.

    Where rows are tokens it is taken at their embeddings. Empty where rows have no places.
    """
    xb, yb = facts.batch
    if not isinstance(xb, Tensor) or facts.inputs not in ("sequence", "tokens"):
        return []
    exp, seen = facts.exp, list[Tensor]()

    def keep(_: nn.Module, __: object, said: Tensor) -> None:
        if said.requires_grad and said.ndim == 3 and not seen:
            said.retain_grad()
            seen.append(said)

    facts.passes += 1
    with peeking(exp):
        exp.model.train()
        hooks = []
        if facts.inputs == "sequence":
            xb = xb.clone().requires_grad_()
            seen.append(xb)
        else:
            embeddings = [m for m in exp.model.modules() if isinstance(m, nn.Embedding)]
            hooks = [m.register_forward_hook(keep) for m in embeddings]
        try:
            exp.loss(call(exp.model, xb), yb).mean().backward()
        finally:
            for hook in hooks:
                hook.remove()
    if not seen or seen[0].grad is None or seen[0].shape[:2] != xb.shape[:2]:
        return []
    sizes: list[float] = seen[0].grad.float().square().mean((0, 2)).sqrt().tolist()
    return sizes


def first_units(facts: Facts) -> dict[str, UnitLook]:
    """Return a look at the activations before the first step on up to `ROWS` rows."""
    if "first_units" not in facts.notes:
        rows = facts.train[0] if facts.train else facts.batch[0]
        facts.passes += 1
        facts.notes["first_units"] = (
            units_of(facts.exp, rows, rows=ROWS) if rows is not None else {}
        )
    found: dict[str, UnitLook] = facts.notes["first_units"]
    return found


def know_nothing(facts: Facts) -> float:
    """Return the loss of the best answer that is the same for every row; NaN where it is unknown.

    A net that learns nothing of its inputs comes down to this, however high it began. The loss
    itself is asked, for a batch: it may be a sum, weigh classes or smooth labels.
    """
    first = facts.start or facts
    if "knowing nothing" not in first.notes:
        first.notes["knowing nothing"] = _know_nothing(first)
    found: float = first.notes["knowing nothing"]
    return found


def _know_nothing(first: Facts) -> float:
    y, kind, said = first.y, first.loss, first.outputs
    if y is None or not y.numel() or kind.sign < 0 or not isinstance(said, Tensor):
        return math.nan
    rows = y[:: max(1, len(y) * said[0].numel() // MOST)].to(said.device)
    told = [_same(answer.to(said), rows, first) for answer in _answers(first, y, said)]
    return min((v for v in told if math.isfinite(v)), default=math.nan)


def _answers(first: Facts, y: Tensor, said: Tensor) -> list[Tensor]:
    """Return what a net that knows nothing may say of every row: the best of them is unknown.

    Weights of classes and smoothed labels move the best distribution: towards heavy classes, and
    towards all alike.
    """
    name, shape = first.loss.name, said.shape[1:]
    if name in ("mse", "bce", "bce_logits"):
        mean = y.float().mean(0)
        mean = (
            mean.reshape(shape) if mean.numel() == math.prod(shape) else mean.mean().expand(shape)
        )
        p = mean.clamp(1e-6, 1 - 1e-6)
        return [{"mse": mean, "bce": p, "bce_logits": p.logit()}[name]]
    if name not in ("cross_entropy", "nll") or y.is_floating_point() or said.ndim < 2:
        return []
    n = torch.bincount(y[y >= 0].flatten(), minlength=shape[0]).float()
    if len(n) > shape[0]:
        return []
    weight = getattr(first.exp.loss, "weight", None)
    heavy = [n * weight.to(n)] if isinstance(weight, Tensor) and len(weight) == len(n) else []
    told = getattr(first.exp.loss, "label_smoothing", None)
    smoothed = {0.1} if told is None else {float(told)}  # a function of the user's may smooth too
    found = []
    for share in (n, *heavy):
        for even in {0.0, 1.0} | smoothed:
            p = (1 - even) * share / share.sum().clamp_min(1e-12) + even / len(n)
            log = p.clamp_min(1e-12).log()
            found.append(log.reshape(-1, *[1] * (len(shape) - 1)).expand(shape))
    return found


def _same(answer: Tensor, y: Tensor, first: Facts) -> float:
    """Return the loss of a batch in which every row has the same answer; NaN where it fails.

    All rows are asked at once. A loss that doubles with its rows is a sum.
    """
    size = min(len(first.batch[1]), len(y))
    few = y[:size]
    try:
        with torch.no_grad():
            one, two, whole = (
                float(first.exp.loss(answer.expand(len(p), *answer.shape), p))
                for p in (few, torch.cat([few, few]), y)
            )
    except (RuntimeError, ValueError, IndexError, TypeError):
        return math.nan
    return whole * size / len(y) if abs(two - 2 * one) < 1e-3 * abs(two) else whole


def renewed(facts: Facts, *, own: Sequence[float] | None = None) -> Trial:
    """Return how the run goes at its beginning with weights drawn anew; asked once for all rules.

    own  losses of the run as it is, where it was trained so far: it need not be once more

    Raises `CannotRepair` where no layer can be drawn anew.
    """
    first = facts.start or facts
    if "renewed" not in first.notes:
        steps = horizon(first.exp)
        if own is None or len(own) < steps:
            both = compared(first.exp, {"own": None, "renewed": renew}, steps=steps)
            facts.passes += 2 * steps
        else:
            seen = compared(first.exp, {"renewed": renew}, steps=steps)
            size = len(seen.tails["renewed"])
            tail = list(own[steps - size : steps])
            both = Trial(seen.begin, {"own": tail}, {"own": own[0]}, {}).and_also(seen)
            facts.passes += steps
        first.notes["renewed"] = both
    found: Trial = first.notes["renewed"]
    return found
