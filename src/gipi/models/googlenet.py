"""GoogLeNet: the net of 2014 and the batch-normalised form whose weights are published."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Literal

import torch
from pydantic import Field
from torch import nn
from torch.nn import functional as F

from gipi.core.errors import ModelError
from gipi.models.stem import Stem, image_of, pick_stem
from gipi.nn import BatchNorm2d, initialise, norm, why

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from gipi.core.schema import Signature

EPS = 1e-3  # of the batch norms in the published weights; torch's own default is 1e-5
AUXILIARY_DROPOUT = 0.7
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's pictures in [0, 1]
LEAST = {  # pixels a side, below which a pooling finds nothing
    ("batchnorm", "imagenet"): 15, ("batchnorm", "cifar"): 4,
    ("2014", "imagenet"): 31, ("2014", "cifar"): 8,
}  # fmt: skip
DROPOUT = {"batchnorm": 0.2, "2014": 0.4}

# Table 1 of the paper: maps in, then 1x1, 3x3 reduce, 3x3, 5x5 reduce, 5x5, pool projection.
BLOCKS: dict[str, tuple[int, int, int, int, int, int, int]] = {
    "inception3a": (192, 64, 96, 128, 16, 32, 32),
    "inception3b": (256, 128, 128, 192, 32, 96, 64),
    "inception4a": (480, 192, 96, 208, 16, 48, 64),
    "inception4b": (512, 160, 112, 224, 24, 64, 64),
    "inception4c": (512, 128, 128, 256, 24, 64, 64),
    "inception4d": (512, 112, 144, 288, 32, 64, 64),
    "inception4e": (528, 256, 160, 320, 32, 128, 128),
    "inception5a": (832, 256, 160, 320, 32, 128, 128),
    "inception5b": (832, 384, 192, 384, 48, 128, 128),
}


@dataclass(frozen=True)
class GoogLeNetConfig:
    """Which GoogLeNet.

    variant          "batchnorm": batch norm (ε 1e-3) behind each convolution, a 3x3 where the paper
                     has its 5x5, the last pooling 2x2 (the published weights), or "2014": the paper
    stem             "imagenet" 7x7/2 and pooling, "cifar" 3x3 without pooling, or "auto": cifar for
                     pictures of up to 64 pixels
    auxiliary        two more heads, which training adds to the loss with weight 0.3
    transform_input  pictures come normalised by ImageNet's mean and spread, the weights want
                     (x - 0.5) / 0.5: the published weights need it
    dropout          before the last layer; None: 0.2 (batchnorm), 0.4 (2014)
    """

    variant: Literal["batchnorm", "2014"] = "batchnorm"
    stem: Stem = "auto"
    auxiliary: bool = False
    transform_input: bool = False
    dropout: Annotated[float, Field(ge=0, lt=1)] | None = None


class ConvUnit(nn.Module):
    """relu(norm(W * x)), or relu(W * x + b) in the net of 2014.

    x (B, maps, H, W) -> (B, out, H/stride, W/stride), odd kernels padded to keep the size.
    """

    def __init__(self, maps: int, out: int, kernel: int, stride: int = 1, *, plain: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(maps, out, kernel, stride, kernel // 2, bias=plain)
        self.bn = nn.Identity() if plain else BatchNorm2d(out, eps=EPS)

    def forward(self, x: Tensor) -> Tensor:
        """Return the map."""
        return F.relu(self.bn(self.conv(x)), inplace=True)


class Inception(nn.Module):
    """[1x1, 1x1 → 3x3, 1x1 → 5x5, max 3x3 → 1x1] side by side, joined along the channels.

    x (B, maps, H, W) -> (B, sum of the four, H, W). The third is 3x3 in the "batchnorm" variant.
    """

    def __init__(self, sizes: tuple[int, int, int, int, int, int, int], *, plain: bool) -> None:
        super().__init__()
        maps, one, reduce3, three, reduce5, five, projected = sizes
        self.branch1 = ConvUnit(maps, one, 1, plain=plain)
        self.branch2 = nn.Sequential(
            ConvUnit(maps, reduce3, 1, plain=plain), ConvUnit(reduce3, three, 3, plain=plain)
        )
        self.branch3 = nn.Sequential(
            ConvUnit(maps, reduce5, 1, plain=plain),
            ConvUnit(reduce5, five, 5 if plain else 3, plain=plain),
        )
        self.branch4 = nn.Sequential(
            nn.MaxPool2d(3, 1, 1, ceil_mode=True), ConvUnit(maps, projected, 1, plain=plain)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return the joined maps."""
        branches = (self.branch1, self.branch2, self.branch3, self.branch4)
        return torch.cat([branch(x) for branch in branches], 1)


