"""Attention over torch's fused kernel: self, causal and cross, with grouped keys and any scale.

Shapes: B rows, Q queries, K keys, H heads, G heads of keys and values (H is a multiple of G),
E units of a head, D width.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

from gipi.core.errors import ModelError
from gipi.nn.position import rotate

if TYPE_CHECKING:
    from torch import Tensor

    from gipi.nn.kvcache import Cache


class Mask(NamedTuple):
    """What a query may see, made once per forward and shared by all layers.

    tensor  bool (B or 1, 1, Q or 1, K), true where a key may be seen; or float (B or 1, H, Q, K) to
            be added to the scores, -inf where it may not; None: everything
    causal  the plain triangle, for which the kernel needs no tensor
    """

    tensor: Tensor | None = None
    causal: bool = False


def attention_mask(
    real_BK: Tensor | None,
    bias_HQK: Tensor | None = None,
    *,
    queries: int,
    keys: int,
    causal: bool = False,
    device: torch.device | str | None = None,
) -> Mask:
    """Return the mask of `queries` queries over `keys` keys; the queries are the last of the keys.

    real_BK   true (or not 0) for tokens, false for padding; None: no padding
    bias_HQK  to be added to the scores, as T5's relative positions; (H, Q, K)
    causal    query i sees the keys up to its own place, i + K - Q

    A query that could see nothing would turn into NaN. So a causal query always sees its own place,
    and where a row has no real key at all its queries see every key: what they compute is finite,
    and no real token ever looks at them.

    >>> attention_mask(torch.tensor([[0, 1, 1]]), queries=3, keys=3, causal=True).tensor[0, 0].int()
    tensor([[1, 0, 0],
            [0, 1, 0],
            [0, 1, 1]], dtype=torch.int32)
    """
    if real_BK is not None and real_BK.shape[1] != keys:
        raise ModelError(
            f"an attention mask of {real_BK.shape[1]} columns for {keys} tokens",
            "one column a token: 1 for a token, 0 for padding",
            "make mask and tokens with the same padding",
        )
    triangle = causal and queries > 1
    if real_BK is None and bias_HQK is None and (not triangle or queries == keys):
        return Mask(None, triangle)
    allowed: Tensor | None = None
    if real_BK is not None:
        allowed = real_BK.bool()[:, None, None, :]
        if not causal:
            allowed = allowed | ~allowed.any(-1, keepdim=True)
    if causal and (triangle or allowed is not None):
        where = real_BK.device if real_BK is not None else device
        if bias_HQK is not None:
            where = bias_HQK.device
        ahead = torch.arange(keys, device=where) - torch.arange(
            keys - queries, keys, device=where
        ).unsqueeze(1)  # (Q, K): 0 on a query's own place
        allowed = (ahead <= 0)[None, None] if allowed is None else (allowed & (ahead <= 0))
        allowed = allowed | (ahead == 0)
    if bias_HQK is None:
        return Mask(allowed)
    if allowed is None:
        return Mask(bias_HQK[None])
    return Mask(bias_HQK[None].masked_fill(~allowed, float("-inf")))


PLAIN_KEYS = 512
"""Keys up to which the way back goes by plain products in bfloat16 on a processor: there torch's
kernel is slow, the more so the shorter the rows."""


def _is_slow(q: Tensor, k: Tensor) -> bool:
    """Return whether a gradient is wanted of what torch's kernel is slow in."""
    return (
        q.dtype == torch.bfloat16
        and q.device.type == "cpu"
        and q.requires_grad
        and k.shape[2] <= PLAIN_KEYS
        and q.shape[1] == k.shape[1]
    )


def by_products(
    q_BHQE: Tensor,
    k_BHKE: Tensor,
    v_BHKE: Tensor,
    *,
    mask: Mask,
    scale: float,
    dropout: float = 0.0,
) -> Tensor:
    """Return softmax(s·q·kᵀ + mask)·v, (B, H, Q, E), by two products and all scores between them.

    The same as torch's kernel but for rounding: scores are rounded to the type of q.
    """
    B, H, Q, E = q_BHQE.shape
    q, k, v = (x.to(q_BHQE.dtype).flatten(0, 1) for x in (q_BHQE, k_BHKE, v_BHKE))
    K = k.shape[1]
    added = mask.tensor
    if added is None:
        before = q.new_zeros(()).expand(Q, K)
        if mask.causal:
            before = q.new_full((Q, K), -torch.inf).triu_(1)
    else:
        if added.dtype == torch.bool:
            added = torch.zeros_like(added, dtype=q.dtype).masked_fill_(~added, -torch.inf)
        before = added.expand(B, H, Q, K).flatten(0, 1)
    scores_NQK = torch.baddbmm(before, q, k.transpose(1, 2), alpha=scale)
    weights_NQK = torch.softmax(scores_NQK, -1)
    if dropout:
        weights_NQK = F.dropout(weights_NQK, dropout)
    return (weights_NQK @ v).view(B, H, Q, E)


