"""The dense block: linear, normalisation, activation, dropout; and its residual form."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from gipi.nn.activations import activation as build_activation
from gipi.nn.norm import norm as build_norm

if TYPE_CHECKING:
    from torch import Tensor


def dense_block(
    width_in: int,
    width_out: int,
    *,
    activation: str = "relu",
    norm: str = "none",
    dropout: float = 0.0,
    residual: bool = False,
) -> nn.Module:
    """Return x ↦ dropout(activation(norm(W x + b))), with x added where `residual` and widths fit.

    Parts that do nothing are left out; b is left out before a batch norm, which would undo it. SELU
    takes alpha dropout, which keeps its mean and variance (Klambauer et al. 2017).
    """
    block = nn.Sequential()
    block.add_module("linear", nn.Linear(width_in, width_out, bias=norm != "batch"))
    if norm != "none":
        block.add_module("norm", build_norm(norm, width_out))
    if activation != "identity":
        block.add_module("activation", build_activation(activation))
    if dropout:
        kind = nn.AlphaDropout if activation == "selu" else nn.Dropout
        block.add_module("dropout", kind(dropout))
    return Residual(block) if residual and width_in == width_out else block


def zero_linear(width_in: int, width_out: int) -> nn.Linear:
    """Return a linear layer of zeros; `width_in` may be 0, then only the bias answers.

    For models without hidden units, whose loss is convex: the start does not decide the end.
    """
    layer = nn.Linear(max(width_in, 1), width_out)
    if width_in == 0:  # torch warns when it draws no weights
        layer.in_features = 0
        layer.weight = nn.Parameter(torch.empty(width_out, 0))
    with torch.no_grad():
        layer.weight.zero_()
        layer.bias.zero_()
    return layer


class Residual(nn.Module):
    """y = x + f(x). He, Zhang, Ren and Sun 2016, arXiv:1512.03385."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        """Return x + f(x), of the shape of x."""
        out: Tensor = x + self.body(x)
        return out
