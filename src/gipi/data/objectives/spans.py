"""Span corruption: runs of tokens are cut out, and the model writes them one after the other.

    text     Thank you for inviting me to your party last week
    inputs   Thank you <0> me to your party <1> week </s>
    targets  <0> for inviting <1> last </s>

B rows, T positions, S spans of a row.
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
class SpanRule:
    """How spans are cut out.

    sentinels  ids that stand for the first, second, ... span; T5: vocab - 1, vocab - 2, ...
    end        id of the end of a text, or None where none is written
    pad        id of padding
    density    share of the tokens that are cut out
    mean_span  mean length of a span

    Raises `ConfigError` for values out of range and for sentinels that come twice.
    """

    sentinels: tuple[int, ...]
    end: int | None = 1
    pad: int = 0
    density: float = 0.15
    mean_span: float = 3.0

    def __post_init__(self) -> None:
        if not 0 < self.density < 1:
            raise ConfigError(f"density={self.density}", "above 0 and below 1", "0.15 is usual")
        if self.mean_span < 1:
            raise ConfigError(f"mean_span={self.mean_span}", "at least 1", "3 is usual")
        if not self.sentinels or len(set(self.sentinels)) < len(self.sentinels):
            raise ConfigError(
                f"{len(self.sentinels)} sentinels, {len(set(self.sentinels))} of them different",
                "different ids, one for each span of a row",
                "T5 uses the last 100 ids of its vocabulary, from the end",
            )


@dataclass(frozen=True)
class Corrupted:
    """A corrupted batch, right-padded.

    inputs          (B, T_in) int64: what is left, a sentinel for each span, then the end
    targets         (B, T_out) int64: each sentinel and the tokens of its span, then the end
    labels          (B, T_out) int64: the same with -100 for padding
    input_lengths   (B,) and `target_lengths` (B,): tokens of each row
    """

    inputs: Tensor
    targets: Tensor
    labels: Tensor
    input_lengths: Tensor
    target_lengths: Tensor


def noise_counts(tokens: int, rule: SpanRule) -> tuple[int, int]:
    """Return (tokens that are cut out, spans) of a row of so many tokens.

        noise = round(density · n) within 1 .. n - 1,   spans = round(noise / mean span), at least 1

    Halves round to the even number. A row of one token keeps it: there is nothing to tell from.
    """
    noise = min(max(round(tokens * rule.density), 1), tokens - 1)
    if noise < 1:
        return 0, 0
    return noise, min(max(round(noise / rule.mean_span), 1), tokens - noise)


def span_lengths(tokens: int, rule: SpanRule) -> tuple[int, int]:
    """Return (T_in, T_out) of a row of so many tokens, sentinels and end included.

    >>> span_lengths(568, SpanRule(tuple(range(100, 200))))
    (512, 114)
    """
    noise, spans = noise_counts(tokens, rule)
    end = rule.end is not None
    return tokens - noise + spans + end, noise + spans + end


def window_for(inputs: int, rule: SpanRule) -> tuple[int, int]:
    """Return (tokens of the longest row whose inputs fit into `inputs`, length of its targets).

    With it no batch is padded: rows are cut to that many tokens. T5's 512 come from 568.

    >>> window_for(512, SpanRule(tuple(range(100, 200))))
    (568, 114)
    """
    tokens = inputs - 1
    while span_lengths(tokens + 1, rule)[0] <= inputs:
        tokens += 1
    return tokens, span_lengths(tokens, rule)[1]


def corrupt_spans(
    tokens: Tensor,
    ids: Tensor,
    *,
    rule: SpanRule,
    seed: int,
    epoch: int,
    lengths: Tensor | None = None,
) -> Corrupted:
    """Return the rows with `rule.density` of their tokens cut out in spans, and those spans.

    tokens   (B, T) int64 ids, without an end
    ids      (B,) int64 row ids
    lengths  (B,) int64 tokens of each row, the rest is padding; None: all T

    Kept and cut tokens are each parted into S runs of at least one, all partitions alike probable,
    and the runs alternate, a kept one first. Neither batch nor padding changes how a row is cut.

    Raffel et al. 2020, "T5", arXiv:1910.10683, section 3.1.4 and the authors' code, whose
    arithmetic of lengths this is; it differs in that a row of one token stays as it is.
    Raises `ConfigError` where a row of T tokens has more spans than there are sentinels.
    """
    width, device = tokens.shape[1], tokens.device
    noise_of, spans_of, widest_in, widest_out = _tables(width, rule)
    if max(spans_of) > len(rule.sentinels):
        raise ConfigError(
            f"rows of {width} tokens have up to {max(spans_of)} spans, and there are "
            f"{len(rule.sentinels)} sentinels",
            "one sentinel for each span",
            "use shorter rows, longer spans, or more sentinels",
        )
    n = torch.full_like(ids, width) if lengths is None else lengths
    noise = torch.tensor(noise_of, device=device)[n]
    spans = torch.tensor(spans_of, device=device)[n]
    key = derive(seed, "spans", epoch)
    cut = _noise(n, noise, spans, token_uniform(key, ids, width),
                 token_uniform(key, ids, width, stream=1))  # fmt: skip
    real = torch.arange(width, device=device) < n[:, None]
    before = torch.zeros_like(cut)
    before[:, 1:] = cut[:, :-1]
    begins = cut & ~before  # of cut runs
    resumes = ~cut & before  # of kept runs after the first
    resumes[:, 0] = True
    sentinels = torch.tensor(rule.sentinels, device=device)
    which = begins.long().cumsum(1) - 1
    inputs, n_in = _pack(
        torch.where(begins, sentinels[which.clamp_min(0)], tokens),
        (~cut | begins) & real, widest_in, rule,
    )  # fmt: skip
    # In the targets a kept run is replaced by the sentinel of the span after it; each span follows
    # one kept run, so their numbers agree. A row without spans has no sentinel either.
    runs = resumes.long().cumsum(1) - 1
    targets, n_out = _pack(
        torch.where(resumes, sentinels[runs.clamp(0, len(sentinels) - 1)], tokens),
        (cut | (resumes & (runs < spans[:, None]))) & real, widest_out, rule,
    )  # fmt: skip
    padding = torch.arange(widest_out, device=device) >= n_out[:, None]
    return Corrupted(inputs, targets, targets.masked_fill(padding, IGNORED_TOKEN), n_in, n_out)


@lru_cache(maxsize=64)
def _tables(width: int, rule: SpanRule) -> tuple[list[int], list[int], int, int]:
    """Return noise and spans of rows of 0 .. T tokens, and the widest inputs and targets."""
    counts = [noise_counts(n, rule) for n in range(width + 1)]
    sizes = [span_lengths(n, rule) for n in range(width + 1)]
    return (
        [c[0] for c in counts], [c[1] for c in counts],
        max(s[0] for s in sizes), max(s[1] for s in sizes),
    )  # fmt: skip


def _noise(n: Tensor, noise: Tensor, spans: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """Return (B, T) bool: the tokens that are cut out."""
    width = first.shape[1]
    kept, cut = _parts(n - noise, spans, first), _parts(noise, spans, second)
    # Ends of the alternating runs: kept, cut, kept, cut, ...
    ends = torch.stack([kept, cut], 2).flatten(1).cumsum(1)
    at = torch.arange(width, device=n.device).expand_as(first)
    run = torch.searchsorted(ends, at.contiguous(), right=True)
    return (run % 2 == 1) & (at < n[:, None])


def _parts(total: Tensor, parts: Tensor, random: Tensor) -> Tensor:
    """Return (B, T) lengths >= 1 of `parts` (B,) runs that add up to `total` (B,); then zeros.

    The places of the parts - 1 cuts among the total - 1 gaps are those of the smallest numbers:
    every choice is alike probable.
    """
    place = torch.arange(random.shape[1], device=random.device).expand_as(random)
    gaps = random.masked_fill(place >= total[:, None] - 1, 2.0)
    order = gaps.argsort(dim=1, stable=True)
    cuts = torch.zeros_like(place).scatter(1, order, (place < parts[:, None] - 1).long())
    index = torch.zeros_like(place)
    index[:, 1:] = cuts[:, :-1].cumsum(1)  # of the run that each of the total tokens is in
    return torch.zeros_like(place).scatter_add(1, index, (place < total[:, None]).long())


def _pack(values: Tensor, keep: Tensor, width: int, rule: SpanRule) -> tuple[Tensor, Tensor]:
    """Return the kept values of each row side by side, the end after them, and their number."""
    count = keep.sum(1)
    place = torch.where(keep, keep.long().cumsum(1) - 1, width)  # the rest goes beyond, and away
    packed = values.new_full((len(values), width + 1), rule.pad).scatter(1, place, values)
    packed[:, width] = rule.pad
    if rule.end is not None:
        packed.scatter_(1, count[:, None], rule.end)
        count = count + 1
    return packed[:, :width], count
