"""FastNet: a small convolutional net that learns much in little time."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional as F

from gipi.core.errors import ConfigError, ModelError

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from gipi.core.schema import Signature

SMALLEST_MAP = 3
"""Pooling goes on until the map is smaller than twice this side."""


@dataclass(frozen=True)
class FastNetConfig:
    """Widths of the blocks, each of which halves the picture.

    widths      channels of the blocks; () for 64, 256, 256, with 256 again for large pictures
    whiten      the first layer is fixed by the covariance of training patches
    head_scale  the output is multiplied by this: small logits at the start allow a high rate
    side        larger pictures are averaged down to this longer side before the first layer
    mirror      outside training the answers to a picture and to its mirror image are averaged; only
                for pictures that keep their class in a mirror
    """

    widths: tuple[int, ...] = ()
    whiten: bool = True
    head_scale: float = 1 / 9
    side: int | None = None
    mirror: bool = False


class Block(nn.Module):
    """conv 3x3 - max 2x2 - norm - GELU - conv 3x3 - norm - GELU: halves H and W."""

    def __init__(self, before: int, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, width, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(width, momentum=0.4)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(width, momentum=0.4)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, width, H/2, W/2)."""
        x = F.gelu(self.norm1(F.max_pool2d(self.conv1(x), 2)))
        out: Tensor = F.gelu(self.norm2(self.conv2(x)))
        return out


class FastNet(nn.Module):
    """Whitening 2x2 - GELU - blocks - global max - linear.

    image (B, C, H, W) -> (B, outputs). The first layer takes 2x2 patches (3x3 of grey pictures)
    apart into uncorrelated directions of equal variance, each with both signs; it is fixed after
    `first_look` at training pictures, only its bias learns. The first convolutions of the blocks
    begin as identities on their first channels (Dirac).

    In the spirit of the speed records on CIFAR-10: Page 2019, "How to train your ResNet";
    Jordan 2024, "94% on CIFAR-10 in 3.29 seconds on a single GPU", arXiv:2404.00498. Differs: any
    picture size and any number of blocks; trainable norm scales.
    """

    def __init__(self, config: FastNetConfig, signature: Signature, generator: Generator) -> None:
        super().__init__()
        if signature.image is None:
            raise ModelError("fastnet on a table", "images", "use the model 'mlp' for tables")
        channels, height, width = signature.image
        self.size: tuple[int, int] | None = None
        if config.side is not None and config.side < max(height, width):
            shrink = config.side / max(height, width)
            height, width = max(round(height * shrink), 1), max(round(width * shrink), 1)
            self.size = (height, width)
        side = 3 if channels == 1 else 2
        least = min(height, width) - side + 1
        most = 0
        while least >> (most + 1) >= SMALLEST_MAP:
            most += 1
        widths = config.widths or (64, 256, 256, 256, 256, 256, 256, 256)[: max(most, 1)]
        if len(widths) > most:
            raise ConfigError(
                f"fastnet with {len(widths)} blocks on {height}x{width} pixels",
                f"at most {most} blocks: each halves the picture",
                "give fewer widths, or larger pictures" if most else "use the model 'lenet5'",
            )
        self.config = replace(config, widths=tuple(widths))
        self.patch = channels * side * side
        self.whiten = nn.Conv2d(channels, 2 * self.patch, side)
        self.whiten.weight.requires_grad = not config.whiten
        befores = (2 * self.patch, *widths[:-1])
        self.blocks = nn.ModuleList(
            Block(a, b) for a, b in zip(befores, widths, strict=True)
        )  # fmt: skip
        self.head = nn.Linear(widths[-1], signature.outputs, bias=False)
        self.feature_channels = tuple(widths)
        shrunk = 1 if self.size is None else round(signature.image[1] / self.size[0])
        self.feature_strides = tuple(shrunk * 2 ** (i + 1) for i in range(len(widths)))
        self._draw(generator)
        self.choices = (
            f"GELU, {' - '.join(map(str, widths))} channels, uniform in ±√(3/fan_in)",
            "the first convolution of each block begins as the identity",
            "first layer: whitening of training patches, fixed" if config.whiten
            else "first layer: trained",
            *(("answers: the mean over a picture and its mirror image",) if config.mirror else ()),
        )  # fmt: skip

    @torch.no_grad()
    def _draw(self, generator: Generator) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                fan_in = module.weight[0].numel()
                module.weight.uniform_(-1, 1, generator=generator).mul_((3 / fan_in) ** 0.5)
        self.whiten.bias.zero_()  # type: ignore[union-attr]
        for block in self.blocks:
            weight = block.conv1.weight  # type: ignore[union-attr]
            nn.init.dirac_(weight[: weight.shape[1]])  # type: ignore[index]

    @torch.no_grad()
    def first_look(self, images: Tensor) -> None:
        """Set the first layer from training pictures (B, C, H, W), as they enter the model.

        The patches x have covariance E diag(λ) Eᵀ; the filters are ± E diag(λ + ε)^-½, so that
        their answers are uncorrelated with variance one. ε = 5e-4 keeps noise small.
        """
        if not self.config.whiten:
            return
        side = self.whiten.kernel_size[0]
        patches = (
            F.unfold(self._shrunk(images.float()), side).transpose(1, 2).reshape(-1, self.patch)
        )
        patches = patches.double() - patches.double().mean(0)
        covariance = patches.T @ patches / len(patches)
        values, vectors = torch.linalg.eigh(covariance)
        signs = vectors.gather(0, vectors.abs().argmax(0, keepdim=True)).sign()
        filters = (vectors * signs / (values + 5e-4).sqrt()).T.flip(0)
        filters = filters.reshape(self.patch, -1, side, side).to(self.whiten.weight)
        self.whiten.weight.copy_(torch.cat([filters, -filters]))

    def _shrunk(self, images: Tensor) -> Tensor:
        return images if self.size is None else F.interpolate(images, self.size, mode="area")

    def features(self, x: Tensor) -> list[Tensor]:
        """Return the maps after each block, the largest first."""
        x = F.gelu(self.whiten(self._shrunk(x)))
        maps = []
        for block in self.blocks:
            x = block(x)
            maps.append(x)
        return maps

    def forward(self, image: Tensor) -> Tensor:
        """Return (B, outputs)."""
        out = self._scores(image)
        if self.config.mirror and not self.training:
            out = (out + self._scores(image.flip(3))) / 2
        return out

    def _scores(self, image: Tensor) -> Tensor:
        scores: Tensor = self.head(self.features(image)[-1].amax((2, 3)))
        return scores * self.config.head_scale


def fastnet(config: FastNetConfig, signature: Signature, generator: Generator) -> FastNet:
    """Return FastNet for images of this signature."""
    return FastNet(config, signature, generator)
