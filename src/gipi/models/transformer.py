"""The Transformer's core: a block, and a stack of blocks.

Every family is `token_vectors` and these two by configuration; the assemblies stand in `encoder`,
`causal` and `seq2seq`, the families in a file each.

Shapes: B rows, T tokens, K tokens with those in the cache, S source tokens, D width, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

import torch
from torch import nn

from gipi.core.errors import ModelError
from gipi.nn import RMSNorm, activation
from gipi.nn.attention import Attention, Mask, attention_mask
from gipi.nn.init import xavier
from gipi.nn.kvcache import Cache
from gipi.nn.position import RelativeBias, Rotary, rotary

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from gipi.models.token_vectors import Embed


class Outputs(NamedTuple):
    """What a Transformer answers; None where a model has no such part.

    logits          of the head: (B, T, V) for words, (B, classes) for a text, (B, T, classes) for
                    its tokens, (B, T, 2) for the ends of an answer
    hidden          (B, T, D) after the last block and its norm; of the decoder if there is one
    encoder_hidden  (B, S, D) of the encoder in an encoder-decoder
    pooled          (B, D) of the first token, after the pooling layer
    start, end      (B, T) scores of an answer's first and last token
    relation        (B, 2) scores that the second text follows (0) or not (1)
    """

    logits: Tensor | None = None
    hidden: Tensor | None = None
    encoder_hidden: Tensor | None = None
    pooled: Tensor | None = None
    start: Tensor | None = None
    end: Tensor | None = None
    relation: Tensor | None = None


@dataclass(frozen=True)
class StackConfig:
    """Shape of a stack of blocks.

    width, layers, heads, inner   D, blocks, heads of attention, units between the two dense layers
    kv_heads     heads of keys and values; None: as many as heads
    head_width   units of a head; None: width / heads
    causal       a token sees only itself and earlier ones
    cross        each block also looks at another sequence
    norm, eps    layer or rms, and what it adds to the variance
    order        post: norm(x + f(x)) as in 2017; pre: x + f(norm(x))
    final_norm   one more norm after the last block
    activation   a name of `gipi list activations`
    gated        f(W₁x) ⊙ W₂x instead of f(W₁x)
    attention_bias, feed_bias     whether the linear layers have biases
    scale        of the attention's scores; None: 1/√head_width
    by_depth     scale of block i divided by i + 1
    dropout, attention_dropout, feed_dropout   of a branch, of attention weights, of inner units
    rotary       how positions turn queries and keys; None: they do not
    buckets, distance             of relative positions; 0 buckets: none
    """

    width: int
    layers: int
    heads: int
    inner: int
    kv_heads: int | None = None
    head_width: int | None = None
    causal: bool = False
    cross: bool = False
    norm: Literal["layer", "rms"] = "layer"
    eps: float = 1e-5
    order: Literal["pre", "post"] = "post"
    final_norm: bool = False
    activation: str = "gelu"
    gated: bool = False
    attention_bias: bool = True
    feed_bias: bool = True
    scale: float | None = None
    by_depth: bool = False
    dropout: float = 0.0
    attention_dropout: float = 0.0
    feed_dropout: float = 0.0
    rotary: Rotary | None = None
    buckets: int = 0
    distance: int = 128

    @property
    def units(self) -> int:
        """Return the units of a head, given or not."""
        return self.head_width or self.width // self.heads


def norm_of(config: StackConfig) -> nn.Module:
    """Return a new norm of the stack's kind."""
    kind = RMSNorm if config.norm == "rms" else nn.LayerNorm
    return kind(config.width, eps=config.eps)


