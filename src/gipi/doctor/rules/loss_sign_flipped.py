"""Training climbs: the loss, the optimizer or the step has the wrong sign."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from gipi.doctor.bottomless import bottomless
from gipi.doctor.copies import peeking
from gipi.doctor.ends import class_width, last_call
from gipi.doctor.experiment import call, judged
from gipi.doctor.finding import Finding, Repair
from gipi.doctor.losses import shared_out
from gipi.doctor.probes import after_steps
from gipi.doctor.rule import DYNAMICS, EXACT, Rule
from gipi.doctor.rules.double_softmax import are_probabilities
from gipi.doctor.tape import WEIGHTED

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gipi.doctor.experiment import Experiment
    from gipi.doctor.facts import Facts

AGAINST = -0.9
"""Cosine of the gradient that the optimizer sees with that of the loss."""
STEPS = 20
WORSE, OPPOSED, OPPOSITE = 0.2, 0.3, -0.5
"""Nats by which the truth must have become less likely after `STEPS`, of numbers the fall of their
correlation with the targets, and the correlation below which any fall is enough."""
SURE, PARTS = 10.0, 4
"""Log-odds of an answer that is sure; columns of outputs that are asked whether they are driven."""
SQUASHED = frozenset(("sigmoid", "logsigmoid", "softmax", "log_softmax"))
CERTAIN = 1e-6
"""Distance of probabilities from 0 and 1 that log-odds are taken of, at the least."""
WAYS, FAR = 3, (0.1, 1.0, 10.0)
"""Random directions away from the targets, and deviations of the targets gone along each."""


def before(facts: Facts) -> Iterator[Finding]:
    """Yield the finding where an odd number of signs is turned."""
    turned = []
    if facts.loss.sign < 0 and not _is_expected_cost(facts):
        turned.append(f"the loss function is minus {facts.loss.name}")
    if all(g.get("maximize") for g in facts.exp.optimizer.param_groups):
        turned.append("the optimizer was made with maximize=True")
    if facts.loss.name != "other" or turned:
        if _step_turns(facts):
            turned.append("the step goes against the gradient of the loss")
        if len(turned) % 2:
            yield _finding(" and ".join(turned), confirmed=True)
    elif any(isinstance(v, Tensor) and v.is_complex() for v in (facts.outputs, facts.batch[1])):
        return  # nothing of them is more than another
    elif _prefers_wrong(facts):
        yield _finding("the loss falls where the true class becomes less likely", confirmed=False)
    elif _driven(facts) is not None:
        yield _finding("the loss falls where outputs leave what they shall be", confirmed=False)
    elif bottomless(facts):
        yield _finding("the loss falls without end wherever outputs go", confirmed=False)


def confirm(facts: Facts, finding: Finding) -> Finding | None:
    """Take some steps: the finding stands where the truth has become less likely."""
    xb, yb = facts.batch
    if yb.is_floating_point():
        return _opposed(facts, finding)
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


def _prefers_wrong(facts: Facts) -> bool:
    """Whether a loss of classes rises with the logit of the truth, wherever outputs are."""
    said, y, wide = facts.outputs, facts.batch[1], class_width(facts)
    if facts.kind not in ("classes", "tokens") or wide is None or y.is_floating_point():
        return False
    if int(y.min()) < 0 or int(y.max()) >= wide[1] or said.ndim != y.ndim + 1:
        return False
    push = F.one_hot(y, wide[1]).movedim(-1, wide[0]).to(said.dtype)
    generator = torch.Generator().manual_seed(0)
    for start in (said, torch.randn(said.shape, generator=generator).to(said)):
        try:
            low, mid, high = (_loss(facts, start + s * push) for s in (-1, 0, 1))
        except (RuntimeError, ValueError, IndexError, TypeError):
            return False
        if not low < mid < high:
            return False
    return True


def _driven(facts: Facts) -> Place | None:
    """Return what a loss of numbers drives away from the targets; None where there is no such."""
    if facts.kind not in ("numbers", "reconstruct", "binary", "multilabel"):
        return None
    y = facts.batch[1]
    if not isinstance(y, Tensor) or y.numel() < 2 or not bool(y.isfinite().all()):
        return None
    try:
        for place in _places(facts.outputs, y):
            if _drives_away(facts, place) or (_odds(facts, place) and _prefers_other(facts, place)):
                return place
            if _chances(facts, place) and _prefers_other(facts, place, squashed=True):
                return place
    except (RuntimeError, ValueError, IndexError, TypeError):
        return None
    return None


def _drives_away(facts: Facts, place: Place) -> bool:
    """Whether a loss of numbers rises all the way to the target, and is highest there.

    A loss may well rise on the way and be right: outputs may be logarithms, rates, precisions,
    energies, which are large where the target is small. Nothing singles out the target itself then.
    An error whose sign is turned is highest where there is none: it falls from there on all ways.
    """
    y, now = facts.batch[1].reshape(place.now.shape), place.now
    generator = torch.Generator().manual_seed(0)
    random = [torch.randn(now.shape, generator=generator).to(now) for _ in range(1 + WAYS)]
    spread = y.std()
    for start in (now, y.mean() + spread * random[0]):
        path = [_loss(facts, place.put(start + s * (y - start))) for s in (0, 0.5, 1)]
        if not path[0] < path[1] < path[2]:
            return False
    there = _loss(facts, place.put(y))
    return all(_loss(facts, place.put(y + s * far * spread * way)) < there
               for way in random[1:] for far in FAR for s in (-1, 1))  # fmt: skip


def _odds(facts: Facts, place: Place) -> bool:
    """Whether outputs are taken for log-odds of targets that are zeros and ones.

    They are where they go into a sigmoid, or softmax, of the loss as they are: turned around, as
    energies are, they may rightly be low where the target is one. So may distances, that are never
    negative; what comes out of weights as it is may be, though it is not so far. A softmax that is
    weighed by zeros and ones which are no shares is what choices cost.
    """
    tape, now = facts.loss_tape, place.now
    kinds = SQUASHED if shared_out(facts.batch[1]) else SQUASHED - {"softmax"}
    if not _zeros_and_ones(facts) or not (float(now.min()) < 0 or _is_free(facts)):
        return False
    return tape is not None and any(
        op.inputs and op.inputs[0].shape == now.shape and torch.equal(op.inputs[0], now)
        for op in tape.of(kinds)
    )


def _zeros_and_ones(facts: Facts) -> bool:
    return set(torch.unique(facts.batch[1]).tolist()) == {0.0, 1.0}


def _is_free(facts: Facts) -> bool:
    """Whether outputs come out of weights as they are: they may have any sign."""
    last = last_call(facts)
    return last is not None and last.kind in WEIGHTED


def _chances(facts: Facts, place: Place) -> bool:
    """Whether outputs are probabilities of targets that are zeros and ones, place by place.

    They are where the net ends in a sigmoid and says something of every place of its rows. One
    number a row may be a distance as well, which is rightly low for a pair that is alike.
    """
    if place.key is not None or place.now.ndim < 3 or not _zeros_and_ones(facts):
        return False
    last = last_call(facts)
    return last is not None and last.kind == "sigmoid"


def _prefers_other(facts: Facts, place: Place, *, squashed: bool = False) -> bool:
    """Whether the loss rises with the log-odds of what is true, wherever outputs are.

    squashed  whether outputs are probabilities, whose log-odds are meant
    """
    now = place.now.logit(CERTAIN) if squashed else place.now
    push = (2 * facts.batch[1] - 1).reshape(now.shape).to(now)
    generator = torch.Generator().manual_seed(0)
    for start in (now, torch.randn(now.shape, generator=generator).to(push)):
        moved = (start + s * push for s in (-SURE, -1, 0, 1, SURE))
        path = [_loss(facts, place.put(m.sigmoid() if squashed else m)) for m in moved]
        if not all(a < b for a, b in itertools.pairwise(path)):
            return False
    return True


@dataclass(frozen=True)
class Place:
    """A part of the outputs that may stand for the targets.

    key  its number where outputs are several, or the index of its columns; None: all there is
    """

    said: Any
    key: int | tuple[slice, slice] | None = None

    def of(self, said: Any) -> Tensor:
        """Return this part of any outputs."""
        part: Tensor = said if self.key is None else said[self.key]
        return part.detach()

    @property
    def now(self) -> Tensor:
        """This part of the outputs as they are."""
        return self.of(self.said)

    def put(self, part: Tensor) -> Any:
        """Return the outputs with another part in its place."""
        if self.key is None:
            return part
        if isinstance(self.key, int):
            return type(self.said)([*self.said[: self.key], part, *self.said[self.key + 1 :]])
        said = self.said.clone()
        said[self.key] = part
        return said


def _places(said: Any, y: Tensor) -> list[Place]:
    """Return the parts of outputs that may stand for the targets."""
    if type(said) in (tuple, list):
        return [Place(said, n) for n, part in enumerate(said)
                if isinstance(part, Tensor) and part.shape == y.shape]  # fmt: skip
    if not isinstance(said, Tensor):
        return []
    if said.shape == y.shape:
        return [Place(said)]
    wide = y.numel() // len(y)
    if said.ndim != 2 or y.ndim > 2 or len(said) != len(y) or said.shape[1] % wide:
        return []
    starts = range(0, said.shape[1], wide)[:PARTS]
    return [Place(said, (slice(None), slice(start, start + wide))) for start in starts]


def _loss(facts: Facts, said: Any) -> float:
    """Return the loss of some outputs for the first batch; a loss module stays as it is."""
    with peeking(facts.exp, seed=True), torch.no_grad():
        return float(facts.exp.loss(said, facts.batch[1]))


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
    place = _driven(facts)
    if place is None and not bottomless(facts):
        return None
    xb, yb = facts.batch
    losses, twin = after_steps(facts.exp, STEPS)
    facts.passes += STEPS + 2
    with torch.no_grad():
        was, now = (_said(exp, xb) for exp in (facts.exp, twin))
        if place is None:
            return _fallen(facts, finding, was, now)
        first, after = (_alike(place.of(said), yb) for said in (was, now))
        likely, unlikely = (_nats(facts, place, said) for said in (was, now))
    if not (after < first - OPPOSED or after < min(first, OPPOSITE) or unlikely > likely + WORSE):
        return None
    if facts.exp.metric is not None and judged(facts.exp, now, yb) > judged(facts.exp, was, yb):
        return None  # whoever says how it is judged says what is right
    return finding.but(confirmed=True, evidence={
        "correlation_before": first, "correlation_after": after, "loss": losses[-1]})  # fmt: skip


def _fallen(facts: Facts, finding: Finding, was: Any, now: Any) -> Finding | None:
    """Return the finding where steps go down a loss without a bottom, and no metric is better."""
    first, after = _loss(facts, was), _loss(facts, now)
    if not after < first:
        return None
    if facts.exp.metric is not None:
        yb = facts.batch[1]
        if judged(facts.exp, now, yb) > judged(facts.exp, was, yb):
            return None
    return finding.but(confirmed=True, evidence={"loss_before": first, "loss_after": after})


def _alike(said: Tensor, y: Tensor) -> float:
    """Return the correlation of outputs with targets, each column apart from its mean."""
    a, b = (v.detach().double().reshape(len(v), -1) for v in (said, y))
    return float(F.cosine_similarity((a - a.mean(0)).flatten(), (b - b.mean(0)).flatten(), 0))


def _nats(facts: Facts, place: Place, said: Any) -> float:
    """Return minus the log-probability of the truth, NaN where outputs are no chances of it.

    Of chances near 0 and 1 a correlation says little: all are nearly alike.
    """
    part, y = place.of(said), facts.batch[1].reshape(place.now.shape)
    if _chances(facts, place):
        return float(F.binary_cross_entropy(part.nan_to_num(0.5), y.to(part)))
    if not _odds(facts, place):
        return math.nan
    tape = facts.loss_tape
    if tape is not None and part.ndim > 1 and any(tape.of({"softmax", "log_softmax"})):
        return float(F.cross_entropy(part, y.to(part)))
    return float(F.binary_cross_entropy_with_logits(part, y.to(part)))


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
    passes=STEPS + 2,
    causes=(*DYNAMICS, "bad_init_scale"),
)
