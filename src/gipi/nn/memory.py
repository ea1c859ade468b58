"""What a recurrent net remembers of rows that go on in the next batch.

A long text is read in pieces, row b of a batch going on where row b of the batch before ended: the
state goes on from piece to piece, the gradient does not. That is truncated back-propagation through
time (Williams and Peng 1990, "An efficient gradient-based algorithm for on-line training of
recurrent network trajectories").

Shapes: N places, B rows, L layers, H units.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from gipi.nn.recurrent import Carried

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from gipi.nn.recurrent import Recurrent


class Memory(nn.Module):
    """One state at each of N places; a row says which place is its own, and whether it is new.

    The states are buffers, so that they move with the model and a step that is left out can be
    undone, but no weights: they are neither saved with a model nor averaged into one. A memory of
    no places (as it is built) remembers nothing.

    layers  whose states are kept
    """

    h: Tensor
    c: Tensor

    def __init__(self, layers: Recurrent) -> None:
        super().__init__()
        start = layers.start(0, like=torch.zeros(()))
        self.register_buffer("h", start.h, persistent=False)
        self.register_buffer("c", start.c, persistent=False)

    @property
    def places(self) -> int:
        """N, 0 where nothing is remembered."""
        return len(self.h)

    def hold(self, places: int) -> None:
        """Make room for so many states, all zero; what was remembered is forgotten."""
        self.h = self.h.new_zeros(places, *self.h.shape[1:])
        self.c = self.c.new_zeros(places, *self.c.shape[1:])

    def read(self, place_B: Tensor, fresh_B: Tensor) -> Carried:
        """Return the states (B, L, H) at these places, zero for rows that are new; no gradient."""
        new_B11 = fresh_B[:, None, None]
        h, c = (t.index_select(0, place_B).masked_fill(new_B11, 0.0) for t in (self.h, self.c))
        return Carried(h, c)

    @torch.no_grad()
    def write(self, place_B: Tensor, state: Carried) -> None:
        """Remember the states (B, L, H) at these places; one that is not finite is forgotten.

        A step that is not finite is left out of the weights. Its state must not spoil all later
        steps either.
        """
        lost_B = ~(state.h.isfinite().flatten(1).all(1) & state.c.isfinite().flatten(1).all(1))
        for kept, new in ((self.h, state.h), (self.c, state.c)):
            kept.index_copy_(0, place_B, new.to(kept.dtype).masked_fill(lost_B[:, None, None], 0.0))

    def content(self) -> dict[str, Tensor]:
        """Return what is remembered, for a checkpoint."""
        return {"h": self.h, "c": self.c}

    @torch.no_grad()
    def restore(self, content: Mapping[str, Tensor]) -> None:
        """Take up `content`, in place; raise `RuntimeError` where it is of another size."""
        for name, kept in (("h", self.h), ("c", self.c)):
            if content[name].shape != kept.shape:
                raise RuntimeError(
                    f"a memory of {tuple(content[name].shape)} for one of {tuple(kept.shape)}"
                )
            kept.copy_(content[name])
