"""DeepLabV3: a dilated body and atrous spatial pyramid pooling."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Literal

import torch
from pydantic import Field
from torch import nn

from gipi.models.body import build_body, pad_to, resize_maps
from gipi.models.stem import image_of
from gipi.nn import NORMS, initialise, norm

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from gipi.core.schema import Signature

RATES = (6, 12, 18)
"""Dilations of the pyramid at output stride 16; at 8 twice, at 32 half of them."""


@dataclass(frozen=True)
class DeepLabV3Config:
    """Which DeepLabV3.

    backbone          a convolutional net of `gipi list models`
    backbone_options  its own options
    output_stride     of the body's last map; stages beyond it dilate where the backbone can (a
                      backbone without the option keeps its own stride)
    width             maps of the pyramid
    norm              a name of `gipi list norms`
    dropout           share of maps dropped before the last layer
    """

    backbone: str = "resnet18"
    backbone_options: dict[str, Any] = field(default_factory=dict)
    output_stride: Literal[8, 16, 32] = 16
    width: Annotated[int, Field(gt=0)] = 256
    norm: str = "batch"
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1


class ASPP(nn.Module):
    """Views of several widths, side by side, and a 1x1 convolution over them.

    x (B, C, h, w) -> (B, width, h, w): one 1x1 convolution, one 3x3 of each dilation in `rates`,
    and the mean over the picture; each with norm and ReLU. The mean is one value of each map, which
    instance norm cannot take: there layer norm stands for it.

    Chen, Papandreou, Schroff and Adam 2017, arXiv:1706.05587.
    """

    def __init__(self, maps: int, width: int, *, rates: tuple[int, ...], kind: str) -> None:
        super().__init__()

        def view(size: int, rate: int, own: str = kind) -> nn.Sequential:
            pad = rate if size == 3 else 0
            layer = nn.Conv2d(maps, width, size, 1, pad, rate, bias=False)
            return nn.Sequential(layer, norm(own, width, dims=2), nn.ReLU(inplace=True))

        self.views = nn.ModuleList([view(1, 1), *(view(3, rate) for rate in rates)])
        self.mean = view(1, 1, own="layer" if kind == "instance" else kind)
        self.join = nn.Sequential(
            nn.Conv2d(width * (len(rates) + 2), width, 1, bias=False),
            norm(kind, width, dims=2), nn.ReLU(inplace=True),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        """Return the joined views."""
        mean = self.mean(x.mean((2, 3), keepdim=True)).expand(-1, -1, *x.shape[-2:])
        out: Tensor = self.join(torch.cat([*(view(x) for view in self.views), mean], dim=1))
        return out


class DeepLabV3(nn.Module):
    """Dilated body, pyramid, 3x3 and 1x1 convolution, bilinear enlargement.

    image (B, C, H, W) of any size -> (B, outputs, H, W) logits.

    Chen, Papandreou, Schroff and Adam 2017, "Rethinking atrous convolution for semantic image
    segmentation", arXiv:1706.05587. Differs from the paper: any backbone; no multi-grid rates.
    """

    def __init__(self, config: DeepLabV3Config, signature: Signature, generator: Generator) -> None:
        super().__init__()
        image = image_of(signature, "deeplabv3")
        NORMS.get(config.norm)
        self.config = config
        self.body, maps = build_body(
            config.backbone, image, generator=generator, options=config.backbone_options,
            output_stride=config.output_stride,
        )  # fmt: skip
        channels, strides = maps.feature_channels, maps.feature_strides
        self.stride, self.multiple = strides[-1], max(strides)
        rates = tuple(max(1, rate * 16 // self.stride) for rate in RATES)
        width = config.width
        self.pyramid = ASPP(channels[-1], width, rates=rates, kind=config.norm)
        self.refine = nn.Sequential(
            nn.Conv2d(width, width, 3, 1, 1, bias=False), norm(config.norm, width, dims=2),
            nn.ReLU(inplace=True), nn.Dropout2d(config.dropout),
        )  # fmt: skip
        self.head = nn.Conv2d(width, signature.outputs, 1)
        for part in (self.pyramid, self.refine):
            initialise(part, generator, activation="relu")
        initialise(self.head, generator)
        self.choices = (
            f"DeepLabV3 on {config.backbone}, output stride {self.stride}, dilations "
            + ", ".join(map(str, rates)),
            *getattr(self.body, "choices", ()),
        )

    def forward(self, image: Tensor) -> Tensor:
        """Return (B, outputs, H, W)."""
        height, width = image.shape[-2:]
        maps = self.body.features(pad_to(image, self.multiple))  # type: ignore[operator]
        scores = self.head(self.refine(self.pyramid(maps[-1])))
        return resize_maps(scores, self.stride)[..., :height, :width]


def deeplabv3(config: DeepLabV3Config, signature: Signature, generator: Generator) -> DeepLabV3:
    """Return a DeepLabV3 for images of this signature."""
    return DeepLabV3(config, signature, generator)
