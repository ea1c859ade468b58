"""U-Net: a decoder with skips on any body, and the plain net of 2015."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Literal

import torch
from pydantic import Field
from torch import nn

from gipi.models.body import build_body, pad_to, resize_maps
from gipi.models.decoder import Decoder, conv_block
from gipi.models.stem import image_of
from gipi.nn import NORMS, initialise, why

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from gipi.core.schema import Signature


@dataclass(frozen=True)
class UNetConfig:
    """Which U-Net.

    variant           "body": a decoder on the maps of a backbone; "2015": the net as published
    backbone          a convolutional net of `gipi list models`
    backbone_options  its own options
    stride            at which classes are told apart before the last bilinear enlargement; None:
                      that of the backbone's finest map (1 costs about three times as much as 2)
    convs             3x3 convolutions of each stage of the decoder (the net of 2015 has two)
    width             maps of the first level of the net of 2015
    norm              of the decoder, a name of `gipi list norms`
    dropout           share of maps dropped before the last layer (2015: at the bottom)
    """

    variant: Literal["body", "2015"] = "body"
    backbone: str = "lightnet"
    backbone_options: dict[str, Any] = field(default_factory=dict)
    stride: Literal[1, 2, 4] | None = None
    convs: Literal[1, 2] = 1
    width: Annotated[int, Field(gt=0)] = 64
    norm: str = "batch"
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0


class UNet(nn.Module):
    """Body, decoder with skips, 1x1 convolution, enlargement to the size of the picture.

    image (B, C, H, W) of any size -> (B, outputs, H, W) logits.

    Ronneberger, Fischer and Brox 2015, "U-Net", arXiv:1505.04597. Differs from the paper: any net
    as contracting path, padding inside, norms, bilinear enlargement.
    """

    def __init__(self, config: UNetConfig, signature: Signature, generator: Generator) -> None:
        super().__init__()
        image = image_of(signature, "unet")
        NORMS.get(config.norm)
        self.config = config
        self.body, maps = build_body(config.backbone, image, generator=generator,
                                     options=config.backbone_options)  # fmt: skip
        channels, strides = maps.feature_channels, maps.feature_strides
        self.decoder = Decoder(
            channels, strides, stride=config.stride, kind=config.norm, convs=config.convs
        )
        self.drop = nn.Dropout2d(config.dropout)
        self.head = nn.Conv2d(self.decoder.width, signature.outputs, 1)
        self.multiple = max(strides)
        self.decoder.draw(generator)
        initialise(self.head, generator)
        self.choices = (
            f"U-Net on {config.backbone}, classes told apart at stride {self.decoder.stride}",
            *getattr(self.body, "choices", ()),
        )

    def forward(self, image: Tensor) -> Tensor:
        """Return (B, outputs, H, W)."""
        height, width = image.shape[-2:]
        maps = self.body.features(pad_to(image, self.multiple))  # type: ignore[operator]
        scores = self.head(self.drop(self.decoder(maps)))
        return resize_maps(scores, self.decoder.stride)[..., :height, :width]


class UNet2015(nn.Module):
    """The published net: five levels of two 3x3 convolutions, 2x2 pooling, 2x2 up-convolutions.

    image (B, C, H, W) of any size -> (B, outputs, H, W) logits. Levels of 64, 128, 256, 512 and
    1024 maps. Parameters for one channel and two classes: 31,030,658.

    Ronneberger, Fischer and Brox 2015, arXiv:1505.04597. Differs from the paper: its convolutions
    lose two pixels each and its input is a mirrored tile of 572 for an answer of 388; here they are
    padded, so that the answer has the size of the picture.
    """

    def __init__(self, config: UNetConfig, signature: Signature, generator: Generator) -> None:
        super().__init__()
        channels = image_of(signature, "unet")[0]
        self.config = config
        widths = [config.width << level for level in range(5)]
        plan = zip([channels, *widths], widths, strict=False)
        self.down = nn.ModuleList(conv_block(a, b, kind="none") for a, b in plan)
        self.pool = nn.MaxPool2d(2)
        self.drop = nn.Dropout2d(config.dropout)
        pairs = list(zip(widths[:0:-1], widths[-2::-1], strict=True))
        self.enlarge = nn.ModuleList(nn.ConvTranspose2d(a, b, 2, 2) for a, b in pairs)
        self.up = nn.ModuleList(conv_block(a, b, kind="none") for a, b in pairs)
        self.head = nn.Conv2d(widths[0], signature.outputs, 1)
        initialise(self, generator, activation="relu")
        initialise(self.head, generator)
        for layer in self.enlarge:
            assert isinstance(layer, nn.ConvTranspose2d)
            draw_transposed(layer, generator)
        self.choices = (f"the U-Net of 2015, {'-'.join(map(str, widths))} maps, padded",
                        why("relu", "auto"))  # fmt: skip

    def forward(self, image: Tensor) -> Tensor:
        """Return (B, outputs, H, W)."""
        height, width = image.shape[-2:]
        x = pad_to(image, 16)
        skips = []
        for level, block in enumerate(self.down):
            x = block(self.pool(x) if level else x)
            skips.append(x)
        x = self.drop(skips.pop())
        for enlarge, block in zip(self.enlarge, self.up, strict=True):
            x = block(torch.cat([skips.pop(), enlarge(x)], dim=1))
        out: Tensor = self.head(x)
        return out[..., :height, :width]


@torch.no_grad()
def draw_transposed(layer: nn.ConvTranspose2d, generator: Generator) -> None:
    """Fill a transposed convolution from N(0, 2/in), where in counts what one output pixel sees.

    A kernel k with stride s spreads each input over k² pixels and lies s apart: an output sees
    C·(k/s)² inputs. Biases become zero. He et al. 2015, arXiv:1502.01852.
    """
    seen = layer.in_channels * math.prod(layer.kernel_size) / math.prod(layer.stride)
    layer.weight.normal_(0.0, math.sqrt(2 / seen), generator=generator)
    if layer.bias is not None:
        layer.bias.zero_()


def unet(config: UNetConfig, signature: Signature, generator: Generator) -> UNet | UNet2015:
    """Return a U-Net for images of this signature."""
    if config.variant == "2015":
        return UNet2015(config, signature, generator)
    return UNet(config, signature, generator)
