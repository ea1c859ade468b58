"""Normalisation layers by name, and which of them mix rows."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from torch import nn

from gipi.core.registry import Record, Registry

if TYPE_CHECKING:
    from collections.abc import Callable

GROUPS = 32  # of group norm, or the largest number below it that divides the channels


def _batch(width: int, dims: int) -> nn.Module:
    return (nn.BatchNorm1d, nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)[dims](width)


def _layer(width: int, dims: int) -> nn.Module:
    # Over channels and positions of one row; for vectors that is layer norm itself.
    return nn.LayerNorm(width) if dims == 0 else nn.GroupNorm(1, width)


def _group(width: int, dims: int) -> nn.Module:  # noqa: ARG001
    return nn.GroupNorm(math.gcd(width, GROUPS), width)


def _none(width: int, dims: int) -> nn.Module:  # noqa: ARG001
    return nn.Identity()


NORMS = Registry(
    "norms",
    (
        Record("none", _none, "nothing",
               "He, Zhang, Ren and Sun 2015, arXiv:1502.01852 (does without)"),
        Record("batch", _batch, "over the rows of the batch: mixes rows",
               "Ioffe and Szegedy 2015, Batch normalization, arXiv:1502.03167",
               tags=("mixes-rows",)),
        Record("layer", _layer, "over the units of one row",
               "Ba, Kiros and Hinton 2016, Layer normalization, arXiv:1607.06450"),
        Record("group", _group, "over groups of channels of one row",
               "Wu and He 2018, Group normalization, arXiv:1803.08494"),
    ),
)  # fmt: skip


def norm(name: str, width: int, *, dims: int = 0) -> nn.Module:
    """Return the normalisation called `name` for `width` channels.

    dims  axes behind the channels: 0 for vectors (B, C), 1 for (B, C, T), 2 for (B, C, H, W), 3
    """
    build: Callable[[int, int], nn.Module] = NORMS.get(name).build
    return build(width, dims)


def mixes_rows(module: nn.Module) -> list[str]:
    """Return the names of the modules whose training output for a row depends on other rows.

    These are the batch norms (also lazy and synchronised ones) and whatever declares itself by a
    true attribute `mixes_rows`. With one of them the loss is not a sum over rows, so micro-batches
    change the result.

    >>> mixes_rows(nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)))
    ['1']
    """
    base = nn.modules.batchnorm._BatchNorm  # noqa: SLF001  the only common base that torch offers
    return [
        name or type(layer).__name__
        for name, layer in module.named_modules()
        if isinstance(layer, base) or getattr(layer, "mixes_rows", False) is True
    ]
