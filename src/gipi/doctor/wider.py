"""A net several times side by side: whether width is what it lacks, whatever its layers are."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from gipi.doctor.copies import renewed_optimizer
from gipi.doctor.probes import after_steps, loss_on
from gipi.doctor.seeded import seeded
from gipi.doctor.trials import some

if TYPE_CHECKING:
    from gipi.doctor.experiment import Experiment
    from gipi.doctor.facts import Facts
    from gipi.doctor.trace import Trace

TIMES = 3
"""Copies."""
LEAST, MOST, RUNS = 100, 400, 1.5
"""Steps that the copies take together, as many as the run has between them; and as many runs may
be their cost, which is seldom asked for, and only of nets so small."""
PER_WEIGHT = 20
"""Answers for a weight from which on a net may be too small for its rows."""
HIGH, ALIKE = 0.04, 0.05
"""Loss of training rows that is high, and by which that of validation rows is alike, as shares of a
loss that means nothing is known."""
LOWER, MATTERS = 0.15, 0.03
"""By how much the loss must fall: as a share of itself, and of the one that knows nothing."""


class SideBySide(nn.Module):
    """The mean, or the sum over the root of their number, of what several nets say."""

    def __init__(self, nets: list[nn.Module], scale: float) -> None:
        super().__init__()
        self.nets, self.scale = nn.ModuleList(nets), scale

    def forward(self, *given: Any) -> Tensor:
        """Return the outputs added and scaled."""
        said = [net(*given) for net in self.nets]
        if not all(isinstance(s, Tensor) for s in said):
            message = "outputs that are no tensors cannot be added"
            raise TypeError(message)
        return torch.stack(said).sum(0) * self.scale


@dataclass(frozen=True)
class Wider:
    """Losses of training and validation rows: of the net at its end, and of the copies.

    steps  that the copies took
    """

    net: tuple[float, float]
    copies: tuple[float, float]
    steps: int


def may_be_small(facts: Facts, trace: Trace) -> bool:
    """Whether a run ends with losses that are high and alike, of far fewer weights than answers."""
    exp, first = facts.exp, facts.start or facts
    y = first.batch[1]
    if trace.done < 1 or trace.open or trace.broken is not None or not trace.epochs:
        return False
    if exp.step is not None or exp.transform is not None or not isinstance(y, Tensor):
        return False
    if not _plain(exp):
        return False
    weights = sum(p.numel() for p in exp.model.parameters())
    if weights * PER_WEIGHT > first.rows * y.numel() / max(1, len(y)):
        return False
    blind = min(abs(trace.scale), first.yardstick or math.inf)
    ends = [trace.epochs[-1].get(k, math.nan) for k in ("train_eval", "val")]
    if not all(map(math.isfinite, ends)):
        return False
    return bool(ends[0] > HIGH * blind and ends[1] - ends[0] < ALIKE * blind)


def _plain(exp: Experiment) -> bool:
    """Whether all weights learn, and alike: else copies would not be what the net is."""
    held = [{k: v for k, v in g.items() if k != "params"} for g in exp.optimizer.param_groups]
    alike = all(options == held[0] for options in held)
    return alike and all(p.requires_grad for p in exp.model.parameters())


def wider(facts: Facts) -> Wider | None:
    """Train copies side by side from the start; None where they do not do far better.

    Layers side by side are one layer of several times the width whose parts do not see each other.
    Under an optimizer that scales its steps the mean of n nets moves as fast as one, under plain
    gradient descent their sum over √n does: what is won is width, not a higher rate. The copies
    must be better after their steps than the net is at its end.
    """
    assert facts.start is not None
    first, rows = facts.start, [some(facts.start.train), some(facts.start.val)]
    total = first.exp.total_steps
    left = max(facts.allowed, RUNS * total) - facts.passes
    steps = int(min(MOST, total, left / TIMES))
    if steps < min(LEAST, total) or rows[0] is None or rows[1] is None:
        return None
    try:
        twin = after_steps(first.exp, steps, change=side_by_side)[1]
        facts.passes += TIMES * steps
        net, copies = ([loss_on(exp, *pair) for pair in rows if pair] for exp in (facts.exp, twin))
    except (RuntimeError, ValueError, TypeError, IndexError, AttributeError):
        return None
    for now, then in zip(net, copies, strict=True):
        if not now - then > max(LOWER * abs(now), MATTERS * first.yardstick):
            return None
    return Wider((net[0], net[1]), (copies[0], copies[1]), steps)


def side_by_side(exp: Experiment) -> None:
    """Put copies with shuffled weights beside the net of an experiment."""
    nets: list[nn.Module] = [exp.model]
    with seeded(exp), torch.no_grad():
        for _ in range(TIMES - 1):
            net = copy.deepcopy(exp.model)
            for weight in net.parameters():
                weight.copy_(weight.flatten()[torch.randperm(weight.numel())].view_as(weight))
            nets.append(net)
    adapts = type(exp.optimizer).__name__ not in ("SGD", "ASGD")
    exp.model = SideBySide(nets, 1 / TIMES if adapts else TIMES**-0.5)
    renewed_optimizer(exp)
