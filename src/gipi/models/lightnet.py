"""LightNet: a small residual net for dense tasks and for processors without a GPU."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field
from torch import nn
from torch.nn import functional as F

from gipi.core.errors import ModelError
from gipi.models.stem import SMALL, image_of
from gipi.nn import NORMS, initialise, norm, why

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from gipi.core.schema import Signature

WIDTHS = (32, 64, 128, 192, 256)


@dataclass(frozen=True)
class LightNetConfig:
    """Shape of a LightNet.

    widths         maps of the stages; each stage has half the height and width of the one before
    blocks         residual blocks of each stage behind the first
    first_stride   stride of the first stage: 2, or 1 for pictures of up to 64 pixels ("auto")
    output_stride  stages beyond this stride keep their size and dilate instead; None: none does
    norm           a name of `gipi list norms`
    """

    widths: tuple[Annotated[int, Field(gt=0)], ...] = WIDTHS
    blocks: Annotated[int, Field(ge=1, le=8)] = 1
    first_stride: Literal["auto", 1, 2] = "auto"
    output_stride: Literal[4, 8, 16, 32] | None = None
    norm: str = "batch"


class LightBlock(nn.Module):
    """y = relu(s(x) + norm(W₂ relu(norm(W₁ x)))): two 3x3 convolutions, the first with the stride.

    x (B, C, H, W) -> (B, width, H/stride, W/stride). s is the identity, or where the shape changes
    the mean over each stride x stride square and a 1x1 convolution (He et al. 2019,
    arXiv:1812.01187, their ResNet-D), which throws no pixel away.
    """

    def __init__(self, maps: int, width: int, *, stride: int, dilation: int, kind: str) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(maps, width, 3, stride, dilation, dilation, bias=False)
        self.norm1 = norm(kind, width, dims=2)
        self.conv2 = nn.Conv2d(width, width, 3, 1, dilation, dilation, bias=False)
        self.norm2 = norm(kind, width, dims=2)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or maps != width:
            mean = [nn.AvgPool2d(stride, ceil_mode=True)] if stride != 1 else []
            project = nn.Conv2d(maps, width, 1, bias=False)
            self.shortcut = nn.Sequential(*mean, project, norm(kind, width, dims=2))

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's map."""
        y = F.relu(self.norm1(self.conv1(x)), inplace=True)
        y = self.norm2(self.conv2(y))
        return F.relu(y + self.shortcut(x), inplace=True)


class LightNet(nn.Module):
    """A 3x3 convolution, then one residual block a stage, global mean, one dense layer.

    image (B, C, H, W) of any size -> (B, outputs), or (B, channels) means where outputs is 0.

    About a tenth of the work of a ResNet-18 at the same size. `features` returns the maps of all
    stages: strides 2, 4, 8, 16, 32, or 1 to 16 for small pictures. Parameters for three channels
    and ten classes: 1,971,498.

    Blocks of He, Zhang, Ren and Sun 2016, arXiv:1512.03385. The net is ours: it starts at full
    depth of colour with a stride of 2 rather than 4, since dense tasks need the fine maps.
    """

    def __init__(self, config: LightNetConfig, signature: Signature, generator: Generator) -> None:
        super().__init__()
        image = image_of(signature, "lightnet")
        NORMS.get(config.norm)
        if not config.widths:
            raise ModelError("widths=()", "at least one stage", "leave widths out")
        self.config = config
        first = config.first_stride
        start = (1 if max(image[1:]) <= SMALL else 2) if first == "auto" else first
        width, kind = config.widths[0], config.norm
        self.stem = nn.Conv2d(image[0], width, 3, start, 1, bias=False)
        self.stem_norm = norm(kind, width, dims=2)
        self.stages = nn.ModuleList()
        stride: int = start
        dilation, strides, maps = 1, [], width
        for index, width in enumerate(config.widths):
            step = 1 if index == 0 else 2
            if config.output_stride is not None and step * stride > config.output_stride:
                step, dilation = 1, 2 * dilation
            stride *= step
            stage = nn.Sequential()
            for number in range(config.blocks if index else 1):
                stage.append(LightBlock(maps, width, stride=step if number == 0 else 1,
                                        dilation=dilation, kind=kind))  # fmt: skip
                maps = width
            self.stages.append(stage)
            strides.append(stride)
        outputs = signature.outputs
        self.output = nn.Linear(maps, outputs) if outputs else nn.Identity()
        self.feature_channels: tuple[int, ...] = tuple(config.widths)
        self.feature_strides: tuple[int, ...] = tuple(strides)
        initialise(self, generator, activation="relu")
        initialise(self.output, generator)
        widths = "-".join(map(str, config.widths))
        shown = f"lightnet, {image[0]}x{image[1]}x{image[2]}, maps {widths}"
        self.choices = (f"{shown} at strides {'-'.join(map(str, strides))}", why("relu", "auto"))

    def features(self, image: Tensor) -> list[Tensor]:
        """Return the stage maps, the finest first."""
        x = F.relu(self.stem_norm(self.stem(image)), inplace=True)
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps

    def forward(self, image: Tensor) -> Tensor:
        """Return (B, outputs)."""
        out: Tensor = self.output(self.features(image)[-1].mean((2, 3)))
        return out


def lightnet(config: LightNetConfig, signature: Signature, generator: Generator) -> LightNet:
    """Return a LightNet for images of this signature."""
    return LightNet(config, signature, generator)
