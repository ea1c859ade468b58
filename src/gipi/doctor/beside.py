"""What layers have beside their matrices: biases far from 0, weights of norms far from 1."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from gipi.doctor.units import RECTIFIERS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gipi.doctor.experiment import Experiment
    from gipi.doctor.facts import Facts

LAYERS = (nn.Linear, nn.modules.conv._ConvNd, nn.RNNBase)  # noqa: SLF001  torch has no other name
NORMS = (nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, nn.modules.batchnorm._NormBase)  # noqa: SLF001
ADDED = 2.5
"""RMS of biases: what inputs of size one bring in is as large as 1 or 2."""
SCALED = 0.05, 2.5
"""RMS of the weights of a norm."""


def besides(facts: Facts, ends: Iterable[str]) -> dict[str, float]:
    """Return RMS of biases and of the weights of norms that are far from the usual, by name.

    Zeros are meant: a branch that begins at nothing. So is what the last layer adds.

    ends  modules that make the outputs
    """
    found, last = {}, set(ends)
    rectified = bool(facts.tape.of(RECTIFIERS))
    for name, p in facts.exp.model.named_parameters():
        owner, (module, _, leaf) = facts.owners.get(name), name.rpartition(".")
        if p.ndim != 1 or not p.requires_grad or not p.numel() or module in last:
            continue
        size = float(p.detach().float().square().mean().sqrt())
        biased = isinstance(owner, LAYERS) and leaf.startswith("bias") and size > ADDED
        if biased and rectified and float(p.detach().mean()) < -ADDED:
            continue  # what they bring about has a name: units that are dead
        scaled = isinstance(owner, NORMS) and leaf == "weight" and size > 0
        if biased or (scaled and not SCALED[0] <= size <= SCALED[1]):
            found[name] = size
    return found


def neutral(exp: Experiment, names: Iterable[str]) -> None:
    """Set biases to 0, and the weights of norms to 1."""
    held = dict(exp.model.named_parameters())
    with torch.no_grad():
        for name in names:
            held[name].fill_(0.0 if name.rpartition(".")[2].startswith("bias") else 1.0)