class Attention(nn.Module):
    """softmax(s·q·kᵀ + mask)·v in H heads at once, then one linear layer.

    x (B, Q, D) -> (B, Q, D). Keys and values come from x itself or, with `cross`, from another
    sequence (B, K, D). The linear layers of queries, keys and values are one matrix `qkv`, whose
    rows are q, k, v in that order (with `cross`: `q`, and one matrix `kv`).

    heads       H
    kv_heads    G, each shared by H/G neighbouring heads; None: H
    head_width  E; None: D/H
    scale       s; None: 1/√E as published (T5 has 1: it starts from smaller weights instead)
    dropout     of the weights that the softmax gives, in training

    Vaswani et al. 2017, "Attention is all you need", arXiv:1706.03762; grouped keys: Ainslie et al.
    2023, "GQA", arXiv:2305.13245.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        *,
        kv_heads: int | None = None,
        head_width: int | None = None,
        cross: bool = False,
        bias: bool = True,
        scale: float | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        groups = kv_heads or heads
        if heads % groups or (head_width is None and width % heads):
            raise ModelError(
                f"{heads} heads over {groups} heads of keys and a width of {width}",
                "a width and a number of heads that divide evenly",
                "choose heads that divide the width, and heads of keys that divide the heads",
            )
        self.heads, self.groups, self.cross = heads, groups, cross
        self.head_width = head_width or width // heads
        self.scale = self.head_width**-0.5 if scale is None else scale
        self.dropout = dropout
        queries, keys = heads * self.head_width, groups * self.head_width
        if cross:
            self.q = nn.Linear(width, queries, bias=bias)
            self.kv = nn.Linear(width, 2 * keys, bias=bias)
        else:
            self.qkv = nn.Linear(width, queries + 2 * keys, bias=bias)
        self.out = nn.Linear(queries, width, bias=bias)

    def forward(
        self,
        x_BQD: Tensor,
        source_BKD: Tensor | None = None,
        *,
        mask: Mask,
        turn: tuple[Tensor, Tensor] | None = None,
        cache: Cache | None = None,
        layer: int = 0,
    ) -> Tensor:
        """Return what each query gathers, (B, Q, D).

        source_BKD  with `cross`: the other sequence; None where the cache has its keys already
        turn        cosines and sines of `rotary`, where positions turn queries and keys
        cache       earlier keys and values; those of x are written to it as layer number `layer`
        """
        B, Q, _ = x_BQD.shape
        H, G, E = self.heads, self.groups, self.head_width
        if self.cross:
            q = self._heads(self.q(x_BQD))
            k, v = self._of_source(source_BKD, cache, layer)
        else:
            # Parted before heads are: on the way back that is one copy less.
            parts = self.qkv(x_BQD).split((H * E, G * E, G * E), -1)
            q, k, v = (self._heads(part) for part in parts)
            if turn is not None:
                q, k = rotate(q, turn), rotate(k, turn)
            if cache is not None:
                k, v = cache.update(layer, k, v)
        added = mask.tensor
        if added is not None and added.dtype not in {torch.bool, q.dtype}:
            added = added.to(q.dtype)
        dropout = self.dropout if self.training else 0.0
        if _is_slow(q, k):
            mask = Mask(added, mask.causal)
            gathered = by_products(q, k, v, mask=mask, scale=self.scale, dropout=dropout)
        else:
            gathered = F.scaled_dot_product_attention(
                q, k.to(q.dtype), v.to(q.dtype), attn_mask=added, is_causal=mask.causal,
                dropout_p=dropout, scale=self.scale, enable_gqa=H != G,
            )  # fmt: skip
        out: Tensor = self.out(gathered.transpose(1, 2).reshape(B, Q, H * E))
        return out

    def _heads(self, x: Tensor) -> Tensor:
        """Return (B, T, heads·E) as (B, heads, T, E)."""
        heads: Tensor = x.unflatten(-1, (-1, self.head_width)).transpose(1, 2)
        return heads

    def _of_source(
        self, source_BKD: Tensor | None, cache: Cache | None, layer: int
    ) -> tuple[Tensor, Tensor]:
        """Return keys and values of the other sequence, (B, G, K, E); computed once per cache."""
        if cache is not None:
            k, v = cache.cross_k[layer], cache.cross_v[layer]
            if k is not None and v is not None:
                return k, v
        if source_BKD is None:
            raise ModelError(
                "a decoder without what it should look at",
                "the source tokens, or the encoder's output",
                "pass input_ids or encoder_hidden (a cache needs them in its first step only)",
            )
        k, v = (self._heads(part) for part in self.kv(source_BKD).chunk(2, -1))
        if cache is not None:
            cache.cross_k[layer], cache.cross_v[layer] = k.detach(), v.detach()
        return k, v
