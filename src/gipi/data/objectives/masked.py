"""Masked language modelling: a share of the tokens is hidden and must be named.

B rows, T positions, M masked positions of a row.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import torch

from gipi.core.errors import ConfigError
from gipi.core.schema import IGNORED_TOKEN
from gipi.core.seed import derive
from gipi.data.objectives.draw import token_uniform

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class MaskRule:
    """How tokens are hidden.

    mask      id of the mask token
    vocab     number of ids
    special   ids that are never hidden and never drawn: padding, classification, separator, mask
    share     of a row's other tokens that must be named
    hidden    of those, the share that becomes the mask token
    random    the share that becomes a random id; the rest stays as it is

    Raises `ConfigError` for shares out of range and ids outside the vocabulary.
    """

    mask: int
    vocab: int
    special: tuple[int, ...]
    share: float = 0.15
    hidden: float = 0.8
    random: float = 0.1

    def __post_init__(self) -> None:
        if not 0 < self.share < 1:
            raise ConfigError(f"share={self.share}", "above 0 and below 1", "0.15 is usual")
        if min(self.hidden, self.random) < 0 or self.hidden + self.random > 1 + 1e-9:
            raise ConfigError(
                f"hidden={self.hidden} and random={self.random}",
                "shares from 0 that add up to 1 at most",
                "0.8 and 0.1 are usual",
            )
        outside = [i for i in (self.mask, *self.special) if not 0 <= i < self.vocab]
        if outside:
            raise ConfigError(
                f"the special id {outside[0]} for a vocabulary of {self.vocab:,} ids",
                f"ids from 0 to {self.vocab - 1:,}",
                "take vocabulary and special ids from the same tokenizer",
            )
        if len(set(self.special) | {self.mask}) >= self.vocab:
            raise ConfigError(
                f"a vocabulary of {self.vocab} ids, all of them special",
                "at least one ordinary token",
                "check which ids are special",
            )

    def most(self, tokens: int) -> int:
        """Return how many of so many ordinary tokens are hidden: the share, rounded, at least one.

        >>> rule = MaskRule(mask=3, vocab=99, special=(0, 1, 2, 3))
        >>> [rule.most(n) for n in (0, 1, 10, 128)]
        [0, 1, 2, 19]
        """
        return min(tokens, max(1, int(self.share * tokens + 0.5)))


@dataclass(frozen=True)
class Masked:
    """A masked batch.

    tokens     (B, T) int64 ids with the hidden ones replaced
    labels     (B, T) int64 original ids at hidden positions, -100 elsewhere
    positions  (B, M) int64 hidden positions of each row in order; 0 in unused places
    targets    (B, M) int64 original ids there, -100 in unused places

    A model that is asked for positions only runs its head there:
    ``hidden.gather(1, positions[..., None].expand(-1, -1, D))``.
    """

    tokens: Tensor
    labels: Tensor
    positions: Tensor
    targets: Tensor


def mask_tokens(
    tokens: Tensor,
    ids: Tensor,
    *,
    rule: MaskRule,
    seed: int,
    epoch: int,
    words: Tensor | None = None,
) -> Masked:
    """Return the rows with `rule.share` of their ordinary tokens hidden, 15 % as 80/10/10.

    tokens  (B, T) int64 ids
    ids     (B,) int64 row ids
    words   (B, T) int64 number of the word that each token belongs to, for whole words; None: every
            token by itself. Tokens of a word stand together.

    Of n ordinary tokens max(1, round(share · n)) are hidden, in random order, so that M has the
    same size in every batch of one width. Whole words are taken while fewer than that are hidden:
    the last one may go beyond it. Each hidden token is replaced on its own.

    Devlin et al. 2019, "BERT", arXiv:1810.04805; whole words: the authors' note of May 2019. It
    differs in masking each row anew in each epoch (Liu et al. 2019, "RoBERTa", arXiv:1907.11692),
    in drawing random ids among the ordinary ones only, and in that the last whole word may go
    beyond the number, where the authors skip words that do not fit.
    """
    device, width = tokens.device, tokens.shape[1]
    key = derive(seed, "mask", epoch)
    ordinary, pool = _ordinary(rule, device)
    free = ordinary[tokens]
    chosen = _choose(free, token_uniform(key, ids, width), rule, words)
    kind = token_uniform(key, ids, width, stream=1)
    draw = (token_uniform(key, ids, width, stream=2) * len(pool)).long()
    replaced = torch.where(kind < rule.hidden + rule.random, pool[draw], tokens)
    replaced = replaced.masked_fill(kind < rule.hidden, rule.mask)
    labels = tokens.masked_fill(~chosen, IGNORED_TOKEN)
    if words is None:
        most = rule.most(width)
    else:
        most = max(1, int(chosen.sum(1).max())) if len(tokens) else 1  # sync: words have any length
    # The hidden ones first, each kind in order of position: a stable sort of yes and no.
    positions = (~chosen).to(torch.uint8).argsort(dim=1, stable=True)[:, :most]
    targets = labels.gather(1, positions)
    return Masked(
        torch.where(chosen, replaced, tokens),
        labels,
        positions.masked_fill(targets == IGNORED_TOKEN, 0),
        targets,
    )


@lru_cache(maxsize=8)
def _ordinary(rule: MaskRule, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return which ids may be hidden, (V,) bool, and those ids; made once, not in every batch."""
    ordinary = torch.ones(rule.vocab, dtype=torch.bool, device=device)
    ordinary[list({*rule.special, rule.mask})] = False
    return ordinary, ordinary.nonzero().squeeze(1)  # sync


def _choose(free: Tensor, random: Tensor, rule: MaskRule, words: Tensor | None) -> Tensor:
    """Return (B, T) bool: the tokens to hide, those with the smallest numbers among the free.

    Tokens of one word share the number of its first token, hence stand together in the order.
    """
    place = torch.arange(free.shape[1], device=free.device).expand_as(free)
    wanted = (rule.share * free.sum(1, keepdim=True).double() + 0.5).long().clamp_min(1)
    if words is None:
        first = place
    else:
        begins = torch.ones_like(free)
        begins[:, 1:] = words[:, 1:] != words[:, :-1]
        first = torch.where(begins, place, 0).cummax(1).values
    order = random.gather(1, first).masked_fill(~free, 2.0).argsort(dim=1, stable=True)
    if words is None:
        taken = place < wanted
    else:
        home = first.gather(1, order)
        fresh = torch.ones_like(free)
        fresh[:, 1:] = home[:, 1:] != home[:, :-1]
        taken = torch.where(fresh, place, 0).cummax(1).values < wanted
    return torch.zeros_like(free).scatter(1, order, taken) & free
