"""The memory of a decoder: keys and values of all tokens so far, so that a step costs one token.

Shapes: B rows, N tokens there is room for, T new tokens, S source tokens, G heads of keys and
values, E units of a head.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from gipi.core.errors import ModelError

if TYPE_CHECKING:
    from torch import Tensor


class Cache:
    """Room for the keys and values of `layers` layers, allocated once and filled from the left.

    k, v            per layer (B, G, N, E); columns from `filled` on hold nothing yet
    filled          tokens kept so far, the same for all rows
    real            (B, N) bool, true for tokens and false for padding; None while no mask was given
    cross_k, cross_v  per layer (B, G, S, E) of the source, computed once; None before that
    source_real     (B, S) bool of the source; None where all of it is real

    A step of a model writes its tokens with `update` in every layer and then calls `advance` once.
    The cache belongs to prediction: it is written in place, so no gradient goes through it.

    Shazeer 2019, "Fast transformer decoding", arXiv:1911.02150 (on why this memory is the cost).
    """

    def __init__(
        self,
        layers: int,
        shape: tuple[int, int, int, int],
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        """Allocate; `shape` is (B, G, N, E)."""
        self.k = [torch.zeros(shape, dtype=dtype, device=device) for _ in range(layers)]
        self.v = [torch.zeros(shape, dtype=dtype, device=device) for _ in range(layers)]
        self.filled = 0
        self.real: Tensor | None = None
        self.cross_k: list[Tensor | None] = [None] * layers
        self.cross_v: list[Tensor | None] = [None] * layers
        self.source_real: Tensor | None = None

    @property
    def rows(self) -> int:
        """Return B."""
        return int(self.k[0].shape[0])

    @property
    def length(self) -> int:
        """Return N, the tokens there is room for."""
        return int(self.k[0].shape[2])

    def see(self, mask_BT: Tensor | None, *, new: int) -> Tensor | None:
        """Note which of the `new` tokens are real; return that for all tokens so far, (B, K) bool.

        mask_BT  1 for a token, 0 for padding, of the new tokens (B, T) or of all tokens so far
                 (B, filled + T); None: all are real

        None is returned where no token of the cache is padding as far as masks were given. Raises
        `ModelError` where the tokens do not fit in, or the mask has another length.
        """
        total = self.filled + new
        if total > self.length:
            raise ModelError(
                f"{new} more tokens for a cache that holds {self.filled} of {self.length}",
                "room for all tokens of prompt and answer",
                f"make the cache with new_cache(batch, length) for length >= {total}",
            )
        if mask_BT is None and self.real is None:
            return None
        if self.real is None:
            self.real = torch.ones(
                self.rows, self.length, dtype=torch.bool, device=self.k[0].device
            )
        if mask_BT is None:
            self.real[:, self.filled : total] = True
        elif mask_BT.shape[1] == total:
            self.real[:, :total] = mask_BT.bool()
        elif mask_BT.shape[1] == new:
            self.real[:, self.filled : total] = mask_BT.bool()
        else:
            raise ModelError(
                f"an attention mask of {mask_BT.shape[1]} columns for {new} new tokens after "
                f"{self.filled} in the cache",
                f"{new} columns (the new tokens) or {total} (all tokens so far)",
                "pass the mask of the new tokens, or none where none is padding",
            )
        return self.real[:, :total]

    def update(self, layer: int, k_BGTE: Tensor, v_BGTE: Tensor) -> tuple[Tensor, Tensor]:
        """Write the new tokens of one layer; return all keys and values so far, (B, G, K, E)."""
        total = self.filled + k_BGTE.shape[2]
        k, v = self.k[layer], self.v[layer]
        k[:, :, self.filled : total] = k_BGTE
        v[:, :, self.filled : total] = v_BGTE
        return k[:, :, :total], v[:, :, :total]

    def advance(self, new: int) -> None:
        """Count `new` tokens as kept, once a step after all layers wrote them."""
        self.filled += new

    def crop(self, length: int) -> None:
        """Forget every token after the first `length`, to go on from a shared prompt."""
        if not 0 <= length <= self.filled:
            raise ModelError(
                f"crop to {length} tokens of a cache that holds {self.filled}",
                f"a length from 0 to {self.filled}",
                "crop to what was fed before",
            )
        self.filled = length

    def reorder(self, index_M: Tensor) -> None:
        """Make row i what row `index_M[i]` was, for beams that survive; M rows from then on."""
        self.k = [k.index_select(0, index_M) for k in self.k]
        self.v = [v.index_select(0, index_M) for v in self.v]
        self.cross_k = [k if k is None else k.index_select(0, index_M) for k in self.cross_k]
        self.cross_v = [v if v is None else v.index_select(0, index_M) for v in self.cross_v]
        if self.real is not None:
            self.real = self.real.index_select(0, index_M)
        if self.source_real is not None:
            self.source_real = self.source_real.index_select(0, index_M)

    def expand(self, times: int) -> None:
        """Repeat every row `times` times, neighbours staying together: row i becomes i·times ..."""
        index = torch.arange(self.rows, device=self.k[0].device)
        self.reorder(index.repeat_interleave(times))

    def clone(self) -> Cache:
        """Return a cache of its own with the same content, to branch from a shared prompt."""
        twin = object.__new__(Cache)
        twin.k, twin.v = [k.clone() for k in self.k], [v.clone() for v in self.v]
        twin.filled = self.filled
        twin.real = None if self.real is None else self.real.clone()
        # The source is never written to again, so it may be shared.
        twin.cross_k, twin.cross_v = list(self.cross_k), list(self.cross_v)
        twin.source_real = self.source_real
        return twin
