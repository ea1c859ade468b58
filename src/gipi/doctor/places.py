"""What stands at and around every place of an image or a sequence, as a row of numbers.

For learners of answers at every place: likeness to a patch and to a coarse one around it, the last
numbers of a series, the last tokens. Of a sequence nothing later is looked at, which may be what is
asked.

Shapes: n rows, p features; rows are places, image by image.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

SIDE, COARSE = 5, 4
"""Of a patch, and the pixels of an image that are one of a coarse patch of three by three."""
BACK = 6
"""Numbers of a series that are looked back at."""
WORDS, PAIRS = 96, 160
"""Columns for tokens, and for tokens beside the one before: more of them share one."""
BENT = 96
"""Random rectifiers of the numbers."""
WIDEST = 160
"""Numbers around a place, at most."""


def around(X: Tensor) -> Callable[[Tensor], Tensor] | None:
    """Return what makes rows (n, ...) like X to (n places, p) features; None for other inputs."""
    if X.ndim == 4 and X.is_floating_point():
        return _bent(_pixels, X) if X.shape[1] * (SIDE**2 + 9) <= WIDEST else None
    if X.ndim == 3 and X.is_floating_point():
        return _bent(_series, X) if X.shape[2] * BACK <= WIDEST else None
    if X.ndim == 2 and not X.is_floating_point():
        return _tokens
    return None


def _pixels(X: Tensor) -> Tensor:
    n, _, high, wide = X.shape
    fine = F.unfold(F.pad(X, [SIDE // 2] * 4, mode="replicate"), SIDE)
    small = F.avg_pool2d(X, COARSE, ceil_mode=True)
    coarse = F.unfold(F.pad(small, [1] * 4, mode="replicate"), 3)
    coarse = F.interpolate(coarse.view(n, -1, *small.shape[2:]), size=(high, wide)).flatten(2)
    return torch.cat([fine, coarse], 1).transpose(1, 2).flatten(0, 1)


def _series(X: Tensor) -> Tensor:
    earlier = [F.pad(X, (0, 0, i, 0))[:, : X.shape[1]] for i in range(BACK)]
    return torch.cat(earlier, 2).flatten(0, 1)


def _tokens(X: Tensor) -> Tensor:
    before = F.pad(X, (1, 0))[:, :-1]
    pair = (before * 7919 + X * 104_729) % 1_000_003
    return torch.cat([F.one_hot(X % WORDS, WORDS), F.one_hot(pair % PAIRS, PAIRS)], 2).flatten(
        0, 1
    ).float()  # fmt: skip


def _bent(look: Callable[[Tensor], Tensor], X: Tensor) -> Callable[[Tensor], Tensor]:
    """Return the numbers that a look gives, standardised as those of X, and random rectifiers."""
    first = look(X)
    mean, std = first.mean(0), first.std(0).clamp_min(1e-6)
    generator = torch.Generator().manual_seed(0)
    W = torch.randn(first.shape[1], BENT, generator=generator).to(first) / first.shape[1] ** 0.5
    b = torch.randn(BENT, generator=generator).to(first)

    def features(rows: Tensor) -> Tensor:
        numbers = ((look(rows) - mean) / std).clamp(-5, 5)
        return torch.cat([numbers, (numbers @ W + b).relu()], 1)

    return features
