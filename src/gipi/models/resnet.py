"""ResNet: the ImageNet nets of 18 to 152 layers and the CIFAR line of 20 to 110."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from torch import nn
from torch.nn import functional as F

from gipi.models.stem import ResolvedStem, Stem, image_of, pick_stem
from gipi.nn import NORMS, initialise, norm, why

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from gipi.core.schema import Signature

WIDTHS = (64, 128, 256, 512)
CIFAR_WIDTHS = (16, 32, 64)


@dataclass(frozen=True)
class ResNetConfig:
    """Which ResNet of an ImageNet depth.

    variant        where a bottleneck of stride 2 steps: "v1.5" in its 3x3 convolution (the form
                   whose weights are published everywhere), "v1" in its first 1x1 as in the paper
    stem           "imagenet" 7x7/2 and 3x3/2 pooling, "cifar" 3x3 without pooling, or "auto": cifar
                   for pictures of up to 64 pixels
    norm           a name of `gipi list norms`
    output_stride  32, or 16 or 8: the last stages keep their size and dilate instead (a quarter
                   of it with the CIFAR stem)
    zero_residual  the last norm of each block starts with weight 0, so that blocks start as the
                   identity (Goyal et al. 2017)
    """

    variant: Literal["v1.5", "v1"] = "v1.5"
    stem: Stem = "auto"
    norm: str = "batch"
    output_stride: Literal[32, 16, 8] = 32
    zero_residual: bool = False


@dataclass(frozen=True)
class CifarResNetConfig:
    """Which ResNet of the CIFAR line.

    shortcut  "A": where the width changes, every second pixel and zeros for the new channels, no
              weights (the paper's choice); "B": a 1x1 convolution and a norm
    norm      a name of `gipi list norms`
    """

    shortcut: Literal["A", "B"] = "A"
    norm: str = "batch"


class BasicBlock(nn.Module):
    """y = relu(x' + norm(W₂ relu(norm(W₁ x)))), two 3x3 convolutions, the first with the stride.

    x (B, C, H, W) -> (B, width, H/stride, W/stride); x' is x or `downsample`(x). `dilations` are
    those of the convolution with the stride and of what comes behind it.
    """

    expansion = 1

    def __init__(
        self, maps: int, width: int, *, stride: int, dilations: tuple[int, int],
        config: ResNetConfig, downsample: nn.Module | None,
    ) -> None:  # fmt: skip
        super().__init__()
        before, after = dilations
        self.conv1 = nn.Conv2d(maps, width, 3, stride, before, before, bias=False)
        self.bn1 = norm(config.norm, width, dims=2)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(width, width, 3, 1, after, after, bias=False)
        self.bn2 = norm(config.norm, width, dims=2)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's map."""
        kept = x if self.downsample is None else self.downsample(x)
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        out: Tensor = self.relu(y + kept)
        return out


class Bottleneck(nn.Module):
    """y = relu(x' + norm(W₃ relu(norm(W₂ relu(norm(W₁ x)))))): 1x1 down, 3x3, 1x1 up to 4·width.

    x (B, C, H, W) -> (B, 4·width, H/stride, W/stride). The stride stands in the 3x3 ("v1.5") or in
    the first 1x1 ("v1", as published), which throws three quarters of the input away unseen.
    """

    expansion = 4

    def __init__(
        self, maps: int, width: int, *, stride: int, dilations: tuple[int, int],
        config: ResNetConfig, downsample: nn.Module | None,
    ) -> None:  # fmt: skip
        super().__init__()
        first, second = (stride, 1) if config.variant == "v1" else (1, stride)
        dilation = dilations[config.variant == "v1"]
        self.conv1 = nn.Conv2d(maps, width, 1, first, bias=False)
        self.bn1 = norm(config.norm, width, dims=2)
        self.conv2 = nn.Conv2d(width, width, 3, second, dilation, dilation, bias=False)
        self.bn2 = norm(config.norm, width, dims=2)
        self.conv3 = nn.Conv2d(width, 4 * width, 1, bias=False)
        self.bn3 = norm(config.norm, 4 * width, dims=2)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's map."""
        kept = x if self.downsample is None else self.downsample(x)
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        out: Tensor = self.relu(y + kept)
        return out


class ResNet(nn.Module):
    """Stem, four stages of residual blocks, global mean, one dense layer.

    image (B, C, H, W) of any size -> (B, outputs), or (B, channels) means where outputs is 0.

    `features` returns the maps of the stem (stride 2; not with the CIFAR stem) and of the four
    stages; `feature_channels` and `feature_strides` describe them. Parameters for three channels
    and 1000 classes: 18 11,689,512; 34 21,797,672; 50 25,557,032; 101 44,549,160; 152 60,192,808.

    He, Zhang, Ren and Sun 2016, "Deep residual learning for image recognition", arXiv:1512.03385.
    Differs from the paper: the bottleneck's stride (see `ResNetConfig.variant`); the small stem.
    """

    feature_channels: tuple[int, ...]
    feature_strides: tuple[int, ...]

    def __init__(
        self,
        block: type[BasicBlock | Bottleneck],
        depths: tuple[int, int, int, int],
        *,
        config: ResNetConfig,
        signature: Signature,
        generator: Generator,
    ) -> None:
        super().__init__()
        image = image_of(signature, "resnet")
        NORMS.get(config.norm)
        stem, said = pick_stem(config.stem, image)
        self.config = replace(config, stem=stem)
        small = stem == "cifar"
        kernel, stride = (3, 1) if small else (7, 2)
        self.conv1 = nn.Conv2d(image[0], 64, kernel, stride, kernel // 2, bias=False)
        self.bn1 = norm(config.norm, 64, dims=2)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.Identity() if small else nn.MaxPool2d(3, 2, 1)
        stages, strides = _stages(block, depths, self.config, stem)
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        width = 512 * block.expansion
        self.fc = nn.Linear(width, signature.outputs) if signature.outputs else nn.Identity()
        widths = tuple(w * block.expansion for w in WIDTHS)
        self.feature_channels = widths if small else (64, *widths)
        self.feature_strides = strides if small else (2, *strides)
        self._draw(generator)
        self.choices = (
            f"ResNet {config.variant}, {image[0]}x{image[1]}x{image[2]}, norm {config.norm}",
            said,
            why("relu", "auto"),
        )

    def _draw(self, generator: Generator) -> None:
        initialise(self, generator, activation="relu")
        initialise(self.fc, generator)
        if self.config.zero_residual:
            for block in self.modules():
                last = {BasicBlock: "bn2", Bottleneck: "bn3"}.get(type(block))
                weight = getattr(block.get_submodule(last), "weight", None) if last else None
                if weight is not None:
                    nn.init.zeros_(weight)

    def features(self, image: Tensor) -> list[Tensor]:
        """Return the stage maps, the finest first."""
        x = self.relu(self.bn1(self.conv1(image)))
        maps = [] if isinstance(self.maxpool, nn.Identity) else [x]
        x = self.maxpool(x)
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = stage(x)
            maps.append(x)
        return maps

    def forward(self, image: Tensor) -> Tensor:
        """Return (B, outputs)."""
        out: Tensor = self.fc(self.avgpool(self.features(image)[-1]).flatten(1))
        return out


def _stages(
    block: type[BasicBlock | Bottleneck], depths: tuple[int, ...], config: ResNetConfig,
    stem: ResolvedStem,
) -> tuple[list[nn.Sequential], tuple[int, ...]]:  # fmt: skip
    """Return the stages and the stride of each; beyond the output stride they dilate."""
    stride, dilation = (1, 1) if stem == "cifar" else (4, 1)
    limit = config.output_stride // (4 if stem == "cifar" else 1)
    maps, stages, strides = 64, [], []
    for index, (width, depth) in enumerate(zip(WIDTHS, depths, strict=True)):
        step, before = (1 if index == 0 else 2), dilation
        if step * stride > limit:
            step, dilation = 1, 2 * dilation
        stride *= step
        blocks = []
        for i in range(depth):
            out = width * block.expansion
            first = i == 0 and (step != 1 or maps != out)
            shortcut = _projection(maps, out, step, config.norm) if first else None
            blocks.append(block(maps, width, stride=step if i == 0 else 1,
                                dilations=(before if i == 0 else dilation, dilation),
                                config=config, downsample=shortcut))  # fmt: skip
            maps = out
        stages.append(nn.Sequential(*blocks))
        strides.append(stride)
    return stages, tuple(strides)


def _projection(maps: int, out: int, stride: int, kind: str) -> nn.Sequential:
    convolution = nn.Conv2d(maps, out, 1, stride, bias=False)
    return nn.Sequential(convolution, norm(kind, out, dims=2))


class PadShortcut(nn.Module):
    """Every second pixel, and zeros for the channels that are new: option A, without weights.

    x (B, C, H, W) -> (B, C + 2·side, H/2, W/2): `side` maps of zeros before and behind.
    """

    def __init__(self, side: int) -> None:
        super().__init__()
        self.side = side

    def forward(self, x: Tensor) -> Tensor:
        """Return the thinned and widened map."""
        return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.side, self.side))


class CifarBlock(nn.Module):
    """The basic block of the CIFAR line: as `BasicBlock`, the shortcut by option A or B."""

    def __init__(self, maps: int, width: int, *, stride: int, config: CifarResNetConfig) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(maps, width, 3, stride, 1, bias=False)
        self.bn1 = norm(config.norm, width, dims=2)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = norm(config.norm, width, dims=2)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or maps != width:
            padded = config.shortcut == "A"
            self.shortcut = (
                PadShortcut((width - maps) // 2) if padded
                else _projection(maps, width, stride, config.norm)
            )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's map."""
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = self.bn2(self.conv2(y))
        return F.relu(y + self.shortcut(x), inplace=True)


class CifarResNet(nn.Module):
    """3x3 convolution, three stages of n blocks of 16, 32 and 64 maps, global mean, dense layer.

    image (B, C, H, W) of any size -> (B, outputs), or (B, 64) means where outputs is 0. The depth
    is 6n + 2. `features` returns the maps of the three stages, of strides 1, 2 and 4. Parameters
    for three channels and ten classes: 20 269,722; 32 464,154; 44 658,586; 56 853,018;
    110 1,727,962.

    He, Zhang, Ren and Sun 2016, arXiv:1512.03385, section 4.2. The names of its tensors are those
    of the widely used checkpoints of Y. Idelbayev's re-implementation.
    """

    feature_channels: tuple[int, ...] = CIFAR_WIDTHS
    feature_strides: tuple[int, ...] = (1, 2, 4)

    def __init__(
        self, n: int, *, config: CifarResNetConfig, signature: Signature, generator: Generator
    ) -> None:
        super().__init__()
        image = image_of(signature, "resnet")
        NORMS.get(config.norm)
        self.config = config
        self.conv1 = nn.Conv2d(image[0], 16, 3, 1, 1, bias=False)
        self.bn1 = norm(config.norm, 16, dims=2)
        self.layer1 = _cifar_stage(16, 16, n, 1, config)
        self.layer2 = _cifar_stage(16, 32, n, 2, config)
        self.layer3 = _cifar_stage(32, 64, n, 2, config)
        self.linear = nn.Linear(64, signature.outputs) if signature.outputs else nn.Identity()
        initialise(self, generator, activation="relu")
        initialise(self.linear, generator)
        self.choices = (
            f"ResNet of {6 * n + 2} layers for small pictures, {'x'.join(map(str, image))}",
            f"shortcuts by option {config.shortcut}, norm {config.norm}",
            why("relu", "auto"),
        )

    def features(self, image: Tensor) -> list[Tensor]:
        """Return the stage maps, the finest first."""
        x = F.relu(self.bn1(self.conv1(image)), inplace=True)
        maps = []
        for stage in (self.layer1, self.layer2, self.layer3):
            x = stage(x)
            maps.append(x)
        return maps

    def forward(self, image: Tensor) -> Tensor:
        """Return (B, outputs)."""
        out: Tensor = self.linear(self.features(image)[-1].mean((2, 3)))
        return out


def _cifar_stage(
    maps: int, width: int, n: int, stride: int, config: CifarResNetConfig
) -> nn.Sequential:
    blocks = [CifarBlock(maps, width, stride=stride, config=config)]
    blocks += [CifarBlock(width, width, stride=1, config=config) for _ in range(n - 1)]
    return nn.Sequential(*blocks)


def resnet18(config: ResNetConfig, signature: Signature, generator: Generator) -> ResNet:
    """Return the ResNet of 18 layers: basic blocks 2, 2, 2, 2; 11,689,512 parameters."""
    return ResNet(BasicBlock, (2, 2, 2, 2), config=config, signature=signature, generator=generator)


def resnet34(config: ResNetConfig, signature: Signature, generator: Generator) -> ResNet:
    """Return the ResNet of 34 layers: basic blocks 3, 4, 6, 3; 21,797,672 parameters."""
    return ResNet(BasicBlock, (3, 4, 6, 3), config=config, signature=signature, generator=generator)


def resnet50(config: ResNetConfig, signature: Signature, generator: Generator) -> ResNet:
    """Return the ResNet of 50 layers: bottlenecks 3, 4, 6, 3; 25,557,032 parameters."""
    return ResNet(Bottleneck, (3, 4, 6, 3), config=config, signature=signature, generator=generator)


def resnet101(config: ResNetConfig, signature: Signature, generator: Generator) -> ResNet:
    """Return the ResNet of 101 layers: bottlenecks 3, 4, 23, 3; 44,549,160 parameters."""
    return ResNet(
        Bottleneck, (3, 4, 23, 3), config=config, signature=signature, generator=generator
    )


def resnet152(config: ResNetConfig, signature: Signature, generator: Generator) -> ResNet:
    """Return the ResNet of 152 layers: bottlenecks 3, 8, 36, 3; 60,192,808 parameters."""
    return ResNet(
        Bottleneck, (3, 8, 36, 3), config=config, signature=signature, generator=generator
    )


def resnet20(config: CifarResNetConfig, signature: Signature, generator: Generator) -> CifarResNet:
    """Return the ResNet of 20 layers for small pictures: 269,722 parameters."""
    return CifarResNet(3, config=config, signature=signature, generator=generator)


def resnet32(config: CifarResNetConfig, signature: Signature, generator: Generator) -> CifarResNet:
    """Return the ResNet of 32 layers for small pictures: 464,154 parameters."""
    return CifarResNet(5, config=config, signature=signature, generator=generator)


def resnet44(config: CifarResNetConfig, signature: Signature, generator: Generator) -> CifarResNet:
    """Return the ResNet of 44 layers for small pictures: 658,586 parameters."""
    return CifarResNet(7, config=config, signature=signature, generator=generator)


def resnet56(config: CifarResNetConfig, signature: Signature, generator: Generator) -> CifarResNet:
    """Return the ResNet of 56 layers for small pictures: 853,018 parameters."""
    return CifarResNet(9, config=config, signature=signature, generator=generator)


def resnet110(config: CifarResNetConfig, signature: Signature, generator: Generator) -> CifarResNet:
    """Return the ResNet of 110 layers for small pictures: 1,727,962 parameters."""
    return CifarResNet(18, config=config, signature=signature, generator=generator)
