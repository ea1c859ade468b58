"""Whether a loss drives outputs away from the targets: a shape that no right loss has.

What is highest where outputs are the targets, or rises with the log-odds of what is true wherever
outputs are, has the wrong sign, whatever it is called.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from gipi.doctor.copies import peeking
from gipi.doctor.ends import class_width, last_call
from gipi.doctor.losses import shared_out
from gipi.doctor.tape import WEIGHTED

if TYPE_CHECKING:
    from gipi.doctor.facts import Facts

SURE, PARTS = 10.0, 4
"""Log-odds of an answer that is sure; columns of outputs that are asked whether they are driven."""
SQUASHED = frozenset(("sigmoid", "logsigmoid", "softmax", "log_softmax"))
CERTAIN = 1e-6
"""Distance of probabilities from 0 and 1 that log-odds are taken of, at the least."""
WAYS, FAR = 3, (0.1, 1.0, 10.0)
"""Random directions away from the targets, and deviations of the targets gone along each."""


def prefers_wrong(facts: Facts) -> bool:
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
            low, mid, high = (loss_of(facts, start + s * push) for s in (-1, 0, 1))
        except (RuntimeError, ValueError, IndexError, TypeError):
            return False
        if not low < mid < high:
            return False
    return True


def driven(facts: Facts) -> Place | None:
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
        path = [loss_of(facts, place.put(start + s * (y - start))) for s in (0, 0.5, 1)]
        if not path[0] < path[1] < path[2]:
            return False
    there = loss_of(facts, place.put(y))
    return all(loss_of(facts, place.put(y + s * far * spread * way)) < there
               for way in random[1:] for far in FAR for s in (-1, 1))  # fmt: skip


def _odds(facts: Facts, place: Place) -> bool:
    """Whether outputs are taken for log-odds of targets that are zeros and ones, or shares of one.

    They are where they go into a sigmoid, or softmax, of the loss as they are: turned around, as
    energies are, they may rightly be low where the target is one. So may distances, that are never
    negative; what comes out of weights as it is may be, though it is not so far. A softmax that is
    weighed by zeros and ones which are no shares is what choices cost.
    """
    tape, now = facts.loss_tape, place.now
    kinds = SQUASHED if shared_out(facts.batch[1]) else SQUASHED - {"softmax"}
    if not (_zeros_and_ones(facts) or _shares(facts)):
        return False
    if not (float(now.min()) < 0 or is_free(facts)):
        return False
    return tape is not None and any(
        op.inputs and op.inputs[0].shape == now.shape and torch.equal(op.inputs[0], now)
        for op in tape.of(kinds)
    )


def _zeros_and_ones(facts: Facts) -> bool:
    return set(torch.unique(facts.batch[1]).tolist()) == {0.0, 1.0}


def _shares(facts: Facts) -> bool:
    """Whether every row of targets shares out one among several classes."""
    y = facts.batch[1]
    if y.ndim < 2 or y.shape[-1] < 2 or not bool((y >= 0).all()):
        return False
    return float((y.sum(-1) - 1).abs().max()) < 1e-3


def is_free(facts: Facts) -> bool:
    """Whether outputs come out of weights as they are: they may have any sign."""
    last = last_call(facts)
    return last is not None and last.kind in WEIGHTED


def _chances(facts: Facts, place: Place) -> bool:
    """Whether outputs are probabilities of targets that are zeros and ones, place by place.

    They are where the net ends in a sigmoid of what comes out of weights, or says something of
    every place of its rows. Else one number a row may be made of a distance, which is rightly low
    for a pair that is alike.
    """
    last = last_call(facts)
    if last is None or last.kind != "sigmoid" or place.key is not None:
        return False
    if not _zeros_and_ones(facts):
        return False
    fed = facts.tape.source_of(last.inputs[0], before=last) if last.inputs else None
    return place.now.ndim > 2 or (fed is not None and fed.kind in WEIGHTED)


def _prefers_other(facts: Facts, place: Place, *, squashed: bool = False) -> bool:
    """Whether the loss rises with the log-odds of what is true, wherever outputs are.

    squashed  whether outputs are probabilities, whose log-odds are meant
    """
    now = place.now.logit(CERTAIN) if squashed else place.now
    push = (2 * facts.batch[1] - 1).reshape(now.shape).to(now)
    # Of shares too sure an answer is wrong as well.
    ways = (-SURE, -1, 0, 1, SURE) if _zeros_and_ones(facts) else (-1, 0, 1)
    generator = torch.Generator().manual_seed(0)
    for start in (now, torch.randn(now.shape, generator=generator).to(push)):
        moved = (start + s * push for s in ways)
        path = [loss_of(facts, place.put(m.sigmoid() if squashed else m)) for m in moved]
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


def loss_of(facts: Facts, said: Any) -> float:
    """Return the loss of some outputs for the first batch; a loss module stays as it is."""
    with peeking(facts.exp, seed=True), torch.no_grad():
        return float(facts.exp.loss(said, facts.batch[1]))


def alike(said: Tensor, y: Tensor) -> float:
    """Return the correlation of outputs with targets, each column apart from its mean."""
    a, b = (v.detach().double().reshape(len(v), -1) for v in (said, y))
    return float(F.cosine_similarity((a - a.mean(0)).flatten(), (b - b.mean(0)).flatten(), 0))


def nats(facts: Facts, place: Place, said: Any) -> float:
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
