"""Matrices and kernels that modules of the user's own multiply by: what torch's layers do for them.

Nobody knows what a bare parameter is for. The tape of a forward pass shows it: who stands in a
product, and on which side, has units, and each of them so many inputs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from gipi.doctor.seeded import seeded
from gipi.doctor.spoken import counted

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from gipi.doctor.experiment import Experiment
    from gipi.doctor.facts import Facts
    from gipi.doctor.finding import Change
    from gipi.doctor.tape import Op, Tape

PRODUCTS = frozenset(("matmul", "linear", "conv"))
KERNELS = 3
"""Dimensions of the smallest kernel of a convolution."""
EQUAL = 1e-3
MATRIX = 2
AGAIN = 4
"""Calls in one pass from which on a square matrix hands a state on."""


@dataclass(frozen=True)
class Own:
    """A parameter that inputs are multiplied by.

    units   dimension of the parameter along which its units stand
    inputs  numbers that a unit sums over
    calls   the products that it stands in
    """

    name: str
    units: int
    inputs: int
    calls: tuple[Op, ...]

    def gain(self, weight: Tensor) -> float:
        """Return RMS of the weights times sqrt(inputs)."""
        return float(weight.detach().float().square().mean().sqrt()) * math.sqrt(self.inputs)


def own_weights(facts: Facts) -> dict[str, Own]:
    """Return what the tape knows of the parameters of the user's own modules, by name."""
    if "own weights" not in facts.notes:
        facts.notes["own weights"] = own_weights_of(facts.exp.model, facts.tape)
    found: dict[str, Own] = facts.notes["own weights"]
    return found


def own_weights_of(model: nn.Module, tape: Tape) -> dict[str, Own]:
    """Return the parameters that calls on a tape multiply by and that no layer of torch holds."""
    held = {p.data_ptr(): (n, p) for n, p in bare(model) if p.ndim > 1 and p.requires_grad}
    found: dict[str, Own] = {}
    for op in tape.of(PRODUCTS) if held else ():
        for name, units, inputs in _multiplied(op, held):
            calls = (*found[name].calls, op) if name in found else (op,)
            found[name] = Own(name, units, inputs, calls)
    return found


def bare(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Yield the parameters that modules other than torch's hold, with their names."""
    lists = (nn.ParameterList, nn.ParameterDict)
    for prefix, module in model.named_modules():
        if isinstance(module, lists) or not type(module).__module__.startswith("torch."):
            for leaf, p in module.named_parameters(recurse=False):
                yield (f"{prefix}.{leaf}" if prefix else leaf), p


def _multiplied(
    op: Op, held: Mapping[int, tuple[str, nn.Parameter]]
) -> Iterator[tuple[str, int, int]]:
    """Find the held matrices of a call: name, dimension of the units, inputs of a unit."""
    if len(op.args) < 2 or not all(isinstance(a, Tensor) for a in op.args[:2]):
        return  # an einsum, whose letters say what is summed
    for at, value in enumerate(op.args[:2]):
        name, p = held.get(value.data_ptr(), ("", None))
        if p is None or value.numel() != p.numel() or value.ndim != p.ndim:
            continue
        if op.kind == "conv":
            if at and p.ndim >= KERNELS:
                yield name, 0, value[0].numel()
        elif value.ndim > 1:
            first = at == 0 or op.kind == "linear"
            units, summed = (-2, -1) if first else (-1, -2)
            turned = value.stride() != p.stride() and value.shape == p.transpose(-1, -2).shape
            yield name, p.ndim + (-3 - units if turned else units), value.shape[summed]


def recurrences(facts: Facts) -> tuple[list[Tensor], bool]:
    """Return the matrices that hand a state on, and whether one of them does without a gate.

    In a loop of the user's own it is the square ones that are called again and again; one alone has
    no gate beside it.
    """
    model = facts.exp.model
    cells = [m for m in model.modules() if isinstance(m, (nn.RNNBase, nn.RNNCellBase))]
    found = [p for m in cells for n, p in m.named_parameters() if "weight_hh" in n]
    plain = any(isinstance(m, (nn.RNN, nn.RNNCell)) for m in cells)
    calls: dict[str, int] = {}
    for op in facts.tape.of({"linear"}):
        calls[op.module] = calls.get(op.module, 0) + 1
    held, own = dict(model.named_parameters()), own_weights(facts)
    loops = [m.weight for n, m in model.named_modules()
             if isinstance(m, nn.Linear) and calls.get(n, 0) >= AGAIN]  # fmt: skip
    loops += [held[n] for n, o in own.items() if len(o.calls) >= AGAIN and held[n].ndim == MATRIX]
    loops = [p for p in loops if p.requires_grad and p.shape[0] == p.shape[1]]
    return found + loops, plain or len(loops) == 1


def along(weight: Tensor, units: int) -> Tensor:
    """Return a parameter as rows, one a unit."""
    return weight.transpose(0, units).flatten(1)


def usual(
    own: Mapping[str, int], *, others: Sequence[str] = (), layers: Change | None = None
) -> Change:
    """Return the change that gives own matrices the usual size: 1 / sqrt(inputs).

    Who has differing units is only scaled: what was meant by their directions stays. Others are
    drawn at random.

    own     name -> inputs of a unit
    others  names of all weights that are changed; layers: what is done to those that torch holds
    """

    def change(exp: Experiment) -> str:
        held = dict(exp.model.named_parameters())
        rest = [n for n in others if n not in own]
        if rest and layers is not None:
            layers(exp)
        with seeded(exp), torch.no_grad():
            for name, inputs in own.items():
                p = held[name]
                size = float(p.float().square().mean().sqrt()) * math.sqrt(inputs)
                if size > 0 and float((p - p.mean()).abs().max()) > EQUAL * float(p.abs().max()):
                    p.div_(size)
                else:
                    p.copy_(torch.randn_like(p) / math.sqrt(inputs))
        return f"the weights of {counted(len(own) + len(rest), 'layer')} have the usual size"

    return change
