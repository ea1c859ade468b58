"""From one vector to a row: of tokens, each fed back in, or of values.

Shapes: B rows, F values of the vector, T steps, V tokens, C outputs, K rows that are chosen.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from gipi.core.errors import ModelError
from gipi.models.sequence import (
    RNNConfig,
    describe,
    recurrent_layers,
    reordered,
    token_vectors,
)
from gipi.nn import Carried, initialise

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from gipi.core.schema import Signature


class VectorToSequence(nn.Module):
    """A recurrent net that writes what a vector tells it.

        h_0 = tanh(A v + a),   h_t = cell(E[w_t], h_{t-1}),   y_t = W h_t + b

    vector (B, F) and the tokens so far (B, T) int64 -> scores of every next token (B, T, V): as the
    captions of pictures in Vinyals et al. 2015, "Show and tell", arXiv:1411.4555, who feed the
    vector as a first input where here it is the first state. Of data without tokens there is
    nothing to feed back: then v is the input of every step, and (B, F) -> (B, length, C).
    """

    def __init__(self, config: RNNConfig, signature: Signature, generator: Generator) -> None:
        super().__init__()
        self.config = config
        vector, self.length = signature.numbers, signature.length
        if not vector or not (signature.vocab or self.length):
            raise ModelError(
                f"a vector of {vector} numbers, {signature.vocab} tokens and rows of "
                f"{self.length} steps",
                "the width of the vector, and a vocabulary or a number of steps to write",
                "give numbers= and vocab= or length= in the signature",
            )
        self.table = None
        if signature.vocab:
            self.table = token_vectors(
                signature.vocab, config.embedding, pad=signature.pad, generator=generator
            )
        self.recurrent = recurrent_layers(
            config,
            config.embedding if self.table is not None else vector,
            generator=generator,
        )
        self.first = nn.Linear(vector, config.layers * config.width)
        self.dropout = nn.Dropout(config.dropout)
        self.head = nn.Linear(config.width, signature.outputs)
        initialise(self.first, generator, activation="tanh")
        initialise(self.head, generator)
        if config.tied:
            if self.table is None or self.table.weight.shape != self.head.weight.shape:
                raise ModelError(
                    f"a head of shape {tuple(self.head.weight.shape)} tied to an embedding of "
                    f"{signature.vocab} x {config.embedding}",
                    "one shape for both", "set model.embedding to model.width, or tied=false",
                )  # fmt: skip
            self.head.weight = self.table.weight
        self.choices = describe(config, signature)

    def forward(self, vector_BF: Tensor, target_in_BT: Tensor | None = None) -> Tensor:
        """Return (B, T, V) for the tokens so far, or (B, length, C) for data without tokens."""
        if self.table is None:
            x_BTE = vector_BF[:, None].expand(-1, self.length, -1)
        elif target_in_BT is None:
            raise ModelError(
                "a vector without tokens",
                "the vector and the tokens so far",
                "pass target_in, or write token by token with start and step",
            )
        else:
            x_BTE = self.table(target_in_BT)
        out, _ = self.recurrent.carry(self.dropout(x_BTE), self.start(vector_BF))
        scores: Tensor = self.head(self.dropout(out))
        return scores

    # -------------------------------------------------------------------- token by token

    def start(self, vector_BF: Tensor) -> Carried:
        """Return the state that the vector makes."""
        zeros = self.recurrent.start(len(vector_BF), like=vector_BF)
        h = torch.tanh(self.first(vector_BF)).view_as(zeros.h)
        return Carried(h, zeros.c)

    def step(self, tokens_B: Tensor, state: Carried) -> tuple[Tensor, Carried]:
        """Return the scores of what follows `tokens_B`, (B, V), and the new state."""
        assert self.table is not None, "values are written all at once"
        out, state = self.recurrent.carry(self.table(tokens_B[:, None]), state)
        return self.head(out[:, 0]), state

    def reorder(self, state: Carried, index_K: Tensor) -> Carried:
        """Return the state of the rows `index_K`, as a search that drops rows needs it."""
        return reordered(state, index_K)
