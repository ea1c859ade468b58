"""Answers longer than the model's context: the oldest tokens are forgotten, half of them at a time.

B rows, T tokens of a row, all rows of one length.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from gipi.core.errors import ModelError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from gipi.nn.stepper import Stepper


@dataclass(frozen=True)
class Sliding:
    """A stepper that begins anew with the last half of a context whenever the context is full.

    A cache cannot slide under learned positions: each token would change its own. So all but the
    last ⌊context / 2⌋ tokens are dropped and these are read again, which costs about one more token
    a token; what follows has half a context or more before it. Reading all of the last context at
    every step would see more and cost a context a token.

    Rows must be of one length: where a row begins anew then depends on itself alone.
    """

    inner: Stepper
    limit: int

    @property
    def context(self) -> int | None:
        """No limit."""
        return None

    def start(self, prompts: Sequence[Sequence[int]], room: int) -> tuple[Tensor, Any]:
        """Read the last context of each prompt."""
        if len({len(prompt) for prompt in prompts}) > 1:
            raise ModelError("prompts of several lengths with a context that slides",
                             "prompts of one length at a time",
                             "group the prompts by their length")  # fmt: skip
        kept = [list(prompt[-self.limit :]) for prompt in prompts]
        # The first token of an answer costs no place: it is chosen from what was read before it.
        logits_BV, state = self.inner.start(kept, min(room, self.limit - len(kept[0])))
        return logits_BV, (state, torch.tensor(kept, device=logits_BV.device))

    def step(self, tokens_BN: Tensor, state: Any) -> tuple[Tensor, Any]:
        """Read one further token, after beginning anew where there is no place for it."""
        inner, read_BT = state
        assert tokens_BN.shape[1] == 1, "a context slides by one token at a time"
        read_BT = torch.cat([read_BT, tokens_BN], 1)
        if read_BT.shape[1] <= self.limit:
            logits_BNV, inner = self.inner.step(tokens_BN, inner)
            return logits_BNV, (inner, read_BT)
        read_BT = read_BT[:, -max(self.limit // 2, 1) :]
        logits_BV, inner = self.inner.start(read_BT.tolist(), self.limit - read_BT.shape[1])
        return logits_BV[:, None], (inner, read_BT)

    def reorder(self, state: Any, index: Tensor) -> Any:
        """Pick rows."""
        inner, read_BT = state
        return self.inner.reorder(inner, index), read_BT[index]

    def history(self, prompts: Sequence[Sequence[int]]) -> list[list[int]]:
        """Return all of the prompts: what was forgotten was said all the same."""
        return self.inner.history(prompts)

    def read(self, texts: Sequence[Sequence[int]]) -> Tensor:
        """Read whole texts; longer ones are for windows, see `likelihood`."""
        return self.inner.read(texts)
