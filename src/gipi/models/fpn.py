"""FPN: maps of one width at several strides, on any backbone; and the towers that read them."""

from __future__ import annotations

import math
from itertools import pairwise, takewhile
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional as F

from gipi.core.errors import ModelError
from gipi.models.body import build_body
from gipi.nn import initialise, norm
from gipi.nn.grids import Level

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from torch import Generator, Tensor

PRIOR = 0.01
"""What a new detector answers for every class of every place (Lin et al. 2017, section 4.1)."""


class FPN(nn.Module):
    """Feature pyramid: coarse maps, which know what, are enlarged and added to fine ones.

        Mₛ = W¹ₛ Fₛ + enlarge(M₂ₛ),  Pₛ = W³ₛ Mₛ       for the strides s that the backbone has
        P₂ₛ = W³ relu(Pₛ), stride 2                     for strides beyond its last

    image (B, C, H, W) of any size -> one map (B, width, ⌈H/s⌉, ⌈W/s⌉) for each stride s.

    Lin et al. 2017, "Feature pyramid networks for object detection", arXiv:1612.03144; the coarse
    levels as in Lin et al. 2017, arXiv:1708.02002 (from the pyramid, as in Tian et al. 2019).
    Differs from the papers: enlargement and maps are cut to ⌈H/s⌉, so that any backbone's padding
    and any picture size will do.

    backbone  a name of `gipi list models` with stage maps; options: its own
    strides   rising by factors of two
    """

    def __init__(
        self,
        backbone: str,
        image: tuple[int, int, int],
        *,
        strides: Sequence[int],
        width: int,
        options: Mapping[str, Any],
        generator: Generator,
    ) -> None:
        super().__init__()
        if not strides or any(b != 2 * a for a, b in pairwise(strides)):
            raise ModelError(
                f"strides={tuple(strides)}", "strides that double from level to level",
                "for instance 8,16,32,64,128",
            )  # fmt: skip
        wide = dict(options)
        self.body, maps = build_body(backbone, image, generator=generator, options=wide)
        has = {s: i for i, s in enumerate(maps.feature_strides)}  # the last map of each stride
        self.strides = tuple(strides)
        self.used = [has[s] for s in takewhile(has.__contains__, strides)]
        if not self.used:
            raise ModelError(
                f"{backbone} has maps of strides {', '.join(map(str, maps.feature_strides))}",
                f"a map of stride {strides[0]}, the finest of the detector",
                "choose another backbone, or strides that begin at one it has",
            )
        channels = [maps.feature_channels[i] for i in self.used]
        self.lateral = nn.ModuleList(nn.Conv2d(c, width, 1) for c in channels)
        self.smooth = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in channels)
        extra = len(strides) - len(self.used)
        self.coarse = nn.ModuleList(nn.Conv2d(width, width, 3, 2, 1) for _ in range(extra))
        for part in (self.lateral, self.smooth, self.coarse):
            initialise(part, generator)

    def forward(self, image: Tensor) -> list[Tensor]:
        """Return the maps of all levels, the finest first."""
        height, width = image.shape[-2:]
        maps = self.body.features(image)  # type: ignore[operator]
        sums: list[Tensor] = []
        above: Tensor | None = None
        for i in reversed(range(len(self.used))):
            size = math.ceil(height / self.strides[i]), math.ceil(width / self.strides[i])
            m = _of_size(self.lateral[i](maps[self.used[i]]), size)
            if above is not None:
                m = m + F.interpolate(above, scale_factor=2.0)[..., : size[0], : size[1]]
            above = m
            sums.append(m)
        levels = [smooth(m) for smooth, m in zip(self.smooth, reversed(sums), strict=True)]
        for down in self.coarse:
            levels.append(down(F.relu(levels[-1])))
        return levels


def _of_size(m: Tensor, size: tuple[int, int]) -> Tensor:
    """Return a map cut, or continued by its edge, to `size`."""
    if m.shape[-2:] == size:
        return m
    below, right = size[0] - m.shape[-2], size[1] - m.shape[-1]
    return F.pad(m, (0, right, 0, below), mode="replicate" if max(below, right) > 0 else "constant")


def tower(width: int, depth: int, kind: str) -> nn.Sequential:
    """Return `depth` times convolution 3x3, norm, ReLU, all of `width` maps."""
    layers = nn.Sequential()
    for _ in range(depth):
        layers.append(nn.Conv2d(width, width, 3, padding=1, bias=kind == "none"))
        if kind != "none":
            layers.append(norm(kind, width, dims=2))
        layers.append(nn.ReLU(inplace=True))
    return layers


@torch.no_grad()
def draw_head(head: nn.Conv2d, generator: Generator, *, probability: float | None = None) -> None:
    """Draw the weights of an answer from N(0, 0.01²); its bias answers `probability` at first.

    Without such a prior the many places without an object would swamp the first steps.
    """
    head.weight.normal_(0.0, 0.01, generator=generator)
    assert head.bias is not None
    head.bias.fill_(0.0 if probability is None else math.log(probability / (1 - probability)))


def flat(m: Tensor, values: int) -> Tensor:
    """Return (B, n·values, h, w) as (B, h·w·n, values), float32: place after place, row by row."""
    b, _, _, _ = m.shape
    return m.permute(0, 2, 3, 1).reshape(b, -1, values).float()


def levels_for(maps: Sequence[Tensor], strides: Sequence[int]) -> list[Level]:
    """Return the levels that these maps are."""
    return [
        Level(stride, m.shape[-2], m.shape[-1]) for stride, m in zip(strides, maps, strict=True)
    ]
