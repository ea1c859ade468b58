"""LeNet-5, the net of 1998 and the form in which it is taught now."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import torch
from torch import nn
from torch.nn import functional as F

from gipi.core.errors import ConfigError
from gipi.models.stem import image_of
from gipi.nn import ScaledTanh, Situation, initialise, resolve, widening
from gipi.nn import activation as build_activation

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from gipi.core.schema import Signature

SIDE = 32  # pixels of the picture that the net sees
PADDED = 28  # side that is padded by 2 rather than resized, as MNIST is

# Table I of the paper: the maps of S2 that each of the 16 maps of C3 sees.
C3_INPUTS: tuple[tuple[int, ...], ...] = (
    (0, 1, 2), (1, 2, 3), (2, 3, 4), (3, 4, 5), (0, 4, 5), (0, 1, 5),
    (0, 1, 2, 3), (1, 2, 3, 4), (2, 3, 4, 5), (0, 3, 4, 5), (0, 1, 4, 5), (0, 1, 2, 5),
    (0, 1, 3, 4), (1, 2, 4, 5), (0, 2, 3, 5),
    (0, 1, 2, 3, 4, 5),
)  # fmt: skip


@dataclass(frozen=True)
class LeNet5Config:
    """Which LeNet-5, and what the modern one is made of.

    variant     modern (max pooling, linear output) or 1998 (as published)
    activation  of the modern net: a name of `gipi list activations`, or auto: by the rules of
                `gipi list advice`; 1998 has scaled-tanh
    init        of the modern net: a name of `gipi list inits`, or auto; 1998 has lecun-uniform
    """

    variant: Literal["modern", "1998"] = "modern"
    activation: str = "auto"
    init: str = "auto"


class Subsample(nn.Module):
    """y = c · (sum of a 2x2 square) + b, one trained c and b for each map; halves H and W.

    x (B, C, H, W) -> (B, C, H/2, W/2). c starts at 1/4, the mean (the paper draws it at random).
    """

    def __init__(self, maps: int) -> None:
        super().__init__()
        self.coefficient = nn.Parameter(torch.full((maps,), 0.25))
        self.bias = nn.Parameter(torch.zeros(maps))

    def forward(self, x: Tensor) -> Tensor:
        """Return the scaled sums."""
        sums = F.avg_pool2d(x, 2, divisor_override=1)
        return sums * self.coefficient[:, None, None] + self.bias[:, None, None]


class SparseConv(nn.Module):
    """A 5x5 convolution in which each output map sees some input maps only.

    x (B, 6, H, W) -> (B, 16, H-4, W-4) for `C3_INPUTS`: 60 kernels instead of 96. The paper breaks
    the symmetry of the maps by this table.
    """

    places: Tensor

    def __init__(self, table: tuple[tuple[int, ...], ...], maps_in: int) -> None:
        super().__init__()
        self.table, self.maps_in = table, maps_in
        places = [o * maps_in + i for o, seen in enumerate(table) for i in seen]
        self.register_buffer("places", torch.tensor(places), persistent=False)
        self.weight = nn.Parameter(torch.zeros(len(places), 5, 5))
        self.bias = nn.Parameter(torch.zeros(len(table)))

    @torch.no_grad()
    def draw(self, generator: Generator) -> None:
        """Draw each map's kernels from U(±2.4 / in), in = 25 inputs for each map it sees."""
        self.weight.uniform_(-2.4, 2.4, generator=generator)
        inputs = [25.0 * len(seen) for seen in self.table for _ in seen]
        self.weight.div_(torch.tensor(inputs)[:, None, None])

    def forward(self, x: Tensor) -> Tensor:
        """Return the convolution with zeros at the connections that do not exist."""
        maps_out = len(self.table)
        dense = self.weight.new_zeros(maps_out * self.maps_in, 5, 5)
        dense = dense.index_copy(0, self.places, self.weight)
        return F.conv2d(x, dense.view(maps_out, self.maps_in, 5, 5), self.bias)


class RBF(nn.Module):
    """yₖ = Σⱼ (xⱼ - codeₖⱼ)², answered as logits -yₖ; the codes are fixed, +1 or -1.

    x (B, 84) -> (B, classes). Cross-entropy on -y is the paper's criterion (its equation 9) without
    the constant "rubbish" class. The paper's codes are drawings of the characters on 7x12 pixels;
    here they are random signs, which it names as the alternative, so that any classes will do.
    """

    codes: Tensor

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(1998)
        signs = torch.randint(0, 2, (classes, width), generator=generator)
        self.register_buffer("codes", (2 * signs - 1).float())

    def forward(self, x: Tensor) -> Tensor:
        """Return minus the squared distances, multiplied out so that no (B, K, 84) is formed."""
        squares = x.square().sum(1, keepdim=True) + self.codes.shape[1]
        return 2 * x @ self.codes.T - squares


