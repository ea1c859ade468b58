"""RetinaNet: nine anchors at every place, each says its class and how it must move."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import nn

from gipi.models.detector import Detector
from gipi.models.fpn import draw_head, flat, levels_for
from gipi.nn.grids import RATIOS, SCALES, anchors

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from gipi.core.schema import Signature
    from gipi.models.detector import DetectorConfig

GROWTH = math.log(1000 / 16)
"""Log of how many times a box may be larger than its anchor."""

PER_PLACE = len(SCALES) * len(RATIOS)


class RetinaNet(Detector):
    """Pyramid, and one head of two towers that answers for the anchors of every place.

    image (B, C, H, W) of any size -> (B, A, 4 + 1 + K), float32; A anchors of all levels (see
    `gipi.nn.grids`), and for each of them
        x0, y0, x1, y1   the box, in pixels of the image: the anchor's middle moved by z of its
                         sides, its sides times exp(z)
        nothing          0, where FCOS answers the centerness
        classes          K = outputs logits

    Lin et al. 2017, "Focal loss for dense object detection", arXiv:1708.02002. Differs from the
    paper: the answer holds boxes rather than offsets; group norm in the towers; 2 x 128 maps there
    rather than 4 x 256.
    """

    def __init__(self, config: DetectorConfig, signature: Signature, generator: Generator) -> None:
        super().__init__(config, signature, generator, name="RetinaNet", boxes=PER_PLACE)
        self.moves = nn.Conv2d(config.width, PER_PLACE * 4, 3, padding=1)
        draw_head(self.moves, generator)

    def forward(self, image: Tensor) -> Tensor:
        """Return (B, A, 4 + 1 + K)."""
        maps = self.pyramid(image)
        moves = torch.cat([flat(self.moves(self.where(m)), 4) for m in maps], dim=1)
        logits = torch.cat([flat(self.logits(self.what(m)), self.classes) for m in maps], dim=1)
        boxes = moved(anchors(levels_for(maps, self.pyramid.strides), image.device), moves)
        return torch.cat([boxes, torch.zeros_like(boxes[..., :1]), logits], dim=-1)


def moved(anchor: Tensor, moves: Tensor) -> Tensor:
    """Return the boxes (B, A, 4) of anchors (A, 4) moved by (B, A, 4): dx, dy, dw, dh.

    x' = x + w dx, y' = y + h dy, w' = w e^dw, h' = h e^dh. Girshick et al. 2014, arXiv:1311.2524.
    """
    middle, size = (anchor[:, :2] + anchor[:, 2:]) / 2, anchor[:, 2:] - anchor[:, :2]
    middle = middle + moves[..., :2] * size
    half = size * torch.exp(moves[..., 2:].clamp_max(GROWTH)) / 2
    return torch.cat([middle - half, middle + half], dim=-1)


def retinanet(config: DetectorConfig, signature: Signature, generator: Generator) -> RetinaNet:
    """Return a RetinaNet for images of this signature; `outputs` is the number of classes."""
    return RetinaNet(config, signature, generator)
