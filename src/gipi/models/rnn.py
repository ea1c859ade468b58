"""Recurrent nets by name: rnn, lstm, gru; the topology is a choice of one word.

Shapes: B rows, T steps, F values of a step, K units of both directions, C outputs, V tokens.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from gipi.models.rnn_encoder_decoder import EncoderDecoder
from gipi.models.rnn_lm import RecurrentLM
from gipi.models.sequence import (
    Entrance,
    RNNConfig,
    describe,
    recurrent_layers,
    settled,
)
from gipi.models.vector_to_sequence import VectorToSequence
from gipi.nn import AttentionPool, initialise, max_over_time, mean_over_time, within

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Generator, Tensor

    from gipi.core.schema import Signature


class RNN(nn.Module):
    """A recurrent net that reads a row: one answer for all of it, or one at every step.

        h_t = cell(x_t, h_{t-1}),   y = W pool(h_1..h_T) + b   or   y_t = W h_t + b

    tokens (B, T) int64, right-padded, or a series (B, T, F) -> (B, C) for sequence-to-vector, else
    (B, T, C). Padding reaches nothing; behind the end of a row y_t is b. Of a pair of texts the
    segments are not used: the token between the two says where the second begins.

    Elman 1990, "Finding structure in time"; both directions as in Schuster and Paliwal 1997.
    """

    def __init__(self, config: RNNConfig, signature: Signature, generator: Generator) -> None:
        super().__init__()
        self.config = config
        self.enter = Entrance(signature, config.embedding, generator=generator)
        self.recurrent = recurrent_layers(
            config, self.enter.width, generator=generator,
            bidirectional=bool(config.bidirectional),
        )  # fmt: skip
        self.dropout = nn.Dropout(config.dropout)
        width = self.recurrent.width
        pooled = config.topology == "sequence-to-vector" and config.pool == "attention"
        self.attention = AttentionPool(width, generator) if pooled else None
        self.head = nn.Linear(width, signature.outputs)
        initialise(self.head, generator)
        self.choices = describe(config, signature)

    def forward(self, x: Tensor, segments: Tensor | None = None) -> Tensor:  # noqa: ARG002
        """Return (B, C), or (B, T, C) in the topology sequence-to-sequence."""
        x_BTE, lengths_B = self.enter(x)
        out_BTK = self.recurrent(self.dropout(x_BTE), lengths_B)
        if self.config.topology == "sequence-to-vector":
            out_BTK = self._pooled(out_BTK, lengths_B)
        out: Tensor = self.head(self.dropout(out_BTK))
        return out

    def _pooled(self, out_BTK: Tensor, lengths_B: Tensor | None) -> Tensor:
        if self.config.pool == "last":
            return self.recurrent.ends(out_BTK, lengths_B)
        rows, steps = out_BTK.shape[:2]
        if lengths_B is None:
            mask_BT = torch.ones(rows, steps, dtype=torch.bool, device=out_BTK.device)
        else:
            mask_BT = within(lengths_B, steps)
        if self.attention is not None:
            out: Tensor = self.attention(out_BTK, mask_BT)
            return out
        return (mean_over_time if self.config.pool == "mean" else max_over_time)(out_BTK, mask_BT)


# ------------------------------------------------------------------------ by name


def rnn(config: RNNConfig, signature: Signature, generator: Generator) -> nn.Module:
    """Return a recurrent net with the cell that the config names.

    Of the simple cell h_t the gradient goes through T products with U: it fades or grows with the
    length, which the gates of lstm and gru were made against.
    """
    return _net(settled(config, "rnn", signature=signature), signature, generator)


def lstm(config: RNNConfig, signature: Signature, generator: Generator) -> nn.Module:
    """Return a recurrent net of long short-term memories.

    The memory c is added to, not multiplied, so the gradient passes along it as long as the forget
    gate f is open; its bias starts at 1. With one word, topology=, it becomes a classifier, a
    tagger, a language model or a translator.
    """
    return _net(settled(config, "lstm", signature=signature), signature, generator)


def gru(config: RNNConfig, signature: Signature, generator: Generator) -> nn.Module:
    """Return a recurrent net of gated recurrent units.

    One gate z says how much of the state is kept, where the LSTM has two; three quarters of the
    LSTM's weights.
    """
    return _net(settled(config, "gru", signature=signature), signature, generator)


def _net(config: RNNConfig, signature: Signature, generator: Generator) -> nn.Module:
    kinds: dict[str, Callable[[RNNConfig, Signature, Generator], nn.Module]] = {
        "encoder-decoder": EncoderDecoder,
        "vector-to-sequence": VectorToSequence,
        "language-model": RecurrentLM,
    }
    return kinds.get(config.topology, RNN)(config, signature, generator)
