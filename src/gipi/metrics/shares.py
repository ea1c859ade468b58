"""How sure a share of rows is: the interval of a proportion."""

from __future__ import annotations

import math

Z95 = 1.959963984540054
"""The normal distribution's 97.5 % point: 95 % between both sides."""


def wilson(share: float, rows: float, *, z: float = Z95) -> tuple[float, float]:
    """Return Wilson's interval (1927) of a share seen in `rows` independent rows, 95 % by default.

    (p + z²/2n ± z √(p(1-p)/n + z²/4n²)) / (1 + z²/n), which stays within [0, 1].

    >>> [round(x, 4) for x in wilson(0.9, 100)]
    [0.8256, 0.9448]
    """
    if rows <= 0 or not math.isfinite(share):
        return 0.0, 1.0
    z2 = z * z
    center = share + z2 / (2 * rows)
    spread = z * math.sqrt(max(share * (1 - share), 0) / rows + z2 / (4 * rows * rows))
    scale = 1 + z2 / rows
    return max(0.0, (center - spread) / scale), min(1.0, (center + spread) / scale)
