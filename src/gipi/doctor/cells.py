"""How the tanhs within recurrent layers stand, which no module of their own shows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from gipi.doctor.trace import UnitLook
from gipi.doctor.units import FLAT

if TYPE_CHECKING:
    from gipi.doctor.facts import Facts
    from gipi.doctor.tape import Op

CANDIDATE = {"lstm": (2, 4), "gru": (2, 3)}
"""Which of how many blocks of rows of `weight_ih` makes the tanh that a gated cell takes in."""


def first_cells(facts: Facts) -> dict[str, UnitLook]:
    """Return a look at the tanhs of recurrent layers on the first batch, before the first step.

    Over the places of a row a unit sweeps through its slope, so that it is not flat in the mean:
    the share of all states, of rows, places and units, that are flat is what counts. Of gated cells
    it is asked of what the inputs alone make of their tanh; the gates may stand where they like.
    """
    found = {}
    for op in facts.tape.of({"rnn", "lstm", "gru"}):
        said = _said(facts, op)
        if said is not None and said.numel() > 1:
            flat = float((1 - said.square() < FLAT).float().mean())
            spread, width = float(said.std()), said.shape[-1]
            found[op.place] = UnitLook(op.kind, 0.0, flat, spread, len(op.output), width)
    return found


def _said(facts: Facts, op: Op) -> Tensor | None:
    """Return the values of the tanhs of a recurrent layer; None where it has none."""
    cell = facts.exp.model.get_submodule(op.module)
    if not isinstance(cell, nn.RNNBase):
        return None
    if op.kind == "rnn":
        return op.output.detach().float() if cell.nonlinearity == "tanh" else None
    at, blocks = CANDIDATE[op.kind]
    held = dict(cell.named_parameters())
    with torch.no_grad():
        weight = held["weight_ih_l0"].chunk(blocks)[at]
        if not op.inputs or op.inputs[0].shape[-1] != weight.shape[1]:
            return None
        said = op.inputs[0].detach().to(weight) @ weight.T
        if cell.bias:
            said = said + held["bias_ih_l0"].chunk(blocks)[at]
        return said.tanh().float()