class Auxiliary(nn.Module):
    """Mean to 4x4, 1x1 convolution to 128, dense 1024, dropout 0.7, dense: (B, maps, H, W) -> K.

    The mean of the paper is 5x5 with stride 3, taken where it leaves 4x4 (maps of 14 to 16);
    elsewhere, and always in the batch-normalised form, it is adaptive.
    """

    def __init__(self, maps: int, outputs: int, *, plain: bool) -> None:
        super().__init__()
        self.plain = plain
        self.conv = ConvUnit(maps, 128, 1, plain=plain)
        self.fc1 = nn.Linear(128 * 4 * 4, 1024)
        self.dropout = nn.Dropout(AUXILIARY_DROPOUT)
        self.fc2 = nn.Linear(1024, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, outputs)."""
        published = self.plain and min(x.shape[2:]) >= 14 and max(x.shape[2:]) <= 16
        x = F.avg_pool2d(x, 5, 3) if published else F.adaptive_avg_pool2d(x, 4)
        x = F.relu(self.fc1(self.conv(x).flatten(1)), inplace=True)
        out: Tensor = self.fc2(self.dropout(x))
        return out


class GoogLeNet(nn.Module):
    """Three convolutions, nine inception blocks in three stages, global mean, one dense layer.

    image (B, C, H, W) -> (B, outputs), or (B, 1024) means where outputs is 0; `LEAST` pixels. With
    `auxiliary`, in training, (B, 3, outputs): the main head, then the head on 4a, then that on 4d;
    `classify` adds their losses with weights 1, 0.3, 0.3. In evaluation the two are not computed.

    `features` returns the maps of layer 1, layer 3 and the stages 3, 4, 5 (strides 2 to 32, or 1 to
    8 with the small stem, then without the first). Parameters for three channels and 1000 classes:
    batchnorm 6,624,904, with auxiliary heads 13,004,888; 2014 6,998,552.

    Szegedy, Liu, Jia et al. 2015, "Going deeper with convolutions", arXiv:1409.4842. The batch norm
    is that of Ioffe and Szegedy 2015. Differs in 2014 from the paper: its response normalisation
    has the constants of AlexNet, which the paper cites without giving its own.
    """

    feature_channels: tuple[int, ...]
    feature_strides: tuple[int, ...]

    def __init__(self, config: GoogLeNetConfig, signature: Signature, generator: Generator) -> None:
        super().__init__()
        image = image_of(signature, "googlenet")
        stem, said = pick_stem(config.stem, image)
        least = LEAST[config.variant, stem]
        if min(image[1:]) < least:
            raise ModelError(
                f"googlenet on pictures of {image[1]}x{image[2]}",
                f"at least {least} pixels a side in the form '{config.variant}', stem '{stem}'",
                "set image_size, or choose a ResNet, which takes any size",
            )
        if config.transform_input and image[0] != 3:
            raise ModelError(
                f"transform_input on pictures of {image[0]} channels",
                "three channels, red, green and blue",
                "leave transform_input out",
            )
        dropout = DROPOUT[config.variant] if config.dropout is None else config.dropout
        headed = signature.outputs > 0
        auxiliary = config.auxiliary and headed
        self.config = replace(config, stem=stem, dropout=dropout, auxiliary=auxiliary)
        plain, small = config.variant == "2014", stem == "cifar"
        self.small = small
        self.conv1 = ConvUnit(image[0], 64, 3 if small else 7, 1 if small else 2, plain=plain)
        self.maxpool1 = nn.Identity() if small else nn.MaxPool2d(3, 2, ceil_mode=True)
        self.norm1 = norm("lrn", 64, dims=2) if plain else nn.Identity()
        self.conv2 = ConvUnit(64, 64, 1, plain=plain)
        self.conv3 = ConvUnit(64, 192, 3, plain=plain)
        self.norm3 = norm("lrn", 192, dims=2) if plain else nn.Identity()
        self.maxpool2 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.maxpool3 = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.maxpool4 = nn.MaxPool2d(3 if plain else 2, 2, ceil_mode=True)
        for name, sizes in BLOCKS.items():
            self.add_module(name, Inception(sizes, plain=plain))
        self.aux1 = Auxiliary(512, signature.outputs, plain=plain) if auxiliary else None
        self.aux2 = Auxiliary(528, signature.outputs, plain=plain) if auxiliary else None
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(1024, signature.outputs) if headed else nn.Identity()
        channels, strides = (64, 192, 480, 832, 1024), (2, 4, 8, 16, 32)
        self.feature_channels = channels[1:] if small else channels
        self.feature_strides = (1, 2, 4, 8) if small else strides
        initialise(self, generator, activation="relu")
        for head in (self.fc, *(one.fc2 for one in (self.aux1, self.aux2) if one is not None)):
            initialise(head, generator)
        shown = f"GoogLeNet {config.variant}, {'x'.join(map(str, image))}"
        heads = ["two auxiliary heads, added to the training loss with weight 0.3"]
        self.choices = (shown, said, *(heads if auxiliary else ()), why("relu", "auto"))

    def features(self, image: Tensor) -> list[Tensor]:
        """Return the stage maps, the finest first."""
        return self._stages(image)[0]

    def _stages(self, image: Tensor) -> tuple[list[Tensor], Tensor, Tensor]:
        """Return the stage maps and those of 4a and 4d, which the auxiliary heads see."""
        x = _from_imagenet(image) if self.config.transform_input else image
        first = self.conv1(x)
        x = self.norm1(self.maxpool1(first))
        third = self.conv3(self.conv2(x))
        x = self.maxpool2(self.norm3(third))
        three = self._chain(x, "inception3a", "inception3b")
        early = self._chain(self.maxpool3(three), "inception4a")
        late = self._chain(early, "inception4b", "inception4c", "inception4d")
        four = self._chain(late, "inception4e")
        five = self._chain(self.maxpool4(four), "inception5a", "inception5b")
        maps = [third, three, four, five]
        return (maps if self.small else [first, *maps]), early, late

    def _chain(self, x: Tensor, *names: str) -> Tensor:
        for name in names:
            x = self.get_submodule(name)(x)
        return x

    def forward(self, image: Tensor) -> Tensor:
        """Return (B, outputs); in training with auxiliary heads (B, 3, outputs)."""
        maps, early, late = self._stages(image)
        out: Tensor = self.fc(self.dropout(maps[-1].mean((2, 3))))
        if self.aux1 is None or self.aux2 is None or not self.training:
            return out
        return torch.stack([out, self.aux1(early), self.aux2(late)], 1)


def _from_imagenet(image: Tensor) -> Tensor:
    """Return the picture normalised by (0.5, 0.5) from one normalised by ImageNet's figures."""
    channels = [
        image[:, c] * (std / 0.5) + (mean - 0.5) / 0.5
        for c, (mean, std) in enumerate(zip(MEAN, STD, strict=True))
    ]
    return torch.stack(channels, 1)


def googlenet(config: GoogLeNetConfig, signature: Signature, generator: Generator) -> GoogLeNet:
    """Return GoogLeNet; with three channels and 1000 classes 6,624,904 parameters (batchnorm)."""
    return GoogLeNet(config, signature, generator)
