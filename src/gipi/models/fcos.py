"""FCOS: a detector without anchors. Each place says what it lies in, and where the sides are."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

import torch
from pydantic import Field
from torch import nn

from gipi.core.errors import ModelError
from gipi.models.fpn import FPN, PRIOR, draw_head, flat, levels_for, tower
from gipi.models.stem import image_of
from gipi.nn import NORMS, initialise
from gipi.nn.grids import STRIDES, existing_strides, locations

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from gipi.core.schema import Signature

REACH = 4.0
"""Distance in strides that a new detector answers for every side of every place."""


@dataclass(frozen=True)
class FCOSConfig:
    """Which FCOS.

    backbone          a convolutional net of `gipi list models`
    backbone_options  its own options
    width             maps of the pyramid and of the head
    depth             convolutions of each of the two towers of the head
    strides           of the levels; those with a single place are left out
    norm              of the towers, a name of `gipi list norms`: group norm does not care how few
                      pictures a batch has
    """

    backbone: str = "resnet18"
    backbone_options: dict[str, Any] = field(default_factory=dict)
    width: Annotated[int, Field(gt=0)] = 128
    depth: Annotated[int, Field(ge=0, le=8)] = 2
    strides: tuple[int, ...] = STRIDES
    norm: str = "group"


class FCOS(nn.Module):
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

    def __init__(self, config: FCOSConfig, signature: Signature, generator: Generator) -> None:
        super().__init__()
        image = image_of(signature, "fcos")
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
        self.logits = nn.Conv2d(width, self.classes, 3, padding=1)
        self.sides = nn.Conv2d(width, 5, 3, padding=1)  # four distances and the centerness
        self.scale = nn.Parameter(torch.full((len(strides),), REACH).log())
        draw_head(self.logits, generator, probability=PRIOR)
        draw_head(self.sides, generator)
        self.choices = (
            f"FCOS on {config.backbone}, levels of strides " + ", ".join(map(str, strides)),
            *getattr(self.pyramid.body, "choices", ()),
        )

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


def fcos(config: FCOSConfig, signature: Signature, generator: Generator) -> FCOS:
    """Return an FCOS for images of this signature; `outputs` is the number of classes."""
    return FCOS(config, signature, generator)
