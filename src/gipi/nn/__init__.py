"""Layers: activations, initial weights, normalisation, dense blocks and embeddings of columns."""

from __future__ import annotations

from gipi.nn.activations import ACTIVATIONS, ScaledTanh, Step, activation
from gipi.nn.embed import (
    CategoryEmbeddings,
    OneHotLinear,
    PeriodicNumbers,
    embedding_width,
)
from gipi.nn.init import INITS, init_for, initialise, why
from gipi.nn.linear import Residual, dense_block, zero_linear
from gipi.nn.norm import NORMS, mixes_rows, norm

__all__ = [
    "ACTIVATIONS",
    "INITS",
    "NORMS",
    "CategoryEmbeddings",
    "OneHotLinear",
    "PeriodicNumbers",
    "Residual",
    "ScaledTanh",
    "Step",
    "activation",
    "dense_block",
    "embedding_width",
    "init_for",
    "initialise",
    "mixes_rows",
    "norm",
    "why",
    "zero_linear",
]
