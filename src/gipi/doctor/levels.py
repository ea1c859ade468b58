"""Targets that are a few numbers at even distances, and what a net makes of them as classes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gipi.doctor.copies import renewed_optimizer
from gipi.doctor.ends import last_call
from gipi.doctor.finding import CannotRepair
from gipi.doctor.rewire import Edited, Ended, Skip, replace_module
from gipi.doctor.spoken import place_of

if TYPE_CHECKING:
    from gipi.doctor.experiment import Experiment
    from gipi.doctor.facts import Facts
    from gipi.doctor.finding import Change
    from gipi.doctor.tape import Op

MOST = 50
ORDERS = 500
UNEVEN = 1e-3
"""Part of a step by which numbers may be off even distances: they may have been standardised."""


@dataclass(frozen=True)
class Levels:
    """Numbers low, low + step, ... of which there are `count`."""

    low: float
    step: float
    count: int

    def at(self, y: Tensor) -> Tensor:
        """Return how many steps above the lowest numbers are."""
        return (y - self.low) / self.step


def levels_of(y: Tensor) -> Levels | None:
    """Return the levels that targets are of; None where they are other numbers, or two."""
    values = torch.unique(y).double().cpu()
    count = len(values)
    if not 3 <= count <= MOST or not bool(values.isfinite().all()):
        return None
    step = float(values[-1] - values[0]) / (count - 1)
    even = values[0] + step * torch.arange(count).double()
    if float((values - even).abs().max()) > UNEVEN * step:
        return None
    return Levels(float(values[0]), step, count)


def in_order(p_nk: Tensor, y_n: Tensor) -> float:
    """Return the share of ways to number classes in which those taken for each other are as near.

    Σ_n Σ_k p_nk |π(k) - π(y_n)| over random orders π: of names it is as likely small as large, of
    levels small, for what is taken for a level lies beside it.
    """
    classes = p_nk.shape[1]
    taken = torch.zeros(classes, classes, dtype=torch.float64)
    taken.index_add_(0, y_n.long().cpu(), p_nk.double().cpu())
    generator = torch.Generator().manual_seed(0)
    orders = torch.stack([torch.arange(classes), *(torch.randperm(classes, generator=generator)
                                                   for _ in range(ORDERS))]).double()  # fmt: skip
    far = ((orders[:, :, None] - orders[:, None]).abs() * taken).sum((1, 2))
    return float((far[1:] <= far[0] * (1 + 1e-9)).double().mean())


def score_of(facts: Facts) -> Op | None:
    """Return the last product with weights, where it gives the one number of a row."""
    ops = facts.tape.of({"linear", "matmul"})
    rows = len(facts.batch[1])
    good = ops and ops[-1].output.numel() == rows and len(ops[-1].output) == rows
    return ops[-1] if good else None


def as_classes(facts: Facts, op: Op, levels: Levels) -> Change:
    """Return the change to an output for each class and cross-entropy.

    A linear layer at the end is replaced; any other product is passed by, and what it was given
    goes to a layer behind the net.
    """
    nth = [id(o) for o in facts.tape.of({op.kind})].index(id(op))
    last = last_call(facts) is op
    features = op.inputs[0].shape[-1]

    def change(exp: Experiment) -> str:
        old = exp.model.get_submodule(op.module) if op.module else None
        layer = isinstance(old, nn.Linear) and old.out_features == 1
        if not layer and features < 2:
            message = "the net does not end in a linear layer with one output"
            raise CannotRepair(message)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(exp.seed)
            new = nn.Linear(features, levels.count)
        new = new.to(op.output)
        if layer and last:
            assert isinstance(old, nn.Linear)
            new.register_parameter("bias", None if old.bias is None else new.bias)
            replace_module(exp.model, op.module, by=new)
            where = place_of(op.module)
        else:
            exp.model = Ended(Edited(exp.model, Skip(op.kind, nth)), new)
            where = "a layer behind the net"
        renewed_optimizer(exp)
        exp.loss = Named(levels)
        return f"{where} has {levels.count} outputs, and the loss is cross-entropy"

    return change


@dataclass(frozen=True)
class Named:
    """Cross-entropy of targets that are levels."""

    levels: Levels

    def __call__(self, said: Tensor, y: Tensor) -> Tensor:
        """Return the mean of minus the log-probability of each level."""
        return F.cross_entropy(
            said.reshape(y.numel(), -1), self.levels.at(y).round().long().flatten()
        )
