"""FCN: class scores at several strides, enlarged and added. The floor of segmentation."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from torch import nn

from gipi.models.body import build_body, pad_to, resize_maps
from gipi.models.stem import image_of
from gipi.nn import initialise

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from gipi.core.schema import Signature


@dataclass(frozen=True)
class FCNConfig:
    """Which FCN.

    backbone          a convolutional net of `gipi list models`
    backbone_options  its own options
    stride            the finest map whose scores are added: 8 (FCN-8s), 16, or 32
    """

    backbone: str = "resnet18"
    backbone_options: dict[str, Any] = field(default_factory=dict)
    stride: Literal[8, 16, 32] = 8


class FCN(nn.Module):
    """A 1x1 convolution on each coarse map gives scores; coarse ones are enlarged and added.

    image (B, C, H, W) of any size -> (B, outputs, H, W) logits.

    Long, Shelhamer and Darrell 2015, "Fully convolutional networks for semantic segmentation",
    arXiv:1411.4038. Differs from the paper: any backbone; enlargement is bilinear and fixed, where
    the paper's starts bilinear and learns; all parts are trained at once.
    """

    def __init__(self, config: FCNConfig, signature: Signature, generator: Generator) -> None:
        super().__init__()
        image = image_of(signature, "fcn")
        self.config = config
        self.body, maps = build_body(config.backbone, image, generator=generator,
                                     options=config.backbone_options)  # fmt: skip
        channels, strides = maps.feature_channels, maps.feature_strides
        last = len(strides) - 1
        self.used = [i for i in range(last + 1) if strides[i] >= config.stride or i == last]
        self.heads = nn.ModuleList(nn.Conv2d(channels[i], signature.outputs, 1) for i in self.used)
        self.strides = [strides[i] for i in self.used]
        self.multiple = max(strides)
        initialise(self.heads, generator)
        self.choices = (
            f"FCN on {config.backbone}, scores at strides " + ", ".join(map(str, self.strides)),
            *getattr(self.body, "choices", ()),
        )

    def forward(self, image: Tensor) -> Tensor:
        """Return (B, outputs, H, W)."""
        height, width = image.shape[-2:]
        maps = self.body.features(pad_to(image, self.multiple))  # type: ignore[operator]
        at = self.strides[-1]
        scores: Tensor = self.heads[-1](maps[self.used[-1]])
        for i in range(len(self.used) - 2, -1, -1):
            scores = resize_maps(scores, at // self.strides[i]) + self.heads[i](maps[self.used[i]])
            at = self.strides[i]
        return resize_maps(scores, at)[..., :height, :width]


def fcn(config: FCNConfig, signature: Signature, generator: Generator) -> FCN:
    """Return an FCN for images of this signature."""
    return FCN(config, signature, generator)
