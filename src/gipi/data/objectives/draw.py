"""Random numbers for each position of each row, whatever the batch that the row is in.

B rows, T positions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from gipi.core.seed import mix, uniform

if TYPE_CHECKING:
    from torch import Tensor


def token_uniform(key: int, ids: Tensor, width: int, *, stream: int = 0) -> Tensor:
    """Return (B, T) float64 numbers in [0, 1): a pure function of (key, row id, position, stream).

    key    from `core.seed.derive(seed, purpose, epoch)`
    ids    (B,) int64 row ids
    width  T; a wider batch continues each row's numbers and changes none

    >>> ids = torch.tensor([3, 8])
    >>> bool((token_uniform(1, ids, 4) == token_uniform(1, ids, 9)[:, :4]).all())
    True
    """
    steps = torch.arange(width, device=ids.device)
    return uniform(key, mix(ids)[:, None] + steps, stream)
