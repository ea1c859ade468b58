"""Columns of a table as vectors: categories by lookup, numbers by periodic functions.

Shapes: B rows, K category columns, F number columns, D units.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Generator, Tensor


def embedding_width(cardinality: int) -> int:
    """Return the width of a category's vector, min(50, ⌈1.6 n^0.56⌉) for n known values.

    `cardinality` counts the unknown code 0 too, hence n = cardinality - 1. Two values need one
    number. The rule is fastai's (Howard and Gugger 2020, arXiv:2002.04688).

    >>> [embedding_width(n + 1) for n in (2, 10, 1000)]
    [1, 6, 50]
    """
    known = max(cardinality - 1, 1)
    return 1 if known <= 2 else min(50, math.ceil(1.6 * known**0.56))


class CategoryEmbeddings(nn.Module):
    """One lookup table per category column, side by side.

    codes (B, K) int64, code 0 the unknown -> (B, Σ widths) float. Vectors start at N(0, 1/width),
    so that a column weighs as much as one standardised number; the unknown starts at zero, the mean
    of the others, because it may never be seen in training.

    Guo and Berkhahn 2016, "Entity embeddings of categorical variables", arXiv:1604.06737.
    """

    def __init__(self, cardinalities: Sequence[int], generator: Generator) -> None:
        super().__init__()
        widths = [embedding_width(n) for n in cardinalities]
        self.tables = nn.ModuleList(
            nn.Embedding(n, w) for n, w in zip(cardinalities, widths, strict=True)
        )
        self.width = sum(widths)
        with torch.no_grad():
            for table, width in zip(self.tables, widths, strict=True):
                table.weight.normal_(0.0, width**-0.5, generator=generator)  # type: ignore[operator]
                table.weight[0].zero_()  # type: ignore[index]

    def forward(self, codes_BK: Tensor) -> Tensor:
        """Return the vectors of all columns, (B, Σ widths)."""
        return torch.cat(
            [table(codes) for table, codes in zip(self.tables, codes_BK.unbind(1), strict=True)], 1
        )


class OneHotLinear(nn.Module):
    """Σₖ W_k[codeₖ]: a linear layer on the one-hot codes of all columns, without building them.

    codes (B, K) int64 -> (B, D). All weights start at zero; code 0, the unknown, adds what its own
    row has learned, which is nothing where training had no unknowns.
    """

    starts: Tensor

    def __init__(self, cardinalities: Sequence[int], outputs: int) -> None:
        super().__init__()
        starts = torch.tensor([0, *cardinalities[:-1]]).cumsum(0)
        self.register_buffer("starts", starts, persistent=False)
        self.weight = nn.Parameter(torch.zeros(sum(cardinalities), outputs))

    def forward(self, codes_BK: Tensor) -> Tensor:
        """Return (B, D)."""
        return nn.functional.embedding(codes_BK + self.starts, self.weight).sum(1)


class PeriodicNumbers(nn.Module):
    """Each number as D trained units of sines and cosines of it, beside the number itself.

        v = [sin 2πc₁x, cos 2πc₁x, ..., sin 2πc_kx, cos 2πc_kx],   e = relu(A v + a)

    A network on raw numbers learns smooth functions first; the frequencies c let it see steps and
    peaks along one column. c starts at N(0, σ²); A is shared by the columns, c is not.

    x (B, F) -> (B, F·D + F). Gorishniy, Rubachev and Babenko 2022, "On embeddings for numerical
    features in tabular deep learning" (PLR, with the shared A of its "lite" form),
    arXiv:2203.05556. Differs in that the numbers themselves are kept, for what is linear.
    """

    no_decay = True

    def __init__(
        self, numbers: int, generator: Generator, *, units: int = 8, frequencies: int = 16,
        sigma: float = 0.3,
    ) -> None:  # fmt: skip
        super().__init__()
        self.frequency = nn.Parameter(torch.empty(numbers, frequencies))
        self.mix = nn.Linear(2 * frequencies, units)
        self.width = numbers * (units + 1)
        with torch.no_grad():
            self.frequency.normal_(0.0, sigma, generator=generator)
            # sin² + cos² = 1: the second moment of v is 1/2, so He's 2/in becomes 4/in.
            self.mix.weight.normal_(0.0, (2 / frequencies) ** 0.5, generator=generator)
            self.mix.bias.zero_()

    def forward(self, x_BF: Tensor) -> Tensor:
        """Return the units of all columns, then the columns."""
        angle = (2 * math.pi) * x_BF.unsqueeze(2) * self.frequency
        waves = torch.cat([angle.sin(), angle.cos()], 2)
        return torch.cat([self.mix(waves).relu().flatten(1), x_BF], 1)
