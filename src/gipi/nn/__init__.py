"""The box of parts: activations, initial weights, norms, layers, and the rules that choose."""

from __future__ import annotations

from gipi.nn.activations import (
    ACTIVATIONS,
    Maxout,
    ScaledTanh,
    Step,
    activation,
    widening,
)
from gipi.nn.advise import RULES, Resolved, Situation, advise, remarks, resolve, why
from gipi.nn.attention import Attention, Mask, attention_mask
from gipi.nn.branches import Branches, DenseConcat, DropPath, Residual, drop_rates
from gipi.nn.conv import conv_block, depthwise, grouped, inception, separable
from gipi.nn.dead import dead_units
from gipi.nn.embed import (
    CategoryEmbeddings,
    OneHotLinear,
    PeriodicNumbers,
    embedding_width,
)
from gipi.nn.init import INITS, init_for, initialise
from gipi.nn.kvcache import Cache
from gipi.nn.layers import LAYERS
from gipi.nn.linear import ORDERS, Order, dense_block, zero_linear
from gipi.nn.lsuv import lsuv
from gipi.nn.norm import (
    NORMS,
    BatchNorm1d,
    BatchNorm2d,
    BatchNorm3d,
    RMSNorm,
    RowRMSNorm,
    mixes_rows,
    norm,
)
from gipi.nn.position import RelativeBias, Rotary, relative_buckets, rotary, rotate, sinusoids

__all__ = [
    "ACTIVATIONS",
    "INITS",
    "LAYERS",
    "NORMS",
    "ORDERS",
    "RULES",
    "Attention",
    "BatchNorm1d",
    "BatchNorm2d",
    "BatchNorm3d",
    "Branches",
    "Cache",
    "CategoryEmbeddings",
    "DenseConcat",
    "DropPath",
    "Mask",
    "Maxout",
    "OneHotLinear",
    "Order",
    "PeriodicNumbers",
    "RMSNorm",
    "RelativeBias",
    "Residual",
    "Resolved",
    "Rotary",
    "RowRMSNorm",
    "ScaledTanh",
    "Situation",
    "Step",
    "activation",
    "advise",
    "attention_mask",
    "conv_block",
    "dead_units",
    "dense_block",
    "depthwise",
    "drop_rates",
    "embedding_width",
    "grouped",
    "inception",
    "init_for",
    "initialise",
    "lsuv",
    "mixes_rows",
    "norm",
    "relative_buckets",
    "remarks",
    "resolve",
    "rotary",
    "rotate",
    "separable",
    "sinusoids",
    "why",
    "widening",
    "zero_linear",
]