class FeedForward(nn.Module):
    """W₂ f(W₁ x + b₁) + b₂, or gated: W₂ (f(W₁ x) ⊙ W₃ x).

    x (B, T, D) -> (B, T, D). Gated: Shazeer 2020, "GLU variants improve Transformer",
    arXiv:2002.05202.
    """

    def __init__(self, config: StackConfig) -> None:
        super().__init__()
        D, inner, bias = config.width, config.inner, config.feed_bias
        self.up = nn.Linear(D, inner, bias=bias)
        self.gate = nn.Linear(D, inner, bias=bias) if config.gated else None
        self.act = activation(config.activation)
        self.dropout = nn.Dropout(config.feed_dropout)
        self.down = nn.Linear(inner, D, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Return the change of each token."""
        inner = self.act(self.up(x)) if self.gate is None else self.act(self.gate(x)) * self.up(x)
        out: Tensor = self.down(self.dropout(inner))
        return out


class Seen(NamedTuple):
    """What all blocks of a forward share, made once by the stack."""

    mask: Mask
    turn: tuple[Tensor, Tensor] | None
    cache: Cache | None
    source: Tensor | None
    source_mask: Mask


class Block(nn.Module):
    """Attention, attention to a source (`cross`), dense layers; a norm and a sum around each.

    post: x = norm(x + f(x)) (Vaswani et al. 2017, arXiv:1706.03762)
    pre:  x = x + f(norm(x)) (Xiong et al. 2020, arXiv:2002.04745)
    """

    def __init__(self, config: StackConfig, layer: int) -> None:
        super().__init__()
        c = config
        scale = c.scale
        if c.by_depth:
            scale = (c.units**-0.5 if scale is None else scale) / (layer + 1)
        self.layer, self.pre = layer, c.order == "pre"
        self.attend = Attention(
            c.width, c.heads, kv_heads=c.kv_heads, head_width=c.head_width,
            bias=c.attention_bias, scale=scale, dropout=c.attention_dropout,
        )  # fmt: skip
        self.attend_norm = norm_of(c)
        self.cross: Attention | None = None
        if c.cross:
            self.cross = Attention(
                c.width, c.heads, head_width=c.head_width, cross=True, bias=c.attention_bias,
                scale=scale, dropout=c.attention_dropout,
            )  # fmt: skip
            self.cross_norm = norm_of(c)
        self.feed = FeedForward(c)
        self.feed_norm = norm_of(c)
        self.dropout = nn.Dropout(c.dropout)

    def forward(self, x: Tensor, seen: Seen) -> Tensor:
        """Return the tokens one block further, (B, T, D)."""
        pre, drop = self.pre, self.dropout
        f = self.attend(self.attend_norm(x) if pre else x, mask=seen.mask, turn=seen.turn,
                        cache=seen.cache, layer=self.layer)  # fmt: skip
        x = x + drop(f) if pre else self.attend_norm(x + drop(f))
        if self.cross is not None:
            f = self.cross(self.cross_norm(x) if pre else x, seen.source, mask=seen.source_mask,
                           cache=seen.cache, layer=self.layer)  # fmt: skip
            x = x + drop(f) if pre else self.cross_norm(x + drop(f))
        f = self.feed(self.feed_norm(x) if pre else x)
        out: Tensor = x + drop(f) if pre else self.feed_norm(x + drop(f))
        return out


class Stack(nn.Module):
    """Blocks one after the other; masks, turns and relative biases are made once for all of them.

    x (B, T, D) -> (B, T, D)
    """

    def __init__(self, config: StackConfig) -> None:
        super().__init__()
        self.config = config
        self.blocks = nn.ModuleList(Block(config, i) for i in range(config.layers))
        self.norm = norm_of(config) if config.final_norm else None
        self.bias: RelativeBias | None = None
        if config.buckets:
            self.bias = RelativeBias(config.heads, config.buckets, distance=config.distance,
                                     both=not config.causal)  # fmt: skip

    def forward(
        self,
        x_BTD: Tensor,
        real_BK: Tensor | None = None,
        *,
        positions_BT: Tensor | None = None,
        cache: Cache | None = None,
        source_BSD: Tensor | None = None,
        source_real_BS: Tensor | None = None,
    ) -> Tensor:
        """Return the tokens after the last block and its norm.

        real_BK       false for padding, for the tokens in the cache and then those of x
        positions_BT  where the tokens stand, for rotary positions
        source_BSD    what the cross attention looks at; None after a cache's first step
        """
        T, c = x_BTD.shape[1], self.config
        keys = T + (cache.filled if cache is not None else 0)
        bias = None if self.bias is None else self.bias(T, keys)
        mask = attention_mask(real_BK, bias, queries=T, keys=keys, causal=c.causal,
                              device=x_BTD.device)  # fmt: skip
        source_mask = Mask()
        if source_real_BS is not None:
            source_mask = attention_mask(source_real_BS, queries=T, keys=source_real_BS.shape[1])
        turn = None
        if c.rotary is not None:
            assert positions_BT is not None
            turn = rotary(positions_BT, c.units, how=c.rotary)
        seen = Seen(mask, turn, cache, source_BSD, source_mask)
        for block in self.blocks:
            x_BTD = block(x_BTD, seen)
        if cache is not None:
            cache.advance(T)
        return x_BTD if self.norm is None else self.norm(x_BTD)

    def new_cache(self, batch: int, length: int, *, dtype: torch.dtype | None = None) -> Cache:
        """Return an empty cache for `batch` rows of `length` tokens; dtype: of the weights."""
        c, weight = self.config, next(self.parameters())
        shape = (batch, c.kv_heads or c.heads, length, c.units)
        return Cache(c.layers, shape, dtype=dtype or weight.dtype, device=weight.device)


# ------------------------------------------------------------------------ what assemblies share


def read_tokens(
    embed: Embed,
    stack: Stack,
    ids_BT: Tensor,
    *,
    mask: Tensor | None = None,
    segments: Tensor | None = None,
    positions: Tensor | None = None,
    cache: Cache | None = None,
    source_BSD: Tensor | None = None,
    source_real_BS: Tensor | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Return hidden (B, T, D) of tokens after a stack, and which of those so far are real, (B, K).

    With a cache only the tokens that are new are given; their mask may be that of all so far.
    """
    before = 0
    if cache is not None:
        before, mask = cache.filled, cache.see(mask, new=ids_BT.shape[1])
    if positions is None:
        positions = embed.places(ids_BT, mask, before=before)
    x = embed(ids_BT, positions, segments_BT=segments)
    hidden = stack(x, mask, positions_BT=positions, cache=cache, source_BSD=source_BSD,
                   source_real_BS=source_real_BS)  # fmt: skip
    return hidden, mask


def picked(hidden_BTD: Tensor, at: Tensor | None) -> Tensor:
    """Return the hidden vectors (N, D) at flat indices (N,) into B·T; all of them for None."""
    return hidden_BTD if at is None else hidden_BTD.flatten(0, 1)[at]


# ------------------------------------------------------------------------ initial weights


@torch.no_grad()
def draw_weights(module: nn.Module, generator: Generator, *, std: float = 0.02) -> None:
    """Fill matrices and tables from N(0, std²), biases with 0, norms with 1.

    The last layer of every branch of a stack starts √(branches) times smaller, so that the sum of
    all branches has the spread of one (Radford et al. 2019, GPT-2).
    """
    for part in module.modules():
        if isinstance(part, nn.Linear | nn.Embedding):
            part.weight.normal_(0.0, std, generator=generator)
        if isinstance(part, nn.Linear) and part.bias is not None:
            part.bias.zero_()
        if isinstance(part, nn.LayerNorm | nn.RMSNorm):
            part.reset_parameters()
    for stack in module.modules():
        if isinstance(stack, Stack) and stack.config.order == "pre":
            branches = stack.config.layers * (3 if stack.config.cross else 2)
            for block in stack.blocks:
                assert isinstance(block, Block)
                block.attend.out.weight.div_(branches**0.5)
                block.feed.down.weight.div_(branches**0.5)
                if block.cross is not None:
                    block.cross.out.weight.div_(branches**0.5)


@torch.no_grad()
def draw_weights_2017(module: nn.Module, generator: Generator) -> None:
    """Fill matrices by Xavier's rule, tables from N(0, 1/D), biases with 0, norms with 1.

    Queries, keys and values that are one matrix here are drawn as the matrices that they are. So do
    tensor2tensor and its followers; the paper does not say.
    """
    draw_weights(module, generator)
    for part in module.modules():
        if isinstance(part, nn.Embedding):
            part.weight.normal_(0.0, part.embedding_dim**-0.5, generator=generator)
        elif isinstance(part, nn.Linear):
            xavier(part.weight, generator)
    for part in module.modules():
        if isinstance(part, Attention):
            queries, keys = part.heads * part.head_width, part.groups * part.head_width
            joined = part.kv.weight if part.cross else part.qkv.weight
            rows = (keys, keys) if part.cross else (queries, keys, keys)
            for matrix in joined.split(rows):
                xavier(matrix, generator)


def foreign_inputs(
    kind: str,
    tokens: Tensor | None,
    *,
    name: str = "input_ids",
    token_type_ids: Tensor | None = None,
    decoder_input_ids: Tensor | None = None,
    decoder_attention_mask: Tensor | None = None,
    cache: Cache | None = None,
    encoder_hidden: Tensor | None = None,
    at: Tensor | None = None,
) -> Tensor:
    """Return the tokens; raise `ModelError` where they are missing or something else was given.

    All families are called alike, so what one of them cannot use must not pass unseen.
    """
    given = {
        "token_type_ids": token_type_ids, "decoder_input_ids": decoder_input_ids,
        "decoder_attention_mask": decoder_attention_mask, "cache": cache,
        "encoder_hidden": encoder_hidden, "at": at,
    }  # fmt: skip
    extra = [name for name, value in given.items() if value is not None]
    if extra:
        raise ModelError(f"{', '.join(extra)} for {kind}",
                         "inputs that this kind of model has", "leave them out")  # fmt: skip
    if tokens is None:
        raise ModelError(f"no {name} for {kind}", "tokens (B, T) int64", f"pass {name}")
    return tokens
