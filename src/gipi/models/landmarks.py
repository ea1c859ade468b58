"""Landmarks: the coordinates of fixed points, by soft-argmax over maps or by a dense layer."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Literal

import torch
from pydantic import Field
from torch import nn

from gipi.models.body import build_body, pad_to
from gipi.models.decoder import Decoder
from gipi.models.heatmap import draw_head, pick_stride
from gipi.models.stem import image_of
from gipi.nn import NORMS, initialise

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from gipi.core.schema import Signature


@dataclass(frozen=True)
class LandmarksConfig:
    """Which landmark net.

    head              "soft-argmax": the mean position under a map of probabilities; "dense": one
                      hidden layer on the flattened last map
    backbone          a convolutional net of `gipi list models`
    backbone_options  its own options
    stride            of the maps of the soft-argmax; "auto": 2 for pictures of up to 128 pixels,
                      else 4
    width             units of the hidden layer of the dense head
    norm              a name of `gipi list norms`
    """

    head: Literal["soft-argmax", "dense"] = "soft-argmax"
    backbone: str = "lightnet"
    backbone_options: dict[str, Any] = field(default_factory=dict)
    stride: Literal["auto", 1, 2, 4, 8] = "auto"
    width: Annotated[int, Field(gt=0)] = 256
    norm: str = "batch"


def soft_argmax(maps: Tensor, *, stride: int = 1) -> Tensor:
    """Return Σ softmax(m)·position: (B, K, h, w) -> (B, K, 2) with x, y in pixels of the picture.

    The centre of map pixel (v, u) lies at ((u + 1/2)·stride, (v + 1/2)·stride). Differentiable, so
    that coordinates themselves are trained. Sun et al. 2018, "Integral human pose regression",
    arXiv:1711.08229; Nibali et al. 2018, arXiv:1801.07372.

    >>> soft_argmax(torch.zeros(1, 1, 4, 8))[0, 0].tolist()
    [4.0, 2.0]
    """
    if maps.dtype in (torch.bfloat16, torch.float16):  # eight bits cannot tell 200 from 201
        maps = maps.float()
    p = maps.flatten(2).softmax(2).view(maps.shape)
    height, width = maps.shape[-2:]
    x = (torch.arange(width, device=maps.device, dtype=maps.dtype) + 0.5) * stride
    y = (torch.arange(height, device=maps.device, dtype=maps.dtype) + 0.5) * stride
    return torch.stack([(p.sum(2) * x).sum(2), (p.sum(3) * y).sum(2)], dim=2)


class Landmarks(nn.Module):
    """Body and a head that answers coordinates.

    image (B, C, H, W) -> (B, outputs, 2), x to the right and y down in pixels of the picture, pixel
    (i, j) covering [j, j+1) x [i, i+1).

    Soft-argmax takes pictures of any size; the dense head those of the size it was built for.
    """

    def __init__(self, config: LandmarksConfig, signature: Signature, generator: Generator) -> None:
        super().__init__()
        image = image_of(signature, "landmarks")
        NORMS.get(config.norm)
        self.config, self.points = config, signature.outputs
        self.body, maps = build_body(config.backbone, image, generator=generator,
                                     options=config.backbone_options)  # fmt: skip
        channels, strides = maps.feature_channels, maps.feature_strides
        self.multiple = max(strides)
        self.decoder: Decoder | None = None
        self.size = image[1:]
        if config.head == "soft-argmax":
            self.decoder = Decoder(channels, strides, kind=config.norm,
                                   stride=pick_stride(config.stride, image))  # fmt: skip
            self.head: nn.Module = nn.Conv2d(self.decoder.width, self.points, 1)
            assert isinstance(self.head, nn.Conv2d)
            draw_head(self.decoder, self.head, generator)
        else:
            cells = -(-image[1] // self.multiple) * -(-image[2] // self.multiple)
            cells *= (self.multiple // strides[-1]) ** 2
            self.head = nn.Sequential(
                nn.Flatten(), nn.Linear(channels[-1] * cells, config.width), nn.ReLU(inplace=True),
                nn.Linear(config.width, 2 * self.points),
            )  # fmt: skip
            initialise(self.head, generator, activation="relu")
            initialise(self.head[-1], generator, init="normal")
        self.choices = (
            f"landmarks by {config.head} on {config.backbone}"
            + (f", maps at stride {self.decoder.stride}" if self.decoder is not None else ""),
            *getattr(self.body, "choices", ()),
        )

    def forward(self, image: Tensor) -> Tensor:
        """Return (B, outputs, 2)."""
        height, width = image.shape[-2:]
        maps = self.body.features(pad_to(image, self.multiple))  # type: ignore[operator]
        if self.decoder is not None:
            stride = self.decoder.stride
            heat = self.head(self.decoder(maps))[..., : -(-height // stride), : -(-width // stride)]
            return soft_argmax(heat, stride=stride)
        # The layer answers shares of the picture around its centre, so that it starts there.
        shares = self.head(maps[-1]).float().view(-1, self.points, 2)
        x, y = (shares + 0.5).unbind(2)
        return torch.stack([x * width, y * height], dim=2)


def landmarks(config: LandmarksConfig, signature: Signature, generator: Generator) -> Landmarks:
    """Return a landmark net for images of this signature."""
    return Landmarks(config, signature, generator)
