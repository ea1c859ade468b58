"""Heatmaps: one map a point, on a body with transposed convolutions or a U-Net's decoder."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field
from torch import nn

from gipi.core.errors import ModelError
from gipi.models.body import build_body, pad_to
from gipi.models.decoder import Decoder
from gipi.models.stem import image_of
from gipi.models.unet import draw_transposed
from gipi.nn import NORMS, initialise, norm

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from gipi.core.schema import Signature

SMALL = 128  # pixels of the longer side up to which maps have half the size of the picture


@dataclass(frozen=True)
class HeatmapConfig:
    """Which heatmap net.

    head              "unet": a decoder with skips; "deconv": transposed convolutions on the last
                      map alone (SimpleBaseline)
    backbone          a convolutional net of `gipi list models`
    backbone_options  its own options
    stride            pixels of the picture a heatmap pixel stands for; "auto": 2 for pictures of up
                      to 128 pixels, else 4
    width             maps of each transposed convolution
    norm              a name of `gipi list norms`
    """

    head: Literal["unet", "deconv"] = "unet"
    backbone: str = "lightnet"
    backbone_options: dict[str, Any] = field(default_factory=dict)
    stride: Literal["auto", 1, 2, 4, 8] = "auto"
    width: Annotated[int, Field(gt=0)] = 256
    norm: str = "batch"


def heatmap_head(
    head: str, channels: tuple[int, ...], strides: tuple[int, ...], *, stride: int, width: int,
    kind: str,
) -> Decoder | Deconv:  # fmt: skip
    """Return the part between the maps of a body and the last convolution."""
    if head == "unet":
        return Decoder(channels, strides, stride=stride, kind=kind)
    return Deconv(channels, strides, stride=stride, width=width, kind=kind)


class Deconv(nn.Module):
    """4x4 transposed convolutions of stride 2 on the coarsest map, each with norm and ReLU.

    maps, the finest first -> (B, width, H/stride, W/stride). Xiao, Wu and Wei 2018,
    arXiv:1804.06208.
    """

    def __init__(
        self, channels: tuple[int, ...], strides: tuple[int, ...], *, stride: int, width: int,
        kind: str,
    ) -> None:  # fmt: skip
        super().__init__()
        self.layers = nn.Sequential()
        maps, at = channels[-1], strides[-1]
        while at > stride:
            self.layers.append(nn.ConvTranspose2d(maps, width, 4, 2, 1, bias=kind == "none"))
            self.layers.append(norm(kind, width, dims=2))
            self.layers.append(nn.ReLU(inplace=True))
            maps, at = width, at // 2
        self.width, self.stride = maps, at

    def draw(self, generator: Generator) -> None:
        """Draw the weights for the ReLUs behind them."""
        for layer in self.layers:
            if isinstance(layer, nn.ConvTranspose2d):
                draw_transposed(layer, generator)

    def forward(self, maps: list[Tensor]) -> Tensor:
        """Return the fine map."""
        out: Tensor = self.layers(maps[-1])
        return out


class Heatmap(nn.Module):
    """Body, decoder, 1x1 convolution: one map a point, its peak where the point is.

    image (B, C, H, W) of any size -> (B, outputs, ⌈H/stride⌉, ⌈W/stride⌉). The centre of the map's
    pixel (v, u) lies at x = (u + 1/2)·stride, y = (v + 1/2)·stride of the picture.

    Head "deconv": Xiao, Wu and Wei 2018, "Simple baselines for human pose estimation and tracking",
    arXiv:1804.06208. Differs from it: any backbone and stride.
    """

    def __init__(self, config: HeatmapConfig, signature: Signature, generator: Generator) -> None:
        super().__init__()
        image = image_of(signature, "heatmap")
        NORMS.get(config.norm)
        self.config = config
        self.body, maps = build_body(config.backbone, image, generator=generator,
                                     options=config.backbone_options)  # fmt: skip
        channels, strides = maps.feature_channels, maps.feature_strides
        self.decoder = heatmap_head(
            config.head, channels, strides, stride=pick_stride(config.stride, image),
            width=config.width, kind=config.norm,
        )  # fmt: skip
        self.stride, self.multiple = self.decoder.stride, max(strides)
        self.head = nn.Conv2d(self.decoder.width, signature.outputs, 1)
        draw_head(self.decoder, self.head, generator)
        self.choices = (
            f"heatmaps at stride {self.stride} by {config.head} on {config.backbone}",
            *getattr(self.body, "choices", ()),
        )

    def forward(self, image: Tensor) -> Tensor:
        """Return (B, outputs, ⌈H/stride⌉, ⌈W/stride⌉)."""
        height, width = image.shape[-2:]
        maps = self.body.features(pad_to(image, self.multiple))  # type: ignore[operator]
        heat: Tensor = self.head(self.decoder(maps))
        return heat[..., : -(-height // self.stride), : -(-width // self.stride)]


def pick_stride(stride: Literal["auto"] | int, image: tuple[int, int, int]) -> int:
    """Return the stride of the maps for pictures (C, H, W).

    >>> pick_stride("auto", (3, 96, 96)), pick_stride("auto", (3, 256, 192))
    (2, 4)
    """
    if stride != "auto":
        return stride
    if min(image[1:]) < 8:
        raise ModelError(f"heatmaps on {image[1]}x{image[2]} pixels", "at least 8 a side",
                         "use larger pictures")  # fmt: skip
    return 2 if max(image[1:]) <= SMALL else 4


def draw_head(decoder: Decoder | Deconv, head: nn.Conv2d, generator: Generator) -> None:
    """Fill a decoder as its ReLUs need it, and the last layer small: maps start nearly flat."""
    decoder.draw(generator)
    initialise(head, generator, init="normal")


def heatmap(config: HeatmapConfig, signature: Signature, generator: Generator) -> Heatmap:
    """Return a heatmap net for images of this signature."""
    return Heatmap(config, signature, generator)
