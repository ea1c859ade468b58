"""From tokens to vectors: a table of tokens, of positions and of segments, added up.

Shapes: B rows, T tokens, K tokens with those in the cache, D width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import nn

from gipi.core.errors import ModelError
from gipi.nn.position import count_real, sinusoids

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class EmbedConfig:
    """How tokens become vectors.

    vocab, width   V and D
    positions      rows of the table of positions; 0: no table
    kind           learned, or sinusoidal as in 2017
    count          how a token's position is found: by its place in the row (index), among the real
                   tokens (mask), or among those that are not `pad` (ids)
    offset         position of the first token
    pad            id of padding, for count="ids"
    context        tokens of a row that a model without a table was made for; 0: not said
    segments       rows of the table of segments; 0: none, -1: the token table (GPT-2)
    norm, eps      whether layer norm follows the sum
    scale          of the tokens' vectors before positions are added
    dropout        of the sum
    """

    vocab: int
    width: int
    positions: int = 0
    kind: Literal["learned", "sinusoidal"] = "learned"
    count: Literal["index", "mask", "ids"] = "index"
    offset: int = 0
    pad: int | None = None
    context: int = 0
    segments: int = 0
    norm: bool = False
    eps: float = 1e-12
    scale: float = 1.0
    dropout: float = 0.0

    @property
    def longest(self) -> int:
        """Return the most tokens of a row: what the table holds, else `context`; 0: no limit."""
        return self.positions - self.offset if self.positions else self.context


class Embed(nn.Module):
    """scale·E[token] + P[position] + S[segment], then layer norm where there is one, and dropout.

    ids (B, T) int64 -> (B, T, D)
    """

    sines: Tensor  # (positions, D), where they are sinusoidal

    def __init__(self, config: EmbedConfig) -> None:
        super().__init__()
        self.config = config
        self.tokens = nn.Embedding(config.vocab, config.width)
        self.positions: nn.Embedding | None = None
        if config.positions and config.kind == "learned":
            self.positions = nn.Embedding(config.positions, config.width)
        elif config.positions:
            # Not a weight: it is computed again wherever the model is built.
            table = sinusoids(config.positions, config.width)
            self.register_buffer("sines", table, persistent=False)
        self.segments = nn.Embedding(config.segments, config.width) if config.segments > 0 else None
        self.norm = nn.LayerNorm(config.width, eps=config.eps) if config.norm else None
        self.dropout = nn.Dropout(config.dropout)

    def places(self, ids_BT: Tensor, real_BK: Tensor | None = None, *, before: int = 0) -> Tensor:
        """Return the position (B or 1, T) of each token, `before` tokens being in the cache."""
        c, T = self.config, ids_BT.shape[1]
        if c.positions and before + T + c.offset > c.positions:
            raise ModelError(
                f"{before + T} tokens in a row",
                f"at most {c.longest}, the positions that this model knows",
                "cut the text, or use windows",
            )
        if c.count == "ids":
            assert c.pad is not None
            real = ids_BT.ne(c.pad)
            # Padding stands on the row of the padding id, as where this way of counting is from.
            return torch.where(real, real.long().cumsum(1) - 1 + c.offset, c.offset - 1)
        if c.count == "mask" and real_BK is not None:
            return count_real(real_BK, new=T) + c.offset
        return torch.arange(before, before + T, device=ids_BT.device).unsqueeze(0) + c.offset

    def forward(
        self, ids_BT: Tensor, places_BT: Tensor | None = None, *, segments_BT: Tensor | None = None
    ) -> Tensor:
        """Return the vectors of the tokens; `places_BT` as `places` gives them."""
        c = self.config
        x: Tensor = self.tokens(ids_BT)
        if c.scale != 1.0:
            x = x * c.scale
        if self.segments is not None:
            x = x + self.segments(torch.zeros_like(ids_BT) if segments_BT is None else segments_BT)
        elif segments_BT is not None:
            if c.segments == 0:
                raise ModelError("segments (token_type_ids) for a model that has none",
                                 "tokens and mask only", "leave token_type_ids out")  # fmt: skip
            x = x + self.tokens(segments_BT)
        if c.positions:
            if places_BT is None:
                places_BT = self.places(ids_BT)
            table = self.positions
            x = x + (self.sines[places_BT].to(x.dtype) if table is None else table(places_BT))
        if self.norm is not None:
            x = self.norm(x)
        out: Tensor = self.dropout(x)
        return out
