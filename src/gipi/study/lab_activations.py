"""Every activation with its derivative, as autograd computes it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from gipi.core.svg import Line, line_chart, number
from gipi.nn import ACTIVATIONS
from gipi.study.lab_charts import SMALL
from gipi.study.lab_page import Experiment, Picture

if TYPE_CHECKING:
    from torch import Tensor, nn

    from gipi.core.registry import Record

REACH = 5.0
FRAME = (-1.8, 2.2)
SIZE = (SMALL[0], SMALL[1] + 14)
FLAT = 1e-3
"""A slope below this passes nothing on."""


def value_and_slope(module: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return f(x) and f'(x) of an elementwise module, both (N,); the slope is autograd's.

    x  (N,) floating
    """
    x = x.detach().clone().requires_grad_()
    y = module(x[:, None])[:, 0]
    if not y.requires_grad:
        return y.detach(), torch.zeros_like(y)
    (slope,) = torch.autograd.grad(y.sum(), x)
    return y.detach(), slope


def curves(record: Record, x: Tensor) -> tuple[list[Line], dict[str, Any]]:
    """Return the lines of one activation and its numbers: value, slope, where it is flat.

    Maxout is drawn on the pieces x and -x/2, softmax on the logits (x, 0, -1).
    """
    module = record.build().to(x.dtype)
    if "widens" in record.tags:
        pieces = torch.stack([x, -x / 2], 1).requires_grad_()
        y = module(pieces)[:, 0]
        (grad,) = torch.autograd.grad(y.sum(), pieces)
        slope = grad[:, 0] - grad[:, 1] / 2
        drawn = [("max(x, -x/2)", y.detach(), 1), ("derivative", slope, 2)]
    elif "elementwise" not in record.tags:
        logits = torch.stack([x, torch.zeros_like(x), torch.full_like(x, -1.0)], 1)
        logits.requires_grad_()
        shares = module(logits)
        (grad,) = torch.autograd.grad(shares[:, 0].sum(), logits)
        y, slope = shares[:, 0].detach(), grad[:, 0]
        drawn = [("first output", y, 1), ("derivative", slope, 2)]
        drawn += [(f"output {i + 1}", shares[:, i].detach(), 0) for i in (1, 2)]
    else:
        y, slope = value_and_slope(module, x)
        drawn = [("f", y, 1), ("derivative", slope, 2)]
    lines = [_inside(name, x, v, colour) for name, v, colour in drawn]
    numbers = {
        "least": y.min().item(),
        "greatest": y.max().item(),
        "at_zero": y[(x.abs()).argmin()].item(),
        "steepest": slope.abs().max().item(),
        "flat_share": (slope.abs() < FLAT).double().mean().item(),
    }
    return lines[::-1], numbers


def _formula(record: Record) -> str:
    """Return the formula, with what its letters mean where that fits, else the summary."""
    formula, where = record.facts.get("formula", record.summary), record.facts.get("where", "")
    if not where or "=" not in where or where.split(" = ")[0] != "t":
        return str(formula)
    long = f"{formula}, {where}"
    return long if len(long) <= 36 else record.summary


def _inside(name: str, x: Tensor, values: Tensor, colour: int) -> Line:
    """Return the part of a curve that lies inside the frame."""
    seen = (values >= FRAME[0]) & (values <= FRAME[1])
    return Line(name, x[seen].tolist(), values[seen].tolist(), colour, dashed=colour == 2)


def activations(seed: int = 0) -> Experiment:
    """Draw f and f' of every activation of the registry; nothing here is random."""
    del seed
    x = torch.linspace(-REACH, REACH, 401, dtype=torch.float64)
    panels, numbers = [], {}
    for record in ACTIVATIONS:
        lines, numbers[record.name] = curves(record, x)
        panels.append(
            line_chart(
                lines, width=SIZE[0], height=SIZE[1], x_label=_formula(record),
                label=record.name, title=record.name, y_range=FRAME,
            )
        )  # fmt: skip
    steep = numbers["sigmoid"]["steepest"]
    picture = Picture(
        "lab-activations",
        "Every activation and its derivative",
        "The solid line is the activation, the dashed one its derivative: the factor by which a "
        "layer multiplies the gradient on its way back. Where the dashed line lies on zero a unit "
        f"learns nothing. The sigmoid's derivative is never above {steep:.2f}, so ten such layers "
        f"leave at most {number(steep**10, 1)} of the gradient; ReLU keeps exactly 1 "
        "wherever it is on.",
        "∂L/∂x = f'(x) · ∂L/∂f(x)",
        "Rumelhart, Hinton and Williams 1986, Learning representations by back-propagating errors; "
        "the source of each activation: gipi show NAME",
        tuple(panels),
        SIZE,
        keys=(("activation f(x)", 1), ("derivative f'(x)", 2)),
        columns=4,
    )
    return Experiment("activations", "Activations", (picture,), {"activations": numbers})
