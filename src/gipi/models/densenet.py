"""DenseNet: the ImageNet nets of 121 to 201 layers and DenseNet-BC for small pictures."""

from __future__ import annotations

from collections import OrderedDict
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, ClassVar

import torch
from pydantic import Field
from torch import nn
from torch.utils.checkpoint import checkpoint

from gipi.core.errors import ModelError
from gipi.models.stem import ResolvedStem, Stem, image_of, pick_stem
from gipi.nn import NORMS, initialise, norm, why

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    from torch import Generator, Tensor

    from gipi.core.schema import Signature

WIDEN = 4  # a layer's 1x1 convolution makes 4·growth maps for its 3x3


@dataclass(frozen=True)
class DenseNetConfig:
    """Which DenseNet of an ImageNet depth.

    stem              "imagenet" 7x7/2 and pooling, "cifar" 3x3 without pooling, or "auto": cifar
                      for pictures of up to 64 pixels
    norm              a name of `gipi list norms`
    dropout           share of the elements of each layer's new maps that are dropped
    memory_efficient  joins, norms and 1x1 convolutions are computed again in the backward pass
                      instead of being kept: about a fifth more time for far less memory
    """

    stem: Stem = "auto"
    norm: str = "batch"
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    memory_efficient: bool = False


@dataclass(frozen=True)
class DenseNetBCConfig:
    """Which DenseNet-BC for small pictures.

    depth             L, of the form 6n + 4
    growth            k, maps that each layer adds
    norm              a name of `gipi list norms`
    dropout           share of the elements of each layer's new maps that are dropped; the paper
                      takes 0.2 where it does not augment
    memory_efficient  as in `DenseNetConfig`
    """

    depth: Annotated[int, Field(ge=10)] = 100
    growth: Annotated[int, Field(gt=0)] = 12
    norm: str = "batch"
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    memory_efficient: bool = False


@dataclass(frozen=True)
class Sizes:
    """The numbers of one DenseNet: maps of the stem, layers of each block, growth."""

    first: int
    blocks: tuple[int, ...]
    growth: int


class DenseLayer(nn.Module):
    """new = W₂ relu(norm(W₁ relu(norm([x₀, x₁, ...])))): 1x1 to 4k maps, 3x3 to k maps.

    maps so far, each (B, Cᵢ, H, W) -> (B, k, H, W). With `again` everything up to W₁ is computed a
    second time in the backward pass; its batch statistics are counted once (see `statistics_kept`).
    """

    def __init__(self, maps: int, growth: int, *, kind: str, dropout: float, again: bool) -> None:
        super().__init__()
        self.norm1 = norm(kind, maps, dims=2)
        self.relu1 = nn.ReLU(inplace=True)
        self.conv1 = nn.Conv2d(maps, WIDEN * growth, 1, bias=False)
        self.norm2 = norm(kind, WIDEN * growth, dims=2)
        self.relu2 = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(WIDEN * growth, growth, 3, padding=1, bias=False)
        self.dropout = nn.Dropout(dropout)
        self.again = again

    def _narrow(self, *maps: Tensor) -> Tensor:
        y: Tensor = self.conv1(self.relu1(self.norm1(torch.cat(maps, 1))))
        return y

    def forward(self, maps: list[Tensor]) -> Tensor:
        """Return the new maps."""
        saving = self.again and self.training and torch.is_grad_enabled()
        if saving and not torch.compiler.is_compiling():  # a compiler plans memory by itself

            def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
                return nullcontext(), statistics_kept(self.norm1)

            y: Tensor = checkpoint(
                self._narrow, *maps, use_reentrant=False, preserve_rng_state=False,
                context_fn=contexts,
            )  # fmt: skip
        else:
            y = self._narrow(*maps)
        out: Tensor = self.dropout(self.conv2(self.relu2(self.norm2(y))))
        return out


@contextmanager
def statistics_kept(layer: nn.Module) -> Iterator[None]:
    """Let a layer count a batch into copies of its statistics, which are then thrown away."""
    kept = dict(layer.named_buffers(recurse=False))
    for name, buffer in kept.items():
        setattr(layer, name, buffer.clone())
    try:
        yield
    finally:
        for name, buffer in kept.items():
            setattr(layer, name, buffer)