class LeNet5(nn.Module):
    """Two convolutions with subsampling, then three dense layers.

        modern  C1 6@5x5 - relu - max 2x2 - C3 16@5x5 - relu - max 2x2 - 120 - relu - 84 - relu - K
        1998    C1 6@5x5 - S2 - C3 16@5x5 (sparse) - S4 - C5 120 - F6 84 - RBF, 1.7159 tanh(2x/3)
                after every layer but the last

    image (B, C, H, W) -> (B, outputs). The net sees 32x32 pixels: 28x28 is padded by two with zeros
    (in the convolution itself), any other size is resized within the model.
    Parameters for one channel and ten classes: modern 61,706; 1998 60,000 (C1 156, S2 12, C3 1,516,
    S4 32, C5 48,120, F6 10,164).

    LeCun, Bottou, Bengio and Haffner 1998, "Gradient-based learning applied to document
    recognition". Differs in 1998 from the paper: subsampling starts as a mean; the output codes are
    random signs and the rubbish class is left out (see `RBF`); where several channels come in, C1
    sees them all.
    """

    def __init__(self, config: LeNet5Config, signature: Signature, generator: Generator) -> None:
        super().__init__()
        channels, height, width = image_of(signature, "lenet5")
        self.config, said = _settled(config)
        pad = 2 if (height, width) == (PADDED, PADDED) else 0
        self.resize = not pad and (height, width) != (SIDE, SIDE)
        if config.variant == "1998":
            layers = _layers_1998(channels, pad, signature.outputs)
        else:
            layers = _layers_modern(channels, pad, signature.outputs, self.config.activation)
        self.net = nn.Sequential()
        for name, layer in layers.items():
            self.net.add_module(name, layer)
        if config.variant == "1998":
            initialise(self.net, generator, init="lecun-uniform")
            for layer in self.net:
                if isinstance(layer, SparseConv):
                    layer.draw(generator)
        else:
            initialise(self.net, generator,
                       activation=self.config.activation, init=self.config.init)  # fmt: skip
            initialise(self.net.get_submodule("output"), generator)
        shown = f"{channels}x{height}x{width} "
        self.choices = (
            *said,
            shown + ("padded to 32x32" if pad else "resized to 32x32" if self.resize else "as is"),
        )

    def forward(self, image: Tensor) -> Tensor:
        """Return (B, outputs)."""
        if self.resize:
            image = F.interpolate(
                image, (SIDE, SIDE), mode="bilinear", align_corners=False, antialias=True
            )
        out: Tensor = self.net(image)
        return out


def _settled(config: LeNet5Config) -> tuple[LeNet5Config, tuple[str, ...]]:
    """Return the config with no "auto" left, and why, in sentences."""
    if config.variant == "1998":
        fixed = {"activation": "scaled-tanh", "init": "lecun-uniform"}
        for key, value in fixed.items():
            if getattr(config, key) not in {"auto", value}:
                raise ConfigError(f"{key}={getattr(config, key)!r} with the variant 1998",
                                  f"{value}, as published",
                                  "leave it out, or use variant=modern")  # fmt: skip
        said: tuple[str, ...] = (
            "the net of 1998: 1.7159 tanh(2x/3), initial weights uniform in ±2.4/in",
        )
        return replace(config, **fixed), said  # type: ignore[arg-type]
    settled = resolve({"activation": config.activation, "init": config.init},
                      Situation("convolution", depth=4))  # fmt: skip
    return replace(config, **settled.values), settled.sentences  # type: ignore[arg-type]


def _layers_modern(channels: int, pad: int, outputs: int, activation: str) -> dict[str, nn.Module]:
    k = widening(activation)
    return {
        "c1": nn.Conv2d(channels, 6 * k, 5, padding=pad), "c1_act": build_activation(activation),
        "s2": nn.MaxPool2d(2),
        "c3": nn.Conv2d(6, 16 * k, 5), "c3_act": build_activation(activation),
        "s4": nn.MaxPool2d(2), "flatten": nn.Flatten(),
        "c5": nn.Linear(400, 120 * k), "c5_act": build_activation(activation),
        "f6": nn.Linear(120, 84 * k), "f6_act": build_activation(activation),
        "output": nn.Linear(84, outputs),
    }  # fmt: skip


def _layers_1998(channels: int, pad: int, outputs: int) -> dict[str, nn.Module]:
    return {
        "c1": nn.Conv2d(channels, 6, 5, padding=pad), "c1_squash": ScaledTanh(),
        "s2": Subsample(6), "s2_squash": ScaledTanh(),
        "c3": SparseConv(C3_INPUTS, 6), "c3_squash": ScaledTanh(),
        "s4": Subsample(16), "s4_squash": ScaledTanh(),
        "c5": nn.Conv2d(16, 120, 5), "c5_squash": ScaledTanh(),
        "flatten": nn.Flatten(),
        "f6": nn.Linear(120, 84), "f6_squash": ScaledTanh(),
        "rbf": RBF(84, outputs),
    }  # fmt: skip


def lenet5(config: LeNet5Config, signature: Signature, generator: Generator) -> LeNet5:
    """Return LeNet-5 for images of this signature."""
    return LeNet5(config, signature, generator)
