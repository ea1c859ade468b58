"""The encoder-only assembly: tokens, blocks that see both ways, and a head of one of six kinds.

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
from gipi.nn import activation

if TYPE_CHECKING:
    from torch import Tensor

    from gipi.nn.kvcache import Cache

EncoderHead = Literal["none", "words", "pretrain", "classify", "tag", "answer"]


@dataclass(frozen=True)
class EncoderConfig:
    """An encoder and what stands on it.

    head          none; words: the masked tokens; pretrain: words and whether two texts follow each
                  other; classify: the text; tag: each token; answer: its first and last token
    outputs       classes of `classify` and `tag`
    pool          pooled = f(W h) of one vector of the text, f being `pool_activation`
    pooling       which vector: of the first token, or the mean over real tokens
    pool_dropout  before the pooling layer
    words_activation  f of the head for words
    head_dropout  before the last layer of `classify`, `tag` and `answer`
    """

    embed: EmbedConfig
    stack: StackConfig
    head: EncoderHead = "words"
    outputs: int = 0
    pool: bool = False
    pool_activation: str = "tanh"
    pooling: Literal["first", "mean"] = "first"
    pool_dropout: float = 0.0
    words_activation: str = "gelu"
    head_dropout: float = 0.0


class WordsHead(nn.Module):
    """E · norm(f(W h + b)) + c: scores of every word, with the tokens' own table E.

    hidden (..., D) -> (..., V)
    """

    def __init__(self, width: int, vocab: int, *, kind: str, eps: float) -> None:
        super().__init__()
        self.dense = nn.Linear(width, width)
        self.act = activation(kind)
        self.norm = nn.LayerNorm(width, eps=eps)
        self.bias = nn.Parameter(torch.zeros(vocab))

    def forward(self, hidden: Tensor, table_VD: Tensor) -> Tensor:
        """Return the logits."""
        return F.linear(self.norm(self.act(self.dense(hidden))), table_VD, self.bias)


class EncoderModel(nn.Module):
    """BERT and its kin: every token sees every token.

    Devlin, Chang, Lee and Toutanova 2019, "BERT: pre-training of deep bidirectional transformers",
    arXiv:1810.04805.
    """

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        c, D = config, config.embed.width
        self.config = config
        self.embed = Embed(c.embed)
        self.encoder = Stack(c.stack)
        self.pool = nn.Linear(D, D) if c.pool else None
        self.pool_act = activation(c.pool_activation) if c.pool else None
        self.pool_dropout = nn.Dropout(c.pool_dropout)
        self.dropout = nn.Dropout(c.head_dropout)
        self.predict: WordsHead | None = None
        if c.head in {"words", "pretrain"}:
            self.predict = WordsHead(D, c.embed.vocab, kind=c.words_activation, eps=c.stack.eps)
        self.relation = nn.Linear(D, 2) if c.head == "pretrain" else None
        self.head: nn.Linear | None = None
        if c.head in {"classify", "tag"}:
            self.head = nn.Linear(D, c.outputs)
        elif c.head == "answer":
            self.head = nn.Linear(D, 2)

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
        """Return hidden (B, T, D) and what the head says; see `Outputs`.

        input_ids       (B, T) int64
        attention_mask  (B, T), 1 for a token and 0 for padding; None: all real
        token_type_ids  (B, T) segments; None: all in the first
        positions       (B, T) where the tokens stand; None: by the family's way of counting
        at              flat indices (N,) into B·T: logits (N, V) of these tokens only, as a masked
                        language model needs them
        """
        ids = foreign_inputs(
            "an encoder", input_ids, decoder_input_ids=decoder_input_ids,
            decoder_attention_mask=decoder_attention_mask, cache=cache,
            encoder_hidden=encoder_hidden, at=at if self.predict is None else None,
        )  # fmt: skip
        hidden, _ = read_tokens(self.embed, self.encoder, ids, mask=attention_mask,
                                segments=token_type_ids, positions=positions)  # fmt: skip
        pooled = self.pooled(hidden, attention_mask)
        match self.config.head:
            case "words" | "pretrain":
                logits = self.words(picked(hidden, at))
                relation = None if self.relation is None else self.relation(pooled)
                return Outputs(logits, hidden, pooled=pooled, relation=relation)
            case "classify":
                assert self.head is not None
                text = self.text(hidden, attention_mask) if pooled is None else pooled
                return Outputs(self.head(self.dropout(text)), hidden, pooled=pooled)
            case "tag":
                assert self.head is not None
                return Outputs(self.head(self.dropout(hidden)), hidden, pooled=pooled)
            case "answer":
                assert self.head is not None
                ends = self.head(self.dropout(hidden))
                start, end = ends.unbind(-1)
                return Outputs(ends, hidden, pooled=pooled, start=start, end=end)
        return Outputs(hidden=hidden, pooled=pooled)

    def text(self, hidden: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Return one vector (B, D) of each text, before the pooling layer."""
        if self.config.pooling == "first":
            return hidden[:, 0]
        if attention_mask is None:
            return hidden.mean(1)
        real = attention_mask.to(hidden.dtype).unsqueeze(-1)
        return (hidden * real).sum(1) / real.sum(1).clamp_min(1)

    def pooled(self, hidden: Tensor, attention_mask: Tensor | None = None) -> Tensor | None:
        """Return the text's vector after the pooling layer, (B, D); None without one."""
        if self.pool is None or self.pool_act is None:
            return None
        vector: Tensor = self.pool_act(
            self.pool(self.pool_dropout(self.text(hidden, attention_mask)))
        )
        return vector

    def words(self, hidden: Tensor) -> Tensor:
        """Return the logits (..., V) of hidden vectors (..., D)."""
        assert self.predict is not None
        logits: Tensor = self.predict(hidden, self.embed.tokens.weight)
        return logits
