"""FCOS: a detector without anchors. Each place says what it lies in, and where the sides are."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from gipi.models.detector import Detector
from gipi.models.fpn import draw_head, flat, levels_for
from gipi.nn.grids import locations

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from gipi.core.schema import Signature
    from gipi.models.detector import DetectorConfig

REACH = 4.0
"""Distance in strides that a new detector answers for every side of every place."""


class FCOS(Detector):
    """Pyramid, and one head of two towers that reads every level of it.

    image (B, C, H, W) of any size -> (B, A, 4 + 1 + K), float32; A places of all levels (see
    `gipi.nn.grids`), and for each of them
        x0, y0, x1, y1   the box, in pixels of the image:  place ∓ s · exp(cₛ + z), s its stride
        centerness       logit
        classes          K = outputs logits

    The sides of the box are learnt with one trained offset cₛ a level. At first every place answers
    probability 0.01 for every class and a box of 8 strides.

    Tian et al. 2019, "FCOS: fully convolutional one-stage object detection", arXiv:1904.01355, with
    its later improvements: centerness beside the box, distances in strides. Differs from the paper:
    the answer holds boxes rather than distances; towers of 2 x 128 maps rather than 4 x 256.
    """

    def __init__(self, config: DetectorConfig, signature: Signature, generator: Generator) -> None:
        super().__init__(config, signature, generator, name="FCOS", boxes=1)
        self.sides = nn.Conv2d(config.width, 5, 3, padding=1)  # four distances and the centerness
        self.scale = nn.Parameter(torch.full((len(self.pyramid.strides),), REACH).log())
        draw_head(self.sides, generator)

    def forward(self, image: Tensor) -> Tensor:
        """Return (B, A, 4 + 1 + K)."""
        maps = self.pyramid(image)
        parts = []
        levels = levels_for(maps, self.pyramid.strides)
        for level, m, scale in zip(levels, maps, self.scale, strict=True):
            sides = flat(self.sides(self.where(m)), 5)
            logits = flat(self.logits(self.what(m)), self.classes)
            place = locations([level], m.device)
            reach = torch.exp((sides[..., :4] + scale).clamp_max(8.0)) * level.stride
            low, high = place[:, :2] - reach[..., :2], place[:, :2] + reach[..., 2:]
            parts.append(torch.cat([low, high, sides[..., 4:], logits], dim=-1))
        return torch.cat(parts, dim=1)


def fcos(config: DetectorConfig, signature: Signature, generator: Generator) -> FCOS:
    """Return an FCOS for images of this signature; `outputs` is the number of classes."""
    return FCOS(config, signature, generator)
