"""Rows of unequal length: where a row ends, and pools over time that never see the padding.

Shapes: B rows, T time steps, K channels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from gipi.nn.init import initialise

if TYPE_CHECKING:
    from torch import Generator, Tensor


def row_lengths(tokens_BT: Tensor, pad: int) -> Tensor:
    """Return where each row of token ids ends, (B,) int64: behind its last token that is no `pad`.

    A row of nothing but padding has length 0.

    >>> row_lengths(torch.tensor([[5, 0, 7, 0], [0, 0, 0, 0]]), 0)
    tensor([3, 0])
    """
    if tokens_BT.shape[1] == 0:
        return tokens_BT.new_zeros(len(tokens_BT), dtype=torch.int64)
    places_T = torch.arange(1, tokens_BT.shape[1] + 1, device=tokens_BT.device)
    return ((tokens_BT != pad) * places_T).amax(1)


def within(lengths_B: Tensor, steps: int) -> Tensor:
    """Return the mask (B, T) bool of T = `steps`: true before the end of each row.

    >>> within(torch.tensor([2, 0]), 3)
    tensor([[ True,  True, False],
            [False, False, False]])
    """
    return torch.arange(steps, device=lengths_B.device) < lengths_B[:, None]


def masked_softmax(scores: Tensor, mask: Tensor) -> Tensor:
    """Return the softmax over the last axis of what `mask` allows; 0 elsewhere.

    Weights sum to one, or to zero where nothing is allowed: never NaN.
    """
    lowest = torch.finfo(scores.dtype).min
    weights = scores.masked_fill(~mask, lowest).softmax(-1)
    return weights.masked_fill(~mask, 0.0)


def mean_over_time(x_BTK: Tensor, mask_BT: Tensor) -> Tensor:
    """Return the mean of each row's own steps, (B, K); zeros for an empty row."""
    total = x_BTK.masked_fill(~mask_BT[..., None], 0.0).sum(1)
    return total / mask_BT.sum(1).clamp(min=1)[:, None]


def max_over_time(x_BTK: Tensor, mask_BT: Tensor) -> Tensor:
    """Return the largest value of each channel in each row's own steps, (B, K); zeros if none."""
    if x_BTK.shape[1] == 0:
        return x_BTK.new_zeros(len(x_BTK), x_BTK.shape[2])
    lowest = torch.finfo(x_BTK.dtype).min
    most = x_BTK.masked_fill(~mask_BT[..., None], lowest).amax(1)
    return most.masked_fill(~mask_BT.any(1, keepdim=True), 0.0)


class AttentionPool(nn.Module):
    """A weighted mean over time whose weights are learned.

        a_t ∝ exp(v · tanh(W x_t + b)),   y = Σ a_t x_t

    x (B, T, K), mask (B, T) -> (B, K). Yang et al. 2016, "Hierarchical attention networks for
    document classification".
    """

    def __init__(self, width: int, generator: Generator) -> None:
        super().__init__()
        self.project = nn.Linear(width, width)
        self.energy = nn.Linear(width, 1, bias=False)
        initialise(self.project, generator, activation="tanh")
        initialise(self.energy, generator)

    def weights(self, x_BTK: Tensor, mask_BT: Tensor) -> Tensor:
        """Return the weights (B, T): they sum to one, and are 0 on padding."""
        return masked_softmax(self.energy(self.project(x_BTK).tanh())[..., 0], mask_BT)

    def forward(self, x_BTK: Tensor, mask_BT: Tensor) -> Tensor:
        """Return (B, K); zeros for an empty row."""
        weights = self.weights(x_BTK, mask_BT)
        return (weights[:, None] @ x_BTK)[:, 0]