class DenseBlock(nn.Module):
    """Layers that each see everything before them: (B, C, H, W) -> (B, C + n·k, H, W)."""

    def __init__(
        self, layers: int, maps: int, growth: int, config: DenseNetConfig | DenseNetBCConfig
    ) -> None:
        super().__init__()
        for i in range(layers):
            layer = DenseLayer(
                maps + i * growth, growth, kind=config.norm, dropout=config.dropout,
                again=config.memory_efficient,
            )  # fmt: skip
            self.add_module(f"denselayer{i + 1}", layer)

    def forward(self, x: Tensor) -> Tensor:
        """Return the input and all new maps, joined."""
        maps = [x]
        for layer in self.children():
            maps.append(layer(maps))
        return torch.cat(maps, 1)


class Transition(nn.Module):
    """mean 2x2 of W relu(norm(x)), W to half the maps: (B, C, H, W) -> (B, C/2, H/2, W/2)."""

    def __init__(self, maps: int, kind: str) -> None:
        super().__init__()
        self.norm = norm(kind, maps, dims=2)
        self.relu = nn.ReLU(inplace=True)
        self.conv = nn.Conv2d(maps, maps // 2, 1, bias=False)
        self.pool = nn.AvgPool2d(2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return relu(norm(x)), which is the stage's map, and what the next block sees."""
        y = self.relu(self.norm(x))
        return y, self.pool(self.conv(y))


class Stages(nn.Module):
    """Everything before the head; answers the normalised, rectified map of every stage."""

    def __init__(self, parts: OrderedDict[str, nn.Module], *, stem_map: bool) -> None:
        super().__init__()
        for name, part in parts.items():
            self.add_module(name, part)
        self.stem_map = stem_map

    def forward(self, image: Tensor) -> list[Tensor]:
        """Return the stage maps, the finest first."""
        x, maps = image, []
        for name, part in self.named_children():
            if isinstance(part, Transition):
                seen, x = part(x)
                maps.append(seen)
            else:
                x = part(x)
                if name == "relu0" and self.stem_map:
                    maps.append(x)
        return [*maps, x]


class DenseNet(nn.Module):
    """Stem, dense blocks with transitions between them, norm, relu, global mean, one dense layer.

    image (B, C, H, W) -> (B, outputs), or the (B, channels) means where outputs is 0. At least 8
    pixels a side with the small stem, 29 with the other.

    `features` returns the maps of the stem (stride 2; not with the small stem) and of the blocks.
    Parameters for three channels and 1000 classes: 121 7,978,856; 161 28,681,000; 169 14,149,480;
    201 20,013,928. DenseNet-BC (L = 100, k = 12) for ten classes: 769,162.

    Huang, Liu, van der Maaten and Weinberger 2017, "Densely connected convolutional networks",
    arXiv:1608.06993; memory: Pleiss et al. 2017, arXiv:1707.06990.
    """

    feature_channels: tuple[int, ...]
    feature_strides: tuple[int, ...]
    # The weights published in 2017 call norm.1 and conv.2 what is now norm1 and conv2.
    renamed: ClassVar[tuple[tuple[str, str], ...]] = (
        (r"(denselayer\d+\.(?:norm|conv))\.([12])\.", r"\1\2."),
    )

    def __init__(
        self,
        sizes: Sizes,
        *,
        config: DenseNetConfig | DenseNetBCConfig,
        stem: ResolvedStem,
        signature: Signature,
        generator: Generator,
    ) -> None:
        super().__init__()
        image = image_of(signature, "densenet")
        NORMS.get(config.norm)
        small = stem == "cifar"
        least = 2 ** (len(sizes.blocks) - 1) if small else 29
        if min(image[1:]) < least:
            raise ModelError(
                f"densenet on pictures of {image[1]}x{image[2]}",
                f"at least {least} pixels a side with the stem '{stem}'",
                "set image_size, or choose a ResNet, which takes any size",
            )
        self.config = config
        parts, widths = _parts(sizes, config, image[0], small=small)
        self.features = Stages(parts, stem_map=not small)
        strides = tuple((1 if small else 4) * 2**i for i in range(len(widths)))
        self.feature_channels = widths if small else (sizes.first, *widths)
        self.feature_strides = strides if small else (2, *strides)
        head = nn.Linear(widths[-1], signature.outputs) if signature.outputs else nn.Identity()
        self.classifier = head
        initialise(self, generator, activation="relu")
        initialise(self.classifier, generator)
        layers = "-".join(map(str, sizes.blocks))
        self.choices: tuple[str, ...] = (
            f"DenseNet of blocks {layers}, growth {sizes.growth}, {'x'.join(map(str, image))}",
            f"norm {config.norm}",
            why("relu", "auto"),
        )

    def forward(self, image: Tensor) -> Tensor:
        """Return (B, outputs)."""
        out: Tensor = self.classifier(self.features(image)[-1].mean((2, 3)))
        return out


def _parts(
    sizes: Sizes, config: DenseNetConfig | DenseNetBCConfig, channels: int, *, small: bool
) -> tuple[OrderedDict[str, nn.Module], tuple[int, ...]]:
    """Return the named parts before the head and the width of each stage."""
    kernel, stride = (3, 1) if small else (7, 2)
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    parts["conv0"] = nn.Conv2d(channels, sizes.first, kernel, stride, kernel // 2, bias=False)
    if isinstance(config, DenseNetConfig):
        parts["norm0"] = norm(config.norm, sizes.first, dims=2)
        parts["relu0"] = nn.ReLU(inplace=True)
        if not small:
            parts["pool0"] = nn.MaxPool2d(3, 2, 1)
    maps, widths = sizes.first, []
    for i, layers in enumerate(sizes.blocks, 1):
        parts[f"denseblock{i}"] = DenseBlock(layers, maps, sizes.growth, config)
        maps += layers * sizes.growth
        widths.append(maps)
        if i < len(sizes.blocks):
            parts[f"transition{i}"] = Transition(maps, config.norm)
            maps //= 2
    parts["norm5"] = norm(config.norm, maps, dims=2)
    parts["relu5"] = nn.ReLU(inplace=True)
    return parts, tuple(widths)


def _imagenet(
    sizes: Sizes, config: DenseNetConfig, signature: Signature, generator: Generator
) -> DenseNet:
    stem, said = pick_stem(config.stem, image_of(signature, "densenet"))
    net = DenseNet(sizes, config=replace(config, stem=stem), stem=stem, signature=signature,
                   generator=generator)  # fmt: skip
    net.choices = (net.choices[0], said, *net.choices[1:])
    return net


def densenet121(config: DenseNetConfig, signature: Signature, generator: Generator) -> DenseNet:
    """Return the DenseNet of 121 layers: blocks 6, 12, 24, 16, growth 32; 7,978,856 parameters."""
    return _imagenet(Sizes(64, (6, 12, 24, 16), 32), config, signature, generator)


def densenet161(config: DenseNetConfig, signature: Signature, generator: Generator) -> DenseNet:
    """Return the DenseNet of 161 layers: blocks 6, 12, 36, 24, growth 48; 28,681,000 parameters."""
    return _imagenet(Sizes(96, (6, 12, 36, 24), 48), config, signature, generator)


def densenet169(config: DenseNetConfig, signature: Signature, generator: Generator) -> DenseNet:
    """Return the DenseNet of 169 layers: blocks 6, 12, 32, 32, growth 32; 14,149,480 parameters."""
    return _imagenet(Sizes(64, (6, 12, 32, 32), 32), config, signature, generator)


def densenet201(config: DenseNetConfig, signature: Signature, generator: Generator) -> DenseNet:
    """Return the DenseNet of 201 layers: blocks 6, 12, 48, 32, growth 32; 20,013,928 parameters."""
    return _imagenet(Sizes(64, (6, 12, 48, 32), 32), config, signature, generator)


def densenet_bc(config: DenseNetBCConfig, signature: Signature, generator: Generator) -> DenseNet:
    """Return DenseNet-BC: three blocks, compression 1/2; L = 100, k = 12 has 769,162 parameters.

    Raises `ModelError` for a depth that is not 6n + 4.
    """
    if (config.depth - 4) % 6:
        raise ModelError(
            f"depth={config.depth}", "a depth of the form 6n + 4", "40, 100, 190 and 250 are usual"
        )
    layers = (config.depth - 4) // 6
    sizes = Sizes(2 * config.growth, (layers, layers, layers), config.growth)
    return DenseNet(sizes, config=config, stem="cifar", signature=signature, generator=generator)
