"""Looks at the units of activation functions: dead, saturated, how far they spread."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from gipi.doctor.trace import UnitLook

if TYPE_CHECKING:
    from collections.abc import Callable

    from gipi.doctor.tape import Op, Tape

FLAT = 0.05
"""A unit is saturated where its mean slope is below this share of the largest possible slope."""
CHANNELS_FIRST = 4
"""Outputs of four dimensions are (N, C, H, W): a unit is a channel; else it is the last one."""

SLOPES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "sigmoid": lambda _, y: 4 * y * (1 - y),
    "tanh": lambda _, y: 1 - y * y,
    "hardtanh": lambda x, y: (x == y).float(),
    "hardsigmoid": lambda x, _: (x.abs() < 3).float(),
}
"""f'(x) / max f' from input x and output y."""
RECTIFIERS = frozenset(("relu", "relu6"))


def units(value: Tensor) -> Tensor:
    """Return (rows and places, units) of the output of an activation function."""
    if value.ndim == CHANNELS_FIRST:
        return value.transpose(1, -1).reshape(-1, value.shape[1])
    if value.ndim == CHANNELS_FIRST - 1:
        return value.reshape(-1, value.shape[-1])
    return value.reshape(len(value), -1) if value.ndim > 1 else value.reshape(-1, 1)


def look_at(op: Op) -> UnitLook:
    """Return what one activation's outputs show."""
    y = units(op.output.detach()).float()
    dead = saturated = 0.0
    if op.kind in RECTIFIERS:
        dead = float((y <= 0).all(0).float().mean())
    slope = SLOPES.get(op.kind)
    if slope is not None and op.inputs:
        x = units(op.inputs[0].detach()).float()
        if x.shape == y.shape:
            saturated = float((slope(x, y).mean(0) < FLAT).float().mean())
    std = float(y.std()) if y.numel() > 1 else 0.0
    return UnitLook(op.kind, dead, saturated, std, len(op.output), y.shape[1])


def looks_at(tape: Tape) -> dict[str, UnitLook]:
    """Return a look at every activation function on a tape, in order of execution.

    One that makes the outputs themselves is left out: a sure probability is flat, and right so.
    """
    said = tape.outputs if isinstance(tape.outputs, Tensor) else None
    last = tape.maker_of(said) if said is not None else None
    with torch.no_grad():
        return {
            op.place: look_at(op)
            for op in tape.ops
            if op.kind in RECTIFIERS | SLOPES.keys() and op is not last and op.output.numel()
        }
