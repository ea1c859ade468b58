"""The encoder-decoder assembly: one table of tokens, two stacks, logits for the target.

Shapes: B rows, S source tokens, T target tokens, D width, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import nn
from torch.nn import functional as F

from gipi.core.errors import ModelError
from gipi.models.token_vectors import Embed, EmbedConfig
from gipi.models.transformer import (
    Outputs,
    Stack,
    StackConfig,
    foreign_inputs,
    picked,
    read_tokens,
)

if TYPE_CHECKING:
    from torch import Tensor

    from gipi.nn.kvcache import Cache


@dataclass(frozen=True)
class Seq2SeqConfig:
    """A model that reads one text and writes another.

    head         words: logits over the vocabulary; none
    tied         the head's matrix is the tokens' table
    logit_scale  of the hidden vectors before the head (T5 1.0: 1/√D)
    final_bias   a bias per word, kept as a buffer that is not trained (Marian)
    out_dropout  after the last norm of each stack (T5)
    """

    embed: EmbedConfig
    encoder: StackConfig
    decoder: StackConfig
    head: Literal["none", "words"] = "words"
    tied: bool = True
    logit_scale: float = 1.0
    final_bias: bool = False
    out_dropout: float = 0.0


class Seq2SeqModel(nn.Module):
    """The Transformer of 2017 and its kin: p(next target token | source, target so far).

    Vaswani et al. 2017, "Attention is all you need", arXiv:1706.03762.
    """

    bias: Tensor

    def __init__(self, config: Seq2SeqConfig) -> None:
        super().__init__()
        self.config = config
        self.embed = Embed(config.embed)
        self.encoder = Stack(config.encoder)
        self.decoder = Stack(config.decoder)
        self.dropout = nn.Dropout(config.out_dropout)
        self.head: nn.Linear | None = None
        if config.head == "words" and not config.tied:
            self.head = nn.Linear(config.embed.width, config.embed.vocab, bias=False)
        if config.head == "words" and config.final_bias:
            self.register_buffer("bias", torch.zeros(config.embed.vocab))

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        *,
        decoder_input_ids: Tensor | None = None,
        decoder_attention_mask: Tensor | None = None,
        positions: Tensor | None = None,
        cache: Cache | None = None,
        encoder_hidden: Tensor | None = None,
        at: Tensor | None = None,
    ) -> Outputs:
        """Return logits (B, T, V), hidden (B, T, D) and encoder_hidden (B, S, D).

        input_ids               (B, S) int64 source; or `encoder_hidden`, or a cache that has it
        attention_mask          (B, S) of the source, 1 for a token and 0 for padding
        decoder_input_ids       (B, T) int64 target, shifted right; with a cache only what is new
        decoder_attention_mask  (B, T) of the target; None: all real
        positions               (B, T) of the target; None: by its places
        at                      flat indices (N,) into B·T: logits (N, V) of these tokens only
        """
        target = foreign_inputs("an encoder-decoder", decoder_input_ids, name="decoder_input_ids",
                                token_type_ids=token_type_ids,
                                at=None if self.config.head == "words" else at)  # fmt: skip
        known = cache is not None and cache.cross_k[0] is not None
        if encoder_hidden is None and not known:
            if input_ids is None:
                raise ModelError(
                    "an encoder-decoder without a source",
                    "input_ids, encoder_hidden, or a cache of an earlier step",
                    "pass input_ids",
                )
            encoder_hidden = self.encode(input_ids, attention_mask)
        source_real = attention_mask
        if cache is not None:
            if not known:
                cache.source_real = None if attention_mask is None else attention_mask.bool()
            source_real = cache.source_real
        hidden, _ = read_tokens(
            self.embed, self.decoder, target, mask=decoder_attention_mask, positions=positions,
            cache=cache, source_BSD=encoder_hidden, source_real_BS=source_real,
        )  # fmt: skip
        hidden = self.dropout(hidden)
        if self.config.head == "none":
            return Outputs(hidden=hidden, encoder_hidden=encoder_hidden)
        return Outputs(self.words(picked(hidden, at)), hidden, encoder_hidden)

    def encode(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Return the source after the encoder, (B, S, D)."""
        hidden, _ = read_tokens(self.embed, self.encoder, input_ids, mask=attention_mask)
        encoded: Tensor = self.dropout(hidden)
        return encoded

    @property
    def table(self) -> Tensor:
        """The matrix (V, D) of the head for words."""
        return self.embed.tokens.weight if self.head is None else self.head.weight

    def words(self, hidden: Tensor) -> Tensor:
        """Return the logits (..., V) of hidden vectors (..., D)."""
        c = self.config
        if c.logit_scale != 1.0:
            hidden = hidden * c.logit_scale
        return F.linear(hidden, self.table, self.bias if c.final_bias else None)

    def new_cache(self, batch: int, length: int, *, dtype: torch.dtype | None = None) -> Cache:
        """Return an empty cache for `batch` rows of up to `length` target tokens."""
        return self.decoder.new_cache(batch, length, dtype=dtype)
