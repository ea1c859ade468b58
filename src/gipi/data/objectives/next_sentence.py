"""Next-sentence prediction: whether a second text follows the first or comes from elsewhere.

A corpus is a flat list of units (sentences, or runs of them) in reading order; each is of one
document.

B pairs, T positions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from gipi.core.errors import DataError
from gipi.core.seed import derive, uniform

if TYPE_CHECKING:
    from torch import Tensor

FOLLOWS, ELSEWHERE = 0, 1
"""The labels: the second unit follows the first; it is from another document."""


def pair_starts(documents: Tensor) -> Tensor:
    """Return (pairs,) int64: the units that have a successor in their document, once for a corpus.

    documents  (units,) int64 document of each unit, rising

    Raises `DataError` for one document, and for documents of one unit each.

    >>> pair_starts(torch.tensor([0, 0, 0, 1, 2, 2])).tolist()
    [0, 1, 4]
    """
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


def next_sentence(
    documents: Tensor, first: Tensor, *, seed: int, epoch: int, share: float = 0.5
) -> tuple[Tensor, Tensor]:
    """Return (second, label): a unit for each of `first`, and whether it follows it.

    documents  (units,) int64 document of each unit, rising
    first      (B,) int64 units, some of `pair_starts`
    share      of the pairs whose second unit is from elsewhere

    The unit from elsewhere is drawn evenly among all units of all other documents; both draws are a
    pure function of (seed, epoch, first unit).

    Devlin et al. 2019, "BERT", arXiv:1810.04805. It differs in that units are joined to the wanted
    length before, not while pairs are made, and that a corpus gives the same pairs in any order.

    >>> documents = torch.tensor([0, 0, 0, 1, 1])
    >>> first = pair_starts(documents)
    >>> second, label = next_sentence(documents, first, seed=0, epoch=0)
    >>> bool(((second == first + 1) == (label == FOLLOWS)).all())
    True
    """
    key = derive(seed, "next sentence", epoch)
    elsewhere = uniform(key, first) < share
    own = documents[first]
    low = torch.searchsorted(documents, own)
    after = torch.searchsorted(documents, own, right=True)
    # A number among the units of other documents; those behind the own one are counted on.
    others = len(documents) - (after - low)
    drawn = (uniform(key, first, 1) * others.double()).long()
    drawn = torch.where(drawn >= low, drawn + (after - low), drawn)
    return torch.where(elsewhere, drawn, first + 1), elsewhere.long()


def join_pairs(
    values: Tensor | np.ndarray,
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

    values   (total,) ids of all units, end to end; an array may lie on the disk, for only the
             tokens of these rows are read
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
    at = torch.arange(width, device=offsets.device)
    end_a, end_b = (keep_a + 1)[:, None], (keep_a + keep_b + 2)[:, None]
    index = torch.where(
        at <= end_a, offsets[first, None] + at - 1, offsets[second, None] + at - end_a - 1
    )
    index = index.clamp(0, len(values) - 1)
    if isinstance(values, np.ndarray):
        tokens = torch.from_numpy(values[index.numpy()].astype(np.int64))
    else:
        tokens = values[index]
    tokens = tokens.masked_fill(at == 0, begin)
    tokens = tokens.masked_fill((at == end_a) | (at == end_b), separator)
    tokens = tokens.masked_fill(at > end_b, pad)
    segments = ((at > end_a) & (at <= end_b)).long()
    return tokens, segments, a + b - keep_a - keep_b
