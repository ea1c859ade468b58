"""RetinaNet: nine anchors at every place, each says its class and how it must move."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

import torch
from pydantic import Field
from torch import nn

from gipi.core.errors import ModelError
from gipi.models.fpn import FPN, PRIOR, draw_head, flat, levels_for, tower
from gipi.models.stem import image_of
from gipi.nn import NORMS, initialise
from gipi.nn.grids import RATIOS, SCALES, STRIDES, anchors, existing_strides

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from gipi.core.schema import Signature

GROWTH = math.log(1000 / 16)
"""Log of how many times a box may be larger than its anchor."""

PER_PLACE = len(SCALES) * len(RATIOS)


@dataclass(frozen=True)
class RetinaNetConfig:
    """Which RetinaNet.

    backbone          a convolutional net of `gipi list models`
    backbone_options  its own options
    width             maps of the pyramid and of the head
    depth             convolutions of each of the two towers of the head
    strides           of the levels; those with a single place are left out
    norm              of the towers, a name of `gipi list norms`
    """

    backbone: str = "resnet18"
    backbone_options: dict[str, Any] = field(default_factory=dict)
    width: Annotated[int, Field(gt=0)] = 128
    depth: Annotated[int, Field(ge=0, le=8)] = 2
    strides: tuple[int, ...] = STRIDES
    norm: str = "group"


class RetinaNet(nn.Module):
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

    def __init__(self, config: RetinaNetConfig, signature: Signature, generator: Generator) -> None:
        super().__init__()
        image = image_of(signature, "retinanet")
        if signature.outputs < 1:
            raise ModelError("no class to find", "at least one class", "give boxes with classes")
        NORMS.get(config.norm)
        self.config, self.classes = config, signature.outputs
        strides = existing_strides(image[1], image[2], strides=config.strides)
        width = config.width
        self.pyramid = FPN(config.backbone, image, strides=strides, width=width,
                           options=config.backbone_options, generator=generator)  # fmt: skip
        self.what = tower(width, config.depth, config.norm)
        self.where = tower(width, config.depth, config.norm)
        initialise(self.what, generator, activation="relu")
        initialise(self.where, generator, activation="relu")
        self.logits = nn.Conv2d(width, PER_PLACE * self.classes, 3, padding=1)
        self.moves = nn.Conv2d(width, PER_PLACE * 4, 3, padding=1)
        draw_head(self.logits, generator, probability=PRIOR)
        draw_head(self.moves, generator)
        self.choices = (
            f"RetinaNet on {config.backbone}, levels of strides " + ", ".join(map(str, strides)),
            *getattr(self.pyramid.body, "choices", ()),
        )

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


def retinanet(config: RetinaNetConfig, signature: Signature, generator: Generator) -> RetinaNet:
    """Return a RetinaNet for images of this signature; `outputs` is the number of classes."""
    return RetinaNet(config, signature, generator)
