"""Losses of what is alike: labels say which rows belong together, and nothing else.

Shapes: n rows, d numbers of an output.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from gipi.doctor.asked import value_of

if TYPE_CHECKING:
    from gipi.doctor.facts import Facts

TRIALS, SIZES = 3, (1.0, 3.0)
"""How often outputs are drawn, and how large they are beside those of the net."""
NOISE = 0.1
"""Spread of rows of a class around its middle, by its length: no distance is 0 then."""


def parts_alike(facts: Facts) -> bool:
    """Whether a loss is larger where each class has its own place than where rows lie anywhere."""
    said, y = facts.outputs, facts.batch[1]
    wide = float(said.flatten(1).norm(dim=1).mean())
    if not wide > 0 or said.shape[1] < 2:
        return False
    _, kind = torch.unique(y, return_inverse=True)
    generator = torch.Generator().manual_seed(0)
    for _ in range(TRIALS):
        middles = torch.randn(int(kind.max()) + 1, said.shape[1], generator=generator)
        noise = torch.randn(said.shape, generator=generator)
        anywhere = F.normalize(torch.randn(said.shape, generator=generator), dim=1)
        own = F.normalize(F.normalize(middles, dim=1)[kind.cpu()] + NOISE * noise, dim=1)
        for size in SIZES:
            together, apart = (value_of(facts, (size * wide * at).to(said), y)
                               for at in (own, anywhere))  # fmt: skip
            if together is None or apart is None or not together > apart:
                return False
    return True


def nearer(said_nd: Tensor, y_n: Tensor) -> float:
    """Return the chance that a row of the same class is nearer than one of another."""
    far = torch.cdist(said_nd.double().flatten(1), said_nd.double().flatten(1))
    same = y_n[:, None] == y_n
    own = same & ~torch.eye(len(y_n), dtype=torch.bool, device=y_n.device)
    if not bool(own.any()) or bool(same.all()):
        return 0.5
    shares = []
    for row in range(len(y_n)):
        near, other = far[row][own[row]], far[row][~same[row]]
        if len(near) and len(other):
            closer = (near[:, None] < other).double() + 0.5 * (near[:, None] == other)
            shares.append(float(closer.mean()))
    return sum(shares) / len(shares) if shares else 0.5
