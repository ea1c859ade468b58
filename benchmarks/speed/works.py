"""The four works of the speed benchmark: a model, its seeded synthetic data, and its optimizer.

    mlp     784-512-256-10 perceptron with ReLU, batch 128, Adam
    lenet   LeNet-5 in its modern form (ReLU, max pooling) on 1x28x28, batch 128, Adam
    tiny    16-32-10 perceptron with ReLU (874 parameters), batch 32, Adam
    resnet  ResNet-18 for CIFAR (He et al. 2015, arXiv:1512.03385; 3x3 stem, no max pooling) on
            3x32x32, batch 128, SGD with Nesterov momentum 0.9 and weight decay 5e-4

The models are written here and not taken from the library, so that every contender trains exactly
the same module. The data have structure: every class has a smooth prototype, a row is its class's
prototype, shifted for images, plus noise, so that losses fall and the accuracies of two contenders
after the same epochs can be compared.

Shapes: x_NF or x_NCHW float32, y_N int64.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

CLASSES = 10


@dataclass(frozen=True)
class Work:
    """One work: how to build the model, the shape of a row, and how it is trained.

    rows, val_rows  of the synthetic data; `rows` is a multiple of `batch_size`, so that no
                    contender may gain from dropping or padding a last batch
    noise           standard deviation of the noise around the prototype (unit-variance signal)
    kind            the name of the input in a `gipi` batch: "image" or "numbers"
    """

    name: str
    model: Callable[[], nn.Module]
    shape: tuple[int, ...]
    batch_size: int
    rows: int
    val_rows: int
    noise: float
    optimizer: str
    lr: float
    momentum: float = 0.0
    weight_decay: float = 0.0
    epochs: int = 3

    @property
    def kind(self) -> str:
        """Name of the input tensor in a batch of the library."""
        return "image" if len(self.shape) == 3 else "numbers"

    @property
    def steps(self) -> int:
        """Optimizer steps of one epoch."""
        return self.rows // self.batch_size


@dataclass(frozen=True)
class Data:
    """Training and validation rows of one work."""

    x: Tensor
    y: Tensor
    x_val: Tensor
    y_val: Tensor


def mlp() -> nn.Module:
    """784-512-256-10 with ReLU: 535,818 parameters."""
    return nn.Sequential(
        nn.Flatten(), nn.Linear(784, 512), nn.ReLU(),
        nn.Linear(512, 256), nn.ReLU(), nn.Linear(256, CLASSES),
    )  # fmt: skip


def lenet() -> nn.Module:
    """LeNet-5 with ReLU and max pooling (LeCun et al. 1998, modern form): 61,706 parameters."""
    return nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, CLASSES),
    )  # fmt: skip


def tiny() -> nn.Module:
    """16-32-10 with ReLU: 874 parameters; what is measured is the cost of the loop itself."""
    return nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, CLASSES))


class Block(nn.Module):
    """Basic residual block: y = relu(bn(conv(relu(bn(conv(x))))) + shortcut(x))."""

    def __init__(self, width_in: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width_in, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or width_in != width:
            self.shortcut = nn.Sequential(
                nn.Conv2d(width_in, width, 1, stride, bias=False), nn.BatchNorm2d(width)
            )

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, width, H/stride, W/stride)."""
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = self.bn2(self.conv2(y))
        return F.relu(y + self.shortcut(x), inplace=True)


class ResNet18(nn.Module):
    """ResNet-18 for 32x32 images: 11,173,962 parameters, 0.56 G multiply-adds a picture."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64), nn.ReLU(inplace=True)
        )
        widths = (64, 64, 128, 256, 512)
        blocks = []
        for before, width in zip(widths, widths[1:], strict=False):
            stride = 1 if width == 64 else 2
            blocks += [Block(before, width, stride), Block(width, width, 1)]
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(512, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, 32, 32) -> (B, 10)."""
        return self.head(self.blocks(self.stem(x)).mean((2, 3)))


WORKS: tuple[Work, ...] = (
    Work("mlp", mlp, (784,), 128, 51_200, 5_120, 8.0, "adam", 1e-3),
    Work("lenet", lenet, (1, 28, 28), 128, 51_200, 5_120, 4.0, "adam", 1e-3, epochs=2),
    Work("tiny", tiny, (16,), 32, 32_000, 3_200, 1.0, "adam", 1e-3),
    Work(
        "resnet", ResNet18, (3, 32, 32), 128, 1_280, 256, 1.5, "nesterov", 0.02, 0.9, 5e-4, epochs=4
    ),
)
BY_NAME = {work.name: work for work in WORKS}


def prototypes(work: Work, generator: torch.Generator) -> Tensor:
    """Return one unit-variance pattern per class, (10, *shape); smooth ones for images."""
    if len(work.shape) == 1:
        pattern = torch.randn(CLASSES, *work.shape, generator=generator)
    else:
        channels, *size = work.shape
        coarse = torch.randn(CLASSES, channels, 5, 5, generator=generator)
        pattern = F.interpolate(coarse, size=size, mode="bicubic", align_corners=True)
    dims = tuple(range(1, pattern.dim()))
    pattern = pattern - pattern.mean(dims, keepdim=True)
    return pattern / pattern.std(dims, keepdim=True)


def make_data(work: Work, *, seed: int = 0, rows: int | None = None) -> Data:
    """Return training and validation rows drawn from the same seeded distribution."""
    generator = torch.Generator().manual_seed(seed)
    pattern = prototypes(work, generator)
    train = work.rows if rows is None else rows
    total = train + work.val_rows
    y = torch.randint(CLASSES, (total,), generator=generator)
    x = pattern[y]
    if len(work.shape) == 3:
        shift = torch.randint(-2, 3, (total, 2), generator=generator)
        for dy in range(-2, 3):
            for dx in range(-2, 3):
                chosen = (shift[:, 0] == dy) & (shift[:, 1] == dx)
                x[chosen] = x[chosen].roll((dy, dx), (2, 3))
    x = x + work.noise * torch.randn(x.shape, generator=generator)
    x = x / (1.0 + work.noise**2) ** 0.5
    return Data(x[:train], y[:train], x[train:], y[train:])


def make_model(work: Work, *, seed: int = 0) -> nn.Module:
    """Return the model with the same initial weights for every contender."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return work.model()
