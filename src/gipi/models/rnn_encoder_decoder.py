"""Encoder and decoder: one net reads a row, another writes a row, and looks back while it writes.

Shapes: B rows, S source steps, T target steps, E width of a token's vector, H units of the decoder,
M units of the encoder in all directions, V target tokens, K rows that are chosen.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import nn

from gipi.core.errors import ModelError
from gipi.models.sequence import (
    Entrance,
    RNNConfig,
    describe,
    recurrent_layers,
    reordered,
    token_vectors,
)
from gipi.nn import AdditiveAttention, Carried, DotAttention, initialise, within

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from gipi.core.schema import Signature


class Seq2SeqState(NamedTuple):
    """What the decoder knows; rows stand first, in dimension 0.

    h, c    (B, L, H) states and memories of the decoder, see `gipi.nn.Carried`
    memory  (B, S, M) what the encoder gave for each source step; S is 0 without attention
    keys    (B, S, A) the part of the attention that no step changes
    mask    (B, S) bool: what is no padding
    """

    h: Tensor
    c: Tensor
    memory: Tensor
    keys: Tensor
    mask: Tensor


class EncoderDecoder(nn.Module):
    """A recurrent encoder, a recurrent decoder, and attention between them.

        m_1..m_S = encoder(x_1..x_S),   s_0 = tanh(A [last states] + a)
        additive:  c_t = attend(s_{t-1}, m),   s_t = cell([E[y_t], c_t], s_{t-1})
                   u_t = tanh(U [s_t, c_t, E[y_t]] + d)
        dot:       s_t = cell(E[y_t], s_{t-1}),   c_t = attend(s_t, m)
                   u_t = tanh(U [s_t, c_t] + d)
        P(y_{t+1} | y_1..y_t, x) = softmax(W u_t + b)

    source (B, S) int64, right-padded, or a series (B, S, F), and the target so far (B, T) int64,
    which begins with its start token -> scores of every next token (B, T, V).

    additive: Bahdanau, Cho and Bengio 2015, arXiv:1409.0473; differs in u_t, where the paper has
    maxout, and in that every layer of the decoder starts from the last states of both directions.
    dot: Luong, Pham and Manning 2015, arXiv:1508.04025, without feeding u_t back in, so that all
    steps are one call: faster in training. none: Sutskever, Vinyals and Le 2014, arXiv:1409.3215;
    only s_0 tells the decoder of the source.
    """

    picks_places = True

    def __init__(self, config: RNNConfig, signature: Signature, generator: Generator) -> None:
        super().__init__()
        self.config = config
        self.enter = Entrance(signature, config.embedding, generator=generator)
        self.encoder = recurrent_layers(
            config, self.enter.width, generator=generator,
            bidirectional=bool(config.bidirectional),
        )  # fmt: skip
        memory, width, enter = self.encoder.width, config.width, config.embedding
        memories = 2 if config.cell == "lstm" else 1
        self.bridge = nn.Linear(memory, memories * config.layers * width)
        self.table = token_vectors(signature.outputs, enter, pad=signature.pad, generator=generator)
        self.attention: AdditiveAttention | DotAttention | None = None
        entering, leaving = enter, width
        if config.attention == "additive":
            self.attention = AdditiveAttention(width, memory, width=width, generator=generator)
            entering, leaving = enter + memory, width + memory + enter
        elif config.attention == "dot":
            self.attention = DotAttention(width, memory, generator=generator)
            leaving = width + memory
        self.decoder = recurrent_layers(config, entering, generator=generator)
        self.combine = nn.Linear(leaving, enter)
        self.head = nn.Linear(enter, signature.outputs)
        self.dropout = nn.Dropout(config.dropout)
        for layer in (self.bridge, self.combine):
            initialise(layer, generator, activation="tanh")
        initialise(self.head, generator)
        if config.tied:
            self.head.weight = self.table.weight
        self.choices = (
            *describe(config, signature),
            f"attention {config.attention}, {signature.outputs} target tokens",
        )

    def forward(
        self, source: Tensor, target_in_BT: Tensor, *, places: Tensor | None = None
    ) -> Tensor:
        """Return the scores of every next target token, (B, T, V).

        places  flat indices (N,) into B·T: scores (N, V) of these alone
        """
        features, _, _ = self._advance(self.dropout(self.table(target_in_BT)), self.start(source))
        if places is not None:
            features = features.flatten(0, 1)[places]
        scores: Tensor = self.head(self.dropout(features))
        return scores

    def alignment(self, source: Tensor, target_in_BT: Tensor) -> Tensor:
        """Return what each target step looks at, (B, T, S): rows sum to one, 0 on padding.

        Raises `ModelError` where the net has no attention.
        """
        if self.attention is None:
            raise ModelError("the alignment of a net without attention",
                             "attention=additive or dot", "build the net with one")  # fmt: skip
        return self._advance(self.table(target_in_BT), self.start(source))[1]

    # -------------------------------------------------------------------- token by token

    def start(self, source: Tensor) -> Seq2SeqState:
        """Return the state of the decoder before its first token: the source, read."""
        x_BSE, lengths_B = self.enter(source)
        memory_BSM = self.encoder(self.dropout(x_BSE), lengths_B)
        rows, steps = memory_BSM.shape[:2]
        bridged = self.bridge(self.encoder.ends(memory_BSM, lengths_B))
        h, *c = bridged.view(rows, -1, self.config.layers, self.config.width).unbind(1)
        if self.attention is None:
            memory_BSM, steps = memory_BSM[:, :0], 0
            keys_BSA = memory_BSM
        else:
            keys_BSA = self.attention.keys(memory_BSM)
        if lengths_B is None:
            mask_BS = torch.ones(rows, steps, dtype=torch.bool, device=memory_BSM.device)
        else:
            mask_BS = within(lengths_B, steps)
        return Seq2SeqState(h.tanh(), c[0] if c else h[..., :0], memory_BSM, keys_BSA, mask_BS)

    def step(self, tokens_B: Tensor, state: Seq2SeqState) -> tuple[Tensor, Seq2SeqState]:
        """Return the scores of what follows `tokens_B`, (B, V), and the new state."""
        features, _, state = self._advance(self.table(tokens_B[:, None]), state)
        return self.head(features[:, 0]), state

    def reorder(self, state: Seq2SeqState, index_K: Tensor) -> Seq2SeqState:
        """Return the state of the rows `index_K`, as a search that drops rows needs it."""
        return reordered(state, index_K)

    # -------------------------------------------------------------------- the work

    def _advance(self, y_BTE: Tensor, state: Seq2SeqState) -> tuple[Tensor, Tensor, Seq2SeqState]:
        """Return the features u (B, T, E), the weights (B, T, S) and the state behind them."""
        carried = Carried(state.h, state.c)
        weights_BTS = y_BTE.new_zeros(*y_BTE.shape[:2], 0)
        if isinstance(self.attention, AdditiveAttention):
            # What a step looks at decides its state, so the steps cannot be one call.
            states, contexts, weights = [], [], []
            for y_B1E in y_BTE.split(1, 1):
                context, weight = self._attend(carried.h[:, -1:], state)
                out, carried = self.decoder.carry(torch.cat([y_B1E, context], 2), carried)
                states.append(out)
                contexts.append(context)
                weights.append(weight)
            pieces = [torch.cat(states, 1), torch.cat(contexts, 1), y_BTE]
            weights_BTS = torch.cat(weights, 1)
        else:
            out, carried = self.decoder.carry(y_BTE, carried)
            pieces = [out]
            if self.attention is not None:
                context, weights_BTS = self._attend(out, state)
                pieces.append(context)
        features_BTE = torch.tanh(self.combine(torch.cat(pieces, 2)))
        return features_BTE, weights_BTS, state._replace(h=carried.h, c=carried.c)

    def _attend(self, query_BTH: Tensor, state: Seq2SeqState) -> tuple[Tensor, Tensor]:
        assert self.attention is not None
        context, weights = self.attention(
            query_BTH, state.keys, memory_BSM=state.memory, mask_BS=state.mask
        )
        return context, weights
