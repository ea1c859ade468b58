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
from gipi.nn.alignment import AdditiveAttention, DotAttention
from gipi.nn.attention import Attention, Mask, attention_mask
from gipi.nn.branches import Branches, DenseConcat, DropPath, Residual, drop_rates
from gipi.nn.cells import (
    CellKind,
    CellWeights,
    GateNorm,
    NormedCell,
    gru_step,
    lstm_step,
    rnn_step,
)
from gipi.nn.conv import conv_block, depthwise, grouped, inception, separable
from gipi.nn.crf import Chain, LinearChain, best_tags, chain_loss
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
from gipi.nn.memory import Memory
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
from gipi.nn.over_time import (
    AttentionPool,
    masked_softmax,
    max_over_time,
    mean_over_time,
    row_lengths,
    within,
)
from gipi.nn.position import RelativeBias, Rotary, relative_buckets, rotary, rotate, sinusoids
from gipi.nn.recurrent import CELLS, Carried, Recurrent, detached, initialise_cell

__all__ = [
    "ACTIVATIONS",
    "CELLS",
    "INITS",
    "LAYERS",
    "NORMS",
    "ORDERS",
    "RULES",
    "AdditiveAttention",
    "Attention",
    "AttentionPool",
    "BatchNorm1d",
    "BatchNorm2d",
    "BatchNorm3d",
    "Branches",
    "Cache",
    "Carried",
    "CategoryEmbeddings",
    "CellKind",
    "CellWeights",
    "Chain",
    "DenseConcat",
    "DotAttention",
    "DropPath",
    "GateNorm",
    "LinearChain",
    "Mask",
    "Maxout",
    "Memory",
    "NormedCell",
    "OneHotLinear",
    "Order",
    "PeriodicNumbers",
    "RMSNorm",
    "Recurrent",
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
    "best_tags",
    "chain_loss",
    "conv_block",
    "dead_units",
    "dense_block",
    "depthwise",
    "detached",
    "drop_rates",
    "embedding_width",
    "grouped",
    "gru_step",
    "inception",
    "init_for",
    "initialise",
    "initialise_cell",
    "lstm_step",
    "lsuv",
    "masked_softmax",
    "max_over_time",
    "mean_over_time",
    "mixes_rows",
    "norm",
    "relative_buckets",
    "remarks",
    "resolve",
    "rnn_step",
    "rotary",
    "rotate",
    "row_lengths",
    "separable",
    "sinusoids",
    "why",
    "widening",
    "within",
    "zero_linear",
]
