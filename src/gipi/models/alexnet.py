"""AlexNet: the one-tower form whose weights are published, and the net of 2012."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field
from torch import nn

from gipi.core.errors import ModelError
from gipi.models.stem import Stem, image_of, pick_stem
from gipi.models.tapped import Tapped
from gipi.nn import initialise, norm, why

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from gipi.core.schema import Signature

GRID = 6  # side of the maps that the dense layers see; 6x6 comes out of 224x224
LEAST = {"imagenet": 63, "cifar": 7}  # pixels below which a pooling would find nothing
TAPS = {"one-tower": ("1", "4", "11"), "2012": ("relu1", "relu2", "relu5")}


@dataclass(frozen=True)
class AlexNetConfig:
    """Which AlexNet.

    variant  "one-tower" (64-192-384-256-256 maps, Krizhevsky 2014), or "2012": 96-256-384-384-256
             maps, layers 2, 4 and 5 in two groups, response normalisation after layers 1 and 2
    stem     "imagenet" 11x11/4 and pooling, "cifar" 3x3 without pooling, or "auto": cifar for
             pictures of up to 64 pixels
    dropout  share of inputs (one-tower) or units (2012) of the hidden dense layers dropped
    """

    variant: Literal["one-tower", "2012"] = "one-tower"
    stem: Stem = "auto"
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.5


class AlexNet(nn.Module):
    """Five convolutions with three poolings, then dense layers of 4096, 4096 and `outputs` units.

    image (B, C, H, W) of at least 63x63 pixels (7x7 with the small stem) -> (B, outputs), or
    (B, 256) means where outputs is 0; the maps are brought to 6x6 by an adaptive mean, which is the
    identity at 224x224.

    `features` returns the maps of layers 1, 2 and 5. No padding makes their sizes exact fractions
    of the picture's, so it serves no decoder. Parameters for three channels and 1000 classes:
    one-tower 61,100,840; 2012 60,965,224.

    Krizhevsky, Sutskever and Hinton 2012, "ImageNet classification with deep convolutional neural
    networks"; one-tower: Krizhevsky 2014, arXiv:1404.5997. Differs from the paper in 2012: pictures
    of 224 pixels are padded by two, which makes its 55x55 maps (224 alone does not); torch's
    response normalisation divides α by its window of five, so α is 5e-4 for the paper's 1e-4.
    """

    feature_channels: tuple[int, ...]
    feature_strides: tuple[int, ...]

    def __init__(self, config: AlexNetConfig, signature: Signature, generator: Generator) -> None:
        super().__init__()
        image = image_of(signature, "alexnet")
        stem, said = pick_stem(config.stem, image)
        if min(image[1:]) < LEAST[stem]:
            raise ModelError(
                f"alexnet on pictures of {image[1]}x{image[2]}",
                f"at least {LEAST[stem]} pixels a side with the stem '{stem}'",
                "set image_size, or choose a ResNet, which takes any size",
            )
        self.config = replace(config, stem=stem)
        old, small = config.variant == "2012", stem == "cifar"
        layers = (_layers_2012 if old else _layers_one_tower)(image[0], small=small)
        self.features = Tapped(layers, TAPS[config.variant])
        self.feature_channels = (96, 256, 256) if old else (64, 192, 256)
        self.feature_strides = (1, 1, 2) if small else (4, 8, 16)  # the small stem does not pool
        headless = signature.outputs == 0
        self.maxpool = nn.Identity() if headless else nn.MaxPool2d(3, 2)
        self.avgpool = nn.AdaptiveAvgPool2d(1 if headless else GRID)
        self.classifier = nn.Sequential()
        if not headless:
            self.classifier = _dense(signature.outputs, config.dropout, before=not old)
        initialise(self, generator, activation="relu", init="normal" if old else "auto")
        rule = why("relu", "auto")
        if old:
            self._ones()
            rule = "initial weights N(0, 0.01²), biases of layers 2, 4, 5 and the hidden dense 1"
        elif not headless:
            initialise(self.classifier.get_submodule("6"), generator)
        self.choices = (f"AlexNet {config.variant}, {'x'.join(map(str, image))}", said, rule)

    def _ones(self) -> None:
        """Set the biases that the paper starts at one, so that their rectifiers are awake."""
        awake = [m for m in self.features.modules() if isinstance(m, nn.Conv2d)]
        dense = [m for m in self.classifier if isinstance(m, nn.Linear)]
        layers: list[nn.Conv2d | nn.Linear] = [awake[1], awake[3], awake[4], *dense[:2]]
        for layer in layers:
            assert layer.bias is not None
            nn.init.ones_(layer.bias)

    def forward(self, image: Tensor) -> Tensor:
        """Return (B, outputs)."""
        x = self.avgpool(self.maxpool(self.features(image)[-1])).flatten(1)
        out: Tensor = self.classifier(x)
        return out


def _first(channels: int, maps: int, *, small: bool) -> tuple[nn.Conv2d, nn.Module]:
    """Return the first convolution and its pooling."""
    if small:
        return nn.Conv2d(channels, maps, 3, padding=1), nn.Identity()
    return nn.Conv2d(channels, maps, 11, 4, 2), nn.MaxPool2d(3, 2)


def _layers_one_tower(channels: int, *, small: bool) -> dict[str, nn.Module]:
    first, pool = _first(channels, 64, small=small)
    layers = [
        first, nn.ReLU(inplace=True), pool,
        nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2),
        nn.Conv2d(192, 384, 3, padding=1), nn.ReLU(inplace=True),
        nn.Conv2d(384, 256, 3, padding=1), nn.ReLU(inplace=True),
        nn.Conv2d(256, 256, 3, padding=1), nn.ReLU(inplace=True),
    ]  # fmt: skip
    return {str(i): layer for i, layer in enumerate(layers)}


def _layers_2012(channels: int, *, small: bool) -> dict[str, nn.Module]:
    first, pool = _first(channels, 96, small=small)
    return {
        "conv1": first, "relu1": nn.ReLU(inplace=True),
        "norm1": norm("lrn", 96, dims=2), "pool1": pool,
        "conv2": nn.Conv2d(96, 256, 5, padding=2, groups=2), "relu2": nn.ReLU(inplace=True),
        "norm2": norm("lrn", 256, dims=2), "pool2": nn.MaxPool2d(3, 2),
        "conv3": nn.Conv2d(256, 384, 3, padding=1), "relu3": nn.ReLU(inplace=True),
        "conv4": nn.Conv2d(384, 384, 3, padding=1, groups=2), "relu4": nn.ReLU(inplace=True),
        "conv5": nn.Conv2d(384, 256, 3, padding=1, groups=2), "relu5": nn.ReLU(inplace=True),
    }  # fmt: skip


def _dense(outputs: int, dropout: float, *, before: bool) -> nn.Sequential:
    """Return the dense layers; dropout stands before the hidden ones or, in 2012, behind them."""
    drop, again, relu = nn.Dropout(dropout), nn.Dropout(dropout), nn.ReLU(inplace=True)
    first, second = nn.Linear(256 * GRID * GRID, 4096), nn.Linear(4096, 4096)
    last = nn.Linear(4096, outputs)
    if before:
        return nn.Sequential(drop, first, relu, again, second, nn.ReLU(inplace=True), last)
    return nn.Sequential(first, relu, drop, second, nn.ReLU(inplace=True), again, last)


def alexnet(config: AlexNetConfig, signature: Signature, generator: Generator) -> AlexNet:
    """Return AlexNet; with three channels and 1000 classes 61,100,840 parameters (one tower)."""
    return AlexNet(config, signature, generator)
