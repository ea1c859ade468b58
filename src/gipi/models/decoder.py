"""The decoder of a U-Net: from the coarsest map of a body back to a fine one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from gipi.models.body import resize_maps
from gipi.nn import initialise, norm

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Generator, Tensor

WIDEST = 256


def conv_block(maps: int, width: int, *, kind: str, convs: int = 2) -> nn.Sequential:
    """Return `convs` times convolution 3x3, norm, ReLU; (B, maps, H, W) -> (B, width, H, W)."""
    block = nn.Sequential()
    for _ in range(convs):
        block.append(nn.Conv2d(maps, width, 3, 1, 1, bias=kind == "none"))
        if kind != "none":
            block.append(norm(kind, width, dims=2))
        block.append(nn.ReLU(inplace=True))
        maps = width
    return block


class Decoder(nn.Module):
    """Narrow, enlarge, join with the body's map of that size, convolve; stage by stage.

    maps (B, Cᵢ, H/sᵢ, W/sᵢ), the finest first -> (B, width, H/stride, W/stride), where stride is
    the finest of the body or `stride`. Each stage is as wide as the body's map there, at most 256;
    a stage finer than the body's finest is half as wide as the one before. A 1x1 convolution
    narrows the coarse map to that width before it is enlarged, where it costs a quarter.

    Ronneberger, Fischer and Brox 2015, arXiv:1505.04597. Differs from the paper: 1x1 convolution
    and bilinear enlargement in place of the transposed convolution, norms, padded convolutions.

    width   maps of the answer
    stride  of the answer, a power of two; finer than the body's where it is smaller
    """

    def __init__(
        self, channels: Sequence[int], strides: Sequence[int], *, stride: int | None = None,
        kind: str = "batch", convs: int = 1,
    ) -> None:  # fmt: skip
        super().__init__()
        self.steps: list[tuple[int, int]] = []  # (factor of enlargement, index of the joined map)
        self.narrow = nn.ModuleList()
        self.blocks = nn.ModuleList()
        stride = min(strides) if stride is None else stride
        last = len(channels) - 1
        self.first = last
        maps, at = channels[last], strides[last]
        for index in range(last - 1, -1, -1):
            if strides[index] < stride:
                break
            width = min(channels[index], WIDEST)
            self.narrow.append(nn.Conv2d(maps, width, 1))
            self.blocks.append(conv_block(width + channels[index], width, kind=kind, convs=convs))
            self.steps.append((at // strides[index], index))
            maps, at = width, strides[index]
        while at > stride:
            width = max(maps // 2, 16)
            self.narrow.append(nn.Conv2d(maps, width, 1))
            self.blocks.append(conv_block(width, width, kind=kind, convs=convs))
            self.steps.append((2, -1))
            maps, at = width, at // 2
        self.width, self.stride = maps, at

    def draw(self, generator: Generator) -> None:
        """Draw the weights: the blocks for their ReLUs, the narrowing for nothing behind it."""
        initialise(self.blocks, generator, activation="relu")
        initialise(self.narrow, generator)

    def forward(self, maps: list[Tensor]) -> Tensor:
        """Return the fine map."""
        x = maps[self.first]
        for (factor, index), narrow, block in zip(
            self.steps, self.narrow, self.blocks, strict=True
        ):
            x = resize_maps(narrow(x), factor)
            x = block(x if index < 0 else torch.cat([x, maps[index]], dim=1))
        return x
