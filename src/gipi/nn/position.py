"""Where a token stands: sinusoids, turned queries and keys, and T5's buckets of distance.

Shapes: B rows, T tokens, Q queries, K keys, H heads, E units of a head.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import nn

from gipi.core.errors import ModelError

if TYPE_CHECKING:
    from torch import Tensor


def sinusoids(length: int, width: int) -> Tensor:
    """Return the table (length, width) of sines, then cosines, of positions at falling speeds.

    P[p, i] = sin(p / 10000^(2i/width)),  P[p, ⌈width/2⌉ + i] = cos(p / 10000^(2i/width))

    Vaswani et al. 2017, arXiv:1706.03762, which puts sines and cosines in turn; here, as in Marian
    and tensor2tensor, the cosines follow all sines. Computed in float64, returned as float32.
    """
    sines = (width + 1) // 2
    speeds = 10000.0 ** (-2.0 * torch.arange(sines, dtype=torch.float64, device="cpu") / width)
    angles = torch.arange(length, dtype=torch.float64, device="cpu").unsqueeze(1) * speeds
    return torch.cat([angles.sin(), angles[:, : width // 2].cos()], 1).float()


def count_real(real_BK: Tensor, *, new: int) -> Tensor:
    """Return the positions (B, new) of the last tokens when padding does not count.

    The first real token of a row stands at 0 wherever its padding lies; padding before it too.

    >>> count_real(torch.tensor([[0, 0, 1, 1, 1]]), new=4)
    tensor([[0, 0, 1, 2]])
    """
    return (real_BK.long().cumsum(1) - 1).clamp_min(0)[:, -new:]


# ------------------------------------------------------------------------ rotary


@dataclass(frozen=True)
class Rotary:
    """How fast each pair of units turns with the position, and how that was stretched later.

    base      pair i of E/2 turns by base^(-2i/E) per token
    kind      default; linear: all speeds divided by `factor`; llama3: slow ones divided, fast ones
              kept, those between blended
    factor, low, high, trained   `factor`, `low_freq_factor`, `high_freq_factor` and
              `original_max_position_embeddings` of Llama 3.1

    Su et al. 2021, "RoFormer", arXiv:2104.09864; linear: Chen et al. 2023, arXiv:2306.15595;
    llama3: Grattafiori et al. 2024, "The Llama 3 herd of models", arXiv:2407.21783.
    """

    base: float = 10000.0
    kind: Literal["default", "linear", "llama3"] = "default"
    factor: float = 1.0
    low: float = 1.0
    high: float = 4.0
    trained: int = 8192

    def speeds(self, head_width: int, *, device: torch.device | str | None = None) -> Tensor:
        """Return the angle per token of each pair, (E/2,) float32."""
        if head_width % 2:
            raise ModelError(f"rotary positions for heads of {head_width} units",
                             "an even number: units turn in pairs", "change the heads")  # fmt: skip
        powers = torch.arange(0, head_width, 2, device=device).float() / head_width
        speed = 1.0 / self.base**powers
        if self.kind == "default":
            return speed
        if self.kind == "linear":
            return speed / self.factor
        wave = 2 * math.pi / speed  # tokens of one whole turn
        blend = (self.trained / wave - self.low) / (self.high - self.low)
        mixed = (1 - blend) * speed / self.factor + blend * speed
        slow, fast = wave > self.trained / self.low, wave < self.trained / self.high
        return torch.where(slow, speed / self.factor, torch.where(fast, speed, mixed))


def rotary(positions_BT: Tensor, head_width: int, *, how: Rotary) -> tuple[Tensor, Tensor]:
    """Return cosines and sines (B, 1, T, E) of every position, in float32; once per forward."""
    speeds = how.speeds(head_width, device=positions_BT.device)
    angles = positions_BT.float()[:, None, :, None] * speeds
    angles = torch.cat([angles, angles], -1)
    return angles.cos(), angles.sin()


def rotate(x_BHTE: Tensor, turn: tuple[Tensor, Tensor]) -> Tensor:
    """Return x with unit i and unit i + E/2 turned as a pair by the angle of the position.

    Llama pairs the two halves; the paper pairs neighbours. Both are the same up to the order of the
    units, so weights of one cannot be used with the other.
    """
    cos, sin = (part.to(x_BHTE.dtype) for part in turn)
    first, second = x_BHTE.chunk(2, -1)
    return x_BHTE * cos + torch.cat([-second, first], -1) * sin


# ------------------------------------------------------------------------ relative


def relative_buckets(
    ahead_QK: Tensor, buckets: int, *, distance: int = 128, both: bool = True
) -> Tensor:
    """Return the bucket (Q, K) of each distance: near ones alone, far ones in growing groups.

    ahead_QK  int64, place of the key minus place of the query
    buckets   how many; with `both` directions half of them for keys ahead
    distance  from here on all distances share the last bucket

    With n buckets in one direction, a distance d < n/2 is its own bucket, a larger one is
    n/2 + ⌊log(d / (n/2)) / log(distance / (n/2)) · n/2⌋, at most n - 1. Without `both`, keys ahead
    count as distance 0.

    Raffel et al. 2020, "Exploring the limits of transfer learning" (T5), arXiv:1910.10683.
    """
    if both:
        buckets //= 2
        start = (ahead_QK > 0).long() * buckets
        far = ahead_QK.abs()
    else:
        start = torch.zeros_like(ahead_QK)
        far = (-ahead_QK).clamp_min(0)
    exact = buckets // 2
    # Float32 in this order of operations is part of the definition: published weights were
    # trained with its roundings at the edges of the buckets.
    steps = torch.log(far.clamp_min(1).float() / exact) / math.log(distance / exact)
    grouped = exact + (steps * (buckets - exact)).long()
    return start + torch.where(far < exact, far, grouped.clamp_max(buckets - 1))


class RelativeBias(nn.Module):
    """A learned number per head and bucket of distance, added to the scores of attention.

    -> (H, Q, K); the layers of a stack share it. `relative_buckets` says which bucket. Raises
    `ModelError` for buckets that cannot be told apart.
    """

    def __init__(self, heads: int, buckets: int, *, distance: int, both: bool) -> None:
        super().__init__()
        fewest = 4 if both else 2  # in each direction one for a distance, one for all beyond
        if buckets < fewest or (both and buckets % 2):
            raise ModelError(f"{buckets} buckets of relative positions",
                             f"{'an even number of ' * both}{fewest} or more",
                             "32 are usual")  # fmt: skip
        if distance <= buckets // fewest:
            raise ModelError(f"{buckets} buckets of relative positions up to {distance} tokens",
                             f"a distance above {buckets // fewest}, the last that has its own",
                             "128 tokens are usual")  # fmt: skip
        self.table = nn.Embedding(buckets, heads)
        self.buckets, self.distance, self.both = buckets, distance, both

    def forward(self, queries: int, keys: int) -> Tensor:
        """Return the biases of the last `queries` of `keys` places."""
        device = self.table.weight.device
        own = torch.arange(keys - queries, keys, device=device).unsqueeze(1)
        ahead = torch.arange(keys, device=device) - own
        which = relative_buckets(ahead, self.buckets, distance=self.distance, both=self.both)
        bias: Tensor = self.table(which).permute(2, 0, 1)
        return bias
