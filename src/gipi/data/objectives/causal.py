"""Causal language modelling: every token is predicted from those before it.

B rows, T positions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from gipi.core.errors import DataError
from gipi.core.schema import IGNORED_TOKEN

if TYPE_CHECKING:
    from torch import Tensor


def causal(
    tokens: Tensor, *, lengths: Tensor | None = None, prompt: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Return what the model reads and what it must say: (B, T) inputs and the same, one ahead.

        label_t = token_{t+1}

    tokens   (B, T + 1) int64 ids
    lengths  (B,) tokens of each row, where what follows them is padding; None: all
    prompt   (B,) leading tokens that are given and not learned; None: none

    The labels of padding and prompt are -100. Padding is told by length, not by its id: in many
    vocabularies padding and the end of a text share one, and the end must be learned. Both results
    are views of `tokens` where nothing is ignored.

    Bengio et al. 2003, "A neural probabilistic language model". Raises `DataError` for rows of
    fewer than two tokens.

    >>> [x.tolist() for x in causal(torch.tensor([[5, 6, 7]]))]
    [[[5, 6]], [[6, 7]]]
    """
    if tokens.shape[1] < 2:
        raise DataError(
            f"rows of {tokens.shape[1]} tokens",
            "at least two: one to read and one to say",
            "use longer windows, or drop rows that are this short",
        )
    inputs, labels = tokens[:, :-1], tokens[:, 1:]
    at = torch.arange(1, tokens.shape[1], device=tokens.device)
    if lengths is not None:
        labels = labels.masked_fill(at >= lengths[:, None], IGNORED_TOKEN)
    if prompt is not None:
        labels = labels.masked_fill(at < prompt[:, None], IGNORED_TOKEN)
    return inputs, labels
