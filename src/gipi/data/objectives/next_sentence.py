"""Next-sentence prediction: whether a second text follows the first or comes from elsewhere.

A corpus is a flat list of units (sentences, or runs of them) in reading order; each is of one
document.

B pairs, T positions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from gipi.core.errors import DataError
from gipi.core.seed import derive, uniform

if TYPE_CHECKING:
    from torch import Tensor

FOLLOWS, ELSEWHERE = 0, 1
"""The labels: the second unit follows the first; it is from another document."""


def next_sentence(
    documents: Tensor, ids: Tensor, *, seed: int, epoch: int, share: float = 0.5
) -> tuple[Tensor, Tensor, Tensor]:
    """Return (first, second, label): numbers of two units each, and whether the second follows.

    documents  (units,) int64 document of each unit, rising
    ids        (B,) int64: pair i begins with the i-th unit that has a successor in its document
               (`pairs` says how many there are)
    share      of the pairs whose second unit is from elsewhere

    The unit from elsewhere is drawn evenly among all units of all other documents.

    Devlin et al. 2019, "BERT", arXiv:1810.04805. It differs in that units are joined before, not
    while pairs are made, so that a pair is a pure function of (seed, epoch, id).
    Raises `DataError` for one document, and for documents of one unit each.

    >>> documents = torch.tensor([0, 0, 0, 1, 1])
    >>> first, second, label = next_sentence(documents, torch.arange(3), seed=0, epoch=0)
    >>> first.tolist(), bool(((second == first + 1) == (label == FOLLOWS)).all())
    ([0, 1, 3], True)
    """
    starts = _starts(documents)
    key = derive(seed, "next sentence", epoch)
    first = starts[ids]
    elsewhere = uniform(key, ids) < share
    own, total = documents[first], len(documents)
    low = torch.searchsorted(documents, own)
    high = torch.searchsorted(documents, own, right=True)
    # A number among the units of other documents; those behind the own one are counted on.
    others = total - (high - low)
    drawn = (uniform(key, ids, 1) * others.double()).long()
    drawn = torch.where(drawn >= low, drawn + (high - low), drawn)
    return first, torch.where(elsewhere, drawn, first + 1), elsewhere.long()


def pairs(documents: Tensor) -> int:
    """Return the number of pairs: units that have a successor in their document."""
    return len(_starts(documents))


def _starts(documents: Tensor) -> Tensor:
    starts = (documents[1:] == documents[:-1]).nonzero().squeeze(1)
    if not len(starts):
        raise DataError(
            f"{len(documents)} documents of one unit each",
            "documents of at least two units (sentences or paragraphs)",
            "split the documents into sentences, or leave next-sentence prediction out",
        )
    if documents[0] == documents[-1]:
        raise DataError(
            "one document", "at least two: the second text of half the pairs is from another one",
            "mark where documents begin (a blank line), or leave next-sentence prediction out",
        )  # fmt: skip
    return starts


def join_pairs(
    values: Tensor,
    offsets: Tensor,
    *,
    first: Tensor,
    second: Tensor,
    width: int,
    begin: int,
    separator: int,
    pad: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return rows [begin] A [separator] B [separator]: tokens, segments, and tokens cut off.

    values   (total,) int64 ids of all units, end to end
    offsets  (units + 1,) int64: unit u is values[offsets[u]:offsets[u + 1]]
    first, second  (B,) units
    width    T

    Segments are 0 for [begin] A [separator] and 1 for B [separator]; the third result (B,) says how
    many tokens did not fit. The longer of the two is cut first, at its end (the BERT authors cut at
    either end). Raises `DataError` where T has no room for one token of each.
    """
    room = width - 3
    if room < 2:
        raise DataError(
            f"rows of {width} tokens", "at least 5: two texts and three marks", "use longer rows"
        )
    a, b = offsets[first + 1] - offsets[first], offsets[second + 1] - offsets[second]
    half = room // 2
    keep_a = torch.where(a + b <= room, a, torch.where(b <= half, room - b, room - half))
    keep_a = torch.minimum(a, keep_a)
    keep_b = torch.minimum(b, room - keep_a)
    at = torch.arange(width, device=values.device)
    end_a, end_b = (keep_a + 1)[:, None], (keep_a + keep_b + 2)[:, None]
    index = torch.where(
        at <= end_a, offsets[first, None] + at - 1, offsets[second, None] + at - end_a - 1
    )
    tokens = values[index.clamp(0, len(values) - 1)]
    tokens = tokens.masked_fill(at == 0, begin)
    tokens = tokens.masked_fill((at == end_a) | (at == end_b), separator)
    tokens = tokens.masked_fill(at > end_b, pad)
    segments = ((at > end_a) & (at <= end_b)).long()
    return tokens, segments, a + b - keep_a - keep_b
