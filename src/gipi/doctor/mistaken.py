"""How many labels of two classes are wrong, by what explains the answers of a learner best."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

FLOOR = 0.05
"""Share of wrong labels from which on anything is said of them."""
HEARD = 2.0
"""Twice the gain in log-likelihood by wrong labels that is looked into: above it by chance in one
of thirteen."""
BORDERS = (-0.4, -0.15, 0.0, 0.15, 0.4)
"""Where the border may lie, in standard deviations of the margin: a learner need not know it."""


@dataclass(frozen=True)
class Wrong:
    """The share of wrong labels of two classes that explains answers best.

    gain  twice the log-likelihood that it gains over no wrong labels
    """

    share: float
    gain: float

    @property
    def heard(self) -> bool:
        """Whether there is something to be looked into."""
        return self.share >= FLOOR and self.gain >= HEARD


def wrong_of_two(said_n2: Tensor, label_n: Tensor) -> Wrong:
    """Return the share of wrong labels by which answers for two classes are explained best.

    P(second class | s) = e + (1 - 2e) σ(a (s - b)), s the difference of both answers: where two
    Gaussian clouds meet e is 0, however close they are; a share e of wrong labels stays where |s|
    is large. Heavy tails look alike, for far out both classes are as likely: see `label_noise`.
    """
    s = (said_n2[:, 1] - said_n2[:, 0]).double()
    s = s / s.abs().std().clamp_min(1e-12)
    slope = torch.logspace(-1.5, 1.5, 25, dtype=torch.float64)[:, None, None]
    border = torch.tensor(BORDERS, dtype=torch.float64)[:, None]
    sign = 2.0 * label_n.double() - 1
    fits = torch.sigmoid(slope * (s - border) * sign)
    shares = torch.arange(0.0, 0.46, 0.03, dtype=torch.float64)
    found = [
        float((e + (1 - 2 * e) * fits).clamp_min(1e-9).log().sum(-1).max()) for e in shares.tolist()
    ]
    best = max(range(len(found)), key=lambda i: found[i])
    return Wrong(float(shares[best]), 2 * (found[best] - found[0]))
