"""Losses that ask for an order or a side only: their targets alone say which way is right.

Outputs are driven down where targets are high, which is right for energies, times and places of a
ranking, and wrong for scores.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from gipi.doctor.against import is_free
from gipi.doctor.asked import LEAST, Pulls, pulls_of, value_of

if TYPE_CHECKING:
    from gipi.doctor.facts import Facts

AT = (-3.0, -1.0, 0.0, 1.0, 3.0)
"""Deviations of the targets that are added to outputs."""
SAME = 1e-5
"""Part of a loss that is rounding."""


def ordered(facts: Facts) -> str:
    """Return what a loss of differences of outputs asks where it asks for the reverse order."""
    said, y = facts.outputs, facts.batch[1]
    if not isinstance(said, Tensor) or not isinstance(y, Tensor) or said.shape != y.shape:
        return ""
    if facts.kind != "numbers" or not is_free(facts) or not float(y.std()) > 0:
        return ""
    tape = facts.loss_tape
    if said.numel() != len(said) and tape is not None and tape.of({"softmax"}):
        return ""  # choices of a row, and what they cost
    push = ((y - y.mean()) / y.std()).to(said)
    drawn = torch.randn(said.shape, generator=torch.Generator().manual_seed(0)).to(said)
    for start in (said, drawn):
        path = [value_of(facts, start + s * push, y) for s in AT]
        known = [v for v in path if v is not None]
        if len(known) < len(AT) or not all(a < b for a, b in itertools.pairwise(known)):
            return ""
        moved = value_of(facts, start + 1, y)
        if moved is None or abs(moved - known[2]) > SAME * max(abs(moved), abs(known[2])):
            return ""
    return "the loss falls where outputs are low and targets high (right for times and places only)"


def decided(facts: Facts) -> str:
    """Return what a loss of two values asks where it pulls the higher one down."""
    said, y = facts.outputs, facts.batch[1]
    if not isinstance(said, Tensor) or not isinstance(y, Tensor) or said.numel() != y.numel():
        return ""
    if y.numel() != len(y) or len(torch.unique(y)) != 2 or not is_free(facts):
        return ""
    tape = facts.loss_tape
    if tape is None or any(op.inputs and op.inputs[0].shape == said.shape
                           and torch.equal(op.inputs[0], -said) for op in tape.ops):  # fmt: skip
        return ""  # who writes a minus there means energies
    pulls = pulls_of(facts)
    if pulls is None or not _turned(pulls):
        return ""
    return "the loss falls where outputs are low and targets high (right for energies only)"


def _turned(pulls: Pulls) -> bool:
    """Whether the higher of two targets is pulled down and the lower up, wherever outputs are."""
    values, found = torch.unique(pulls.y), pulls.alone
    if found is None or len(values) != 2 or pulls.y.numel() != len(pulls.y):
        return False
    sign = (2 * (pulls.y.reshape(-1, 1) == values[1]).double() - 1).to(found[0])
    along = torch.cat([sign * p for p in found], 1)
    if not all(int((sign == s).sum()) >= LEAST for s in (-1, 1)):
        return False
    against = [bool((along[sign[:, 0] == s] < 0).any()) for s in (-1, 1)]
    return bool((along <= 0).all()) and all(against)
