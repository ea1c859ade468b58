"""The decoder-only assembly: tokens, causal blocks, and a head for words or classes.

Shapes: B rows, T tokens, D width, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import nn
from torch.nn import functional as F

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
class CausalConfig:
    """A language model that reads from left to right.

    head     words: logits over the vocabulary; classify: of the last real token; none
    outputs  classes of `classify`
    tied     the head's matrix is the tokens' table
    """

    embed: EmbedConfig
    stack: StackConfig
    head: Literal["none", "words", "classify"] = "words"
    outputs: int = 0
    tied: bool = True


class CausalModel(nn.Module):
    """GPT and its kin: p(next token | all tokens so far).

    Radford et al. 2018, "Improving language understanding by generative pre-training".
    """

    def __init__(self, config: CausalConfig) -> None:
        super().__init__()
        self.config = config
        self.embed = Embed(config.embed)
        self.decoder = Stack(config.stack)
        self.head: nn.Linear | None = None
        if config.head == "classify":
            self.head = nn.Linear(config.embed.width, config.outputs, bias=False)
        elif config.head == "words" and not config.tied:
            self.head = nn.Linear(config.embed.width, config.embed.vocab, bias=False)

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
        """Return logits (B, T, V), or (B, classes), and hidden (B, T, D).

        input_ids       (B, T) int64; with a cache only the tokens that are new
        attention_mask  (B, T), 1 for a token and 0 for padding on either side; None: all real
        positions       (B, T) where the tokens stand; None: counted along the mask, so that padding
                        on the left changes nothing
        at              flat indices (N,) into B·T: logits (N, V) of these tokens only
        """
        ids = foreign_inputs(
            "a decoder", input_ids, decoder_input_ids=decoder_input_ids,
            decoder_attention_mask=decoder_attention_mask, encoder_hidden=encoder_hidden,
            at=None if self.config.head == "words" else at,
        )  # fmt: skip
        hidden, real = read_tokens(self.embed, self.decoder, ids, mask=attention_mask,
                                   segments=token_type_ids, positions=positions, cache=cache
                                   )  # fmt: skip
        if self.config.head == "none":
            return Outputs(hidden=hidden)
        if self.config.head == "classify":
            assert self.head is not None
            last = hidden[:, -1]
            if real is not None:
                T = ids.shape[1]
                place = torch.arange(T, device=ids.device) * real[:, -T:].bool()
                last = hidden[torch.arange(len(ids), device=ids.device), place.argmax(1)]
            return Outputs(self.head(last), hidden)
        return Outputs(self.words(picked(hidden, at)), hidden)

    @property
    def table(self) -> Tensor:
        """The matrix (V, D) of the head for words."""
        return self.embed.tokens.weight if self.head is None else self.head.weight

    def words(self, hidden: Tensor) -> Tensor:
        """Return the logits (..., V) of hidden vectors (..., D)."""
        return F.linear(hidden, self.table)

    def new_cache(self, batch: int, length: int, *, dtype: torch.dtype | None = None) -> Cache:
        """Return an empty cache for `batch` rows of up to `length` tokens."""
        return self.decoder.new_cache(batch, length, dtype=dtype)
