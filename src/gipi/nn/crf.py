"""Conditional random fields over a row of tags: what neighbours say of each other counts too.

Shapes: B rows, T positions, K tags; i is the tag before, j the tag at a position.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import nn

from gipi.core.errors import ModelError

if TYPE_CHECKING:
    from torch import Generator, Tensor

SPREAD = 0.1
"""Of the scores of neighbours at the start: small beside what is learned."""


class Chain(NamedTuple):
    """The scores of all ways to tag some rows.

        s(y) = start[y_1] + Σ_t unary[t, y_t] + Σ_t pair[y_{t-1}, y_t] + end[y_n]

    unary  (B, T, K) of each tag at each position
    pair   (K, K) of tag j behind tag i, at [i, j]
    start, end  (K,) of the first and of the last tag
    """

    unary: Tensor
    pair: Tensor
    start: Tensor
    end: Tensor


class LinearChain(nn.Module):
    """Scores of neighbouring tags, learned beside those of each position.

    unary (B, T, K) -> `Chain`. The scores begin as N(0, 0.1²).

    Lafferty, McCallum and Pereira 2001, "Conditional random fields"; on a recurrent net as in
    Lample et al. 2016, arXiv:1603.01360.

    >>> chain = LinearChain(3, generator=torch.Generator().manual_seed(0))
    >>> chain(torch.zeros(2, 5, 3)).pair.shape
    torch.Size([3, 3])
    """

    def __init__(self, tags: int, *, generator: Generator) -> None:
        super().__init__()
        self.pair = nn.Parameter(torch.empty(tags, tags).normal_(0, SPREAD, generator=generator))
        self.start = nn.Parameter(torch.empty(tags).normal_(0, SPREAD, generator=generator))
        self.end = nn.Parameter(torch.empty(tags).normal_(0, SPREAD, generator=generator))

    def forward(self, unary_BTK: Tensor) -> Chain:
        """Return the scores of all ways to tag."""
        return Chain(unary_BTK, self.pair, self.start, self.end)


def chain_loss(
    chain: Chain, target_BT: Tensor, *, weight_B: Tensor | None = None, ignored: int = -100
) -> tuple[Tensor, Tensor]:
    """Return Σ w_b (log Z_b - s(y_b)) and Σ w_b n_b, n_b being the tagged positions of a row.

        log Z = log Σ over all y of exp s(y), by the forward algorithm

    target_BT  int64, `ignored` at positions without a tag: they are as if they were not there, and
               the tags before and behind them are neighbours
    weight_B   or None for ones

    Computed in float32 at least. A row without tags adds nothing. Raises `ModelError` where the
    shapes do not belong together.
    """
    if chain.unary.shape[:-1] != target_BT.shape:
        raise ModelError(
            f"scores of shape {tuple(chain.unary.shape)} for tags of shape "
            f"{tuple(target_BT.shape)}",
            "one row of scores for each position", "check what the model returns",
        )  # fmt: skip
    counted = target_BT != ignored
    order = first_counted(counted)
    chain = exact(chain, order)
    lengths = counted.sum(1)
    tags = target_BT.gather(1, order).clamp_min(0)
    each = log_partition(chain, lengths) - score(chain, tags, lengths)
    if weight_B is None:
        return each.sum(), lengths.sum()
    return (each * weight_B).sum(), (lengths * weight_B).sum()


def best_tags(chain: Chain, counted: Tensor) -> Tensor:
    """Return (B, T) int64 tags with the highest score of all rows, -1 where nothing counts.

    counted  (B, T) bool; other positions are as if they were not there

    Viterbi 1967. Ties go to the first tag.
    """
    order = first_counted(counted)
    found = viterbi(exact(chain, order), counted.sum(1))
    out = torch.full_like(found, -1)
    return out.scatter(1, order, found).masked_fill(~counted, -1)


# ---------------------------------------------------------------------------- the algorithms


def score(chain: Chain, tags_BT: Tensor, lengths_B: Tensor) -> Tensor:
    """Return s(y) of each row, (B,); 0 for a row of length 0."""
    steps = tags_BT.shape[1]
    if steps == 0:
        return chain.unary.new_zeros(len(tags_BT))
    real = torch.arange(steps, device=tags_BT.device) < lengths_B[:, None]
    unary = chain.unary.gather(2, tags_BT[..., None])[..., 0]
    pair = chain.pair[tags_BT[:, :-1], tags_BT[:, 1:]]
    last = tags_BT.gather(1, (lengths_B - 1).clamp_min(0)[:, None])[:, 0]
    total = unary.masked_fill(~real, 0).sum(1) + pair.masked_fill(~real[:, 1:], 0).sum(1)
    return (total + chain.start[tags_BT[:, 0]] + chain.end[last]).masked_fill(lengths_B == 0, 0)


def log_partition(chain: Chain, lengths_B: Tensor) -> Tensor:
    """Return log Σ over all y of exp s(y) of each row, (B,); 0 for a row of length 0.

    α_1 = start + unary_1,   α_t[j] = unary_t[j] + log Σ_i exp(α_{t-1}[i] + pair[i, j])
    """
    steps = chain.unary.shape[1]
    if steps == 0:
        return chain.unary.new_zeros(len(chain.unary))
    unary = chain.unary.unbind(1)
    alpha = chain.start + unary[0]
    for t in range(1, steps):
        further = (alpha[:, :, None] + chain.pair).logsumexp(1) + unary[t]
        alpha = torch.where((t < lengths_B)[:, None], further, alpha)
    return (alpha + chain.end).logsumexp(1).masked_fill(lengths_B == 0, 0)


def viterbi(chain: Chain, lengths_B: Tensor) -> Tensor:
    """Return (B, T) int64 best tags; behind the end of a row the last one is repeated."""
    rows, steps, K = chain.unary.shape
    if steps == 0 or rows == 0:
        return torch.zeros(rows, steps, dtype=torch.long, device=chain.unary.device)
    same = torch.arange(K, device=chain.unary.device).expand(rows, K)
    best, back = chain.start + chain.unary[:, 0], []
    for t in range(1, steps):
        further, before = (best[:, :, None] + chain.pair).max(1)
        alive = (t < lengths_B)[:, None]
        best = torch.where(alive, further + chain.unary[:, t], best)
        back.append(torch.where(alive, before, same))
    at = (best + chain.end).argmax(1)
    tags = [at]
    for before in reversed(back):
        at = before.gather(1, at[:, None])[:, 0]
        tags.append(at)
    return torch.stack(tags[::-1], 1)


def first_counted(counted: Tensor) -> Tensor:
    """Return (B, T) places in each row: those that count first, in order, then the others."""
    return (~counted).to(torch.uint8).argsort(dim=1, stable=True)


def exact(chain: Chain, order_BT: Tensor) -> Chain:
    """Return the scores in float32 at least, the positions in this order."""
    unary, *rest = (t.float() if t.dtype in (torch.bfloat16, torch.float16) else t for t in chain)
    return Chain(unary.gather(1, order_BT[..., None].expand_as(unary)), *rest)
