"""Dense blocks: linear, normalisation, activation, dropout, in a chosen order."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import nn

from gipi.core.errors import ConfigError, did_you_mean
from gipi.nn.activations import ACTIVATIONS, widening
from gipi.nn.activations import activation as build_activation
from gipi.nn.branches import Residual
from gipi.nn.norm import NORMS
from gipi.nn.norm import norm as build_norm

Order = Literal["conv-norm-act", "norm-act-conv", "conv-act-norm"]
ORDERS: tuple[str, ...] = get_args(Order)
CENTRED = ("batch", "instance")  # norms that take a channel's mean, and with it the bias, away


def dense_block(
    width_in: int,
    width_out: int,
    *,
    activation: str = "relu",
    norm: str = "none",
    dropout: float = 0.0,
    residual: bool = False,
    order: Order = "conv-norm-act",
) -> nn.Module:
    """Return x ↦ dropout(activation(norm(W x + b))), with x added where `residual` and widths fit.

    (B, width_in) -> (B, width_out)

    order  where the norm stands, "conv" being the dense layer here: conv-norm-act as above,
           norm-act-conv (pre-activation, He et al. 2016, arXiv:1603.05027), conv-act-norm

    Parts that do nothing are left out; b is left out before a batch norm, which would undo it. SELU
    takes alpha dropout, which keeps its mean and variance (Klambauer et al. 2017). Before a maxout
    the layer is as many times wider.

    >>> block = dense_block(4, 8, norm="layer", order="norm-act-conv")
    >>> [name for name, _ in block.named_children()]
    ['norm', 'activation', 'linear']
    """
    pieces = widening(activation)
    wide_in, wide_out = widths(width_in, width_out, pieces, order=order)
    linear = nn.Linear(wide_in, wide_out, bias=keeps_bias(norm, order))
    block = arranged("linear", linear, activation=activation, norm=norm, order=order,
                     width=width_in if order == "norm-act-conv" else wide_out, dims=0,
                     behind=width_out)  # fmt: skip
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


# ------------------------------------------------------------------------ order


def widths(width_in: int, width_out: int, pieces: int, *, order: str) -> tuple[int, int]:
    """Return the widths of the layer itself, for an activation that joins `pieces` units into one.

    >>> widths(8, 6, 2, order="conv-norm-act"), widths(8, 6, 2, order="norm-act-conv")
    ((8, 12), (4, 6))
    """
    if order not in ORDERS:
        raise ConfigError(f"order '{order}'", f"one of {', '.join(ORDERS)}",
                          did_you_mean(order, ORDERS))  # fmt: skip
    if order != "norm-act-conv":
        return width_in, width_out * pieces
    if width_in % pieces:
        raise ConfigError(f"a maxout of {pieces} pieces before a layer of {width_in} inputs",
                          f"a multiple of {pieces}", "change the width")  # fmt: skip
    return width_in // pieces, width_out


def keeps_bias(norm: str, order: str) -> bool:
    """Return whether a layer needs its bias: not where the norm behind it takes the mean away."""
    return not (order == "conv-norm-act" and NORMS.get(norm).name in CENTRED)


def arranged(
    name: str,
    layer: nn.Module,
    *,
    activation: str,
    norm: str,
    order: str,
    width: int,
    behind: int,
    dims: int,
) -> nn.Sequential:
    """Return `layer`, called `name`, with its norm and activation in `order`.

    width   channels that a norm before the activation sees
    behind  channels that come out, which a norm behind the activation sees
    """
    parts = {name: layer}
    if NORMS.get(norm).name != "none":
        width = behind if order == "conv-act-norm" else width
        parts["norm"] = build_norm(norm, width, dims=dims)
    if ACTIVATIONS.get(activation).name != "identity":
        parts["activation"] = build_activation(activation)
    block = nn.Sequential()
    for place in order.split("-"):
        part = {"conv": name, "norm": "norm", "act": "activation"}[place]
        if part in parts:
            block.add_module(part, parts[part])
    return block
