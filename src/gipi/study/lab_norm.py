"""Normalisation: what it does to the gradient in depth, to the learning rate, to small batches."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from gipi import losses, models
from gipi.core.errors import ModelError
from gipi.core.schema import Signature
from gipi.core.seed import derive
from gipi.core.svg import Line, line_chart
from gipi.nn import NORMS, initialise, norm
from gipi.study.lab_charts import LARGE
from gipi.study.lab_net import Rows, descend, digits, mean_loss
from gipi.study.lab_page import Experiment, Picture

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

CHANNELS = 12
DEPTH = 24
FACTORS = (0.5, 1.0, 2.0)
"""Initial weights as multiples of He's."""

RATES = tuple(10 ** (e / 3) for e in range(-9, 5))  # 0.001 ... 20
LOW = 0.4
HIDDEN = (36,) * 6
"""Of the dense net; group norm makes four groups of nine units of each layer."""

BATCHES = (2, 4, 8, 16, 32, 64)
BATCH_RATE = 0.005
"""Learning rate per row of a batch: the noise per row seen then does not depend on the batch."""


def compared(*, dense: bool = False) -> list[str]:
    """Return the norms that take statistics of something, and none of them, last.

    Local response normalisation is not among them: it has no scale to take out. dense leaves out
    those that need positions.
    """
    found = [r.name for r in NORMS if r.facts.get("over")]
    return [name for name in found if not dense or _takes_vectors(name)] + ["none"]


def _takes_vectors(name: str) -> bool:
    try:
        norm(name, HIDDEN[0])
    except ModelError:
        return False
    return True


def conv_net(
    kind: str, *, depth: int, classes: int = 10, factor: float = 1.0, seed: int = 0
) -> nn.Sequential:
    """Return `depth` blocks of 3x3 convolution, normalisation, ReLU, and a linear answer.

    kind    a name of the registry of norms
    factor  all weights of the blocks are He's times this
    """
    generator = torch.Generator().manual_seed(derive(seed, "lab norm"))
    net = nn.Sequential()
    channels = 1
    for i in range(depth):
        block = nn.Sequential(
            nn.Conv2d(channels, CHANNELS, 3, padding=1), norm(kind, CHANNELS, dims=2), nn.ReLU()
        )
        net.add_module(str(i), block)
        channels = CHANNELS
    initialise(net, generator, activation="relu")
    with torch.no_grad():
        for layer in net.modules():
            if isinstance(layer, nn.Conv2d):
                layer.weight.mul_(factor)
    head = nn.Linear(CHANNELS * 4, classes)
    initialise(head, generator)
    net.add_module("answer", nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), head))
    return net


def gradient_sizes(
    kind: str, x: Tensor, y: Tensor, *, depth: int = DEPTH, factor: float = 1.0, seed: int = 0
) -> list[float]:
    """Return the root mean square of ∂L/∂h at the output of each block, before any training."""
    net = conv_net(kind, depth=depth, factor=factor, seed=seed)
    h, outputs = x, []
    for i in range(depth):
        h = net[i](h)
        outputs.append(h)
    total, count = losses.cross_entropy(net[depth](h), y)
    grads = torch.autograd.grad(total / count, outputs)
    return [g.double().square().mean().sqrt().item() for g in grads]


def final_loss(
    kind: str,
    rows: Rows,
    *,
    lr: float,
    batch_size: int,
    steps: int,
    hidden: Sequence[int] = HIDDEN,
    seed: int = 0,
) -> tuple[float, float]:
    """Return the training and validation loss of a dense ReLU net after some steps of descent.

    Both in evaluation mode: batch norm then takes its running statistics. NaN where the run left
    the finite numbers.
    """
    net = models.build(
        "mlp", Signature(image=(1, 8, 8), outputs=10), seed=seed,
        options={"widths": list(hidden), "norm": kind},
    )  # fmt: skip
    curve = descend(
        net, (rows.x, rows.y), optimizer="sgd", lr=lr, steps=steps, batch_size=batch_size,
        seed=seed, every=steps,
    )  # fmt: skip
    if not math.isfinite(curve.last):
        return math.nan, math.nan
    return curve.last, mean_loss(net, rows.x_val, y=rows.y_val)


def norms(seed: int = 0, *, steps: int = 100, budget: int = 1600) -> Experiment:
    """Draw depth against gradient, loss against learning rate, loss against batch size.

    steps   optimizer steps of each run of the learning rates
    budget  rows that each run of the batch sizes sees
    """
    rows = digits(seed)
    kinds = compared()
    colours = {kind: i % 5 + 1 for i, kind in enumerate(kinds)} | {"none": 6}
    depth, depth_numbers = _depth(rows, kinds, colours, seed)
    dense = compared(dense=True)
    rate, rate_numbers = _rates(rows, dense, colours, steps, seed)
    batch, batch_numbers = _batches(rows, dense, colours, budget, seed)
    return Experiment(
        "norm", "Normalisation", (depth, rate, batch),
        {"gradient": depth_numbers, "rates": rate_numbers, "batches": batch_numbers},
    )  # fmt: skip


def _depth(
    rows: Rows, kinds: list[str], colours: dict[str, int], seed: int
) -> tuple[Picture, dict[str, Any]]:
    x, y = rows.x[:64], rows.y[:64]
    panels, numbers = [], {}
    for factor in FACTORS:
        found = {k: gradient_sizes(k, x, y, factor=factor, seed=seed) for k in kinds}
        numbers[f"{factor:g}"] = {k: sizes[0] / sizes[-1] for k, sizes in found.items()}
        lines = [
            Line(k, list(range(1, DEPTH + 1)), sizes, colours[k], dashed=k == "none")
            for k, sizes in found.items()
        ]
        panels.append(
            line_chart(
                lines, width=LARGE[0], height=LARGE[1], x_label="layer",
                label="size of the gradient by layer", log=True, title=f"weights {factor:g} × He's",
                y_range=(1e-10, 1e4),
            )
        )  # fmt: skip
    picture = Picture(
        "lab-norm-depth",
        "Depth and the gradient",
        f"Size of the gradient at each of {DEPTH} convolutions with ReLU, before training; the "
        "gradient comes from the right. Without normalisation (dashed) it depends on the weights' "
        "scale to the power of the depth: half of He's weights and it is gone, twice and it is "
        "huge. A norm after each layer divides that scale out, so all three panels look alike. "
        "It is not free of cost: the norms' own gradient grows gently with depth. Not drawn is "
        "lrn, which has no scale to divide out.",
        "y = γ (x - mean) / √(var + ε) + β,   so  norm(aW x) = norm(W x) for every a > 0",
        "Ioffe and Szegedy 2015, Batch normalization, arXiv:1502.03167; Yang et al. 2019, A mean "
        "field theory of batch normalization, arXiv:1902.08129",
        tuple(panels), LARGE, keys=tuple((k, colours[k]) for k in kinds),
    )  # fmt: skip
    return picture, numbers


def _rates(
    rows: Rows, kinds: list[str], colours: dict[str, int], steps: int, seed: int
) -> tuple[Picture, dict[str, Any]]:
    numbers = {}
    for kind in kinds:
        ends = [
            final_loss(kind, rows, lr=lr, batch_size=64, steps=steps, seed=seed)[0] for lr in RATES
        ]
        numbers[kind] = dict(zip((f"{r:.3g}" for r in RATES), ends, strict=True))
    good = {k: sum(v < LOW for v in found.values()) for k, found in numbers.items()}
    panels = []
    for kind in kinds:
        ghosts = [_rate_line(k, v, 0) for k, v in numbers.items() if k != kind]
        panels.append(
            line_chart(
                [*ghosts, _rate_line(kind, numbers[kind], colours[kind])], width=LARGE[0],
                height=LARGE[1], x_label="learning rate", label=f"final loss with {kind} norm",
                log=True, log_x=True, title=kind, y_range=(0.01, 30.0),
            )
        )  # fmt: skip
    picture = Picture(
        "lab-norm-lr",
        "Which learning rates work",
        f"Training loss of a dense net with {len(HIDDEN)} hidden layers on the digits after "
        f"{steps} steps of plain descent, against the learning rate; behind each norm the others. "
        "A cross at the top is a run that left the finite numbers. Rates whose loss ends below "
        f"{LOW:g}: " + ", ".join(f"{k} {n}" for k, n in good.items()) + ". Batch norm bears far "
        "larger rates. The norms within a row gain less in so narrow a net, yet hold the loss "
        "where the plain net is lost: a step that makes the weights larger makes the next gradient "
        "smaller by itself.",
        "∂L/∂(aW) = (1/a) ∂L/∂W  for every a > 0",
        "Ioffe and Szegedy 2015; Santurkar et al. 2018, How does batch normalization help "
        "optimization?, arXiv:1805.11604",
        tuple(panels), LARGE,
    )  # fmt: skip
    return picture, numbers


def _rate_line(name: str, values: dict[str, float], colour: int) -> Line:
    """Return final losses as a line; one of the background has no crosses."""
    points = [
        (x, y) for x, y in zip(RATES, values.values(), strict=True) if colour or math.isfinite(y)
    ]
    return Line(name, [x for x, _ in points], [y for _, y in points], colour, dots=colour > 0)


def _batches(
    rows: Rows, kinds: list[str], colours: dict[str, int], budget: int, seed: int
) -> tuple[Picture, dict[str, Any]]:
    numbers: dict[str, dict[str, float]] = {}
    for kind in kinds:
        numbers[kind] = {}
        for size in BATCHES:
            _, held_out = final_loss(
                kind, rows, lr=BATCH_RATE * size, batch_size=size, steps=budget // size,
                hidden=HIDDEN[:2], seed=seed,
            )  # fmt: skip
            numbers[kind][str(size)] = held_out
    lines = [
        Line(kind, list(BATCHES), list(found.values()), colours[kind], dots=True,
             dashed=kind == "none")
        for kind, found in numbers.items()
    ]  # fmt: skip
    panel = line_chart(
        lines, width=LARGE[0], height=LARGE[1] + 40, x_label="rows a step", label="loss by batch",
        log=True, log_x=True, title="validation loss",
    )  # fmt: skip
    picture = Picture(
        "lab-norm-batch",
        "Small batches",
        f"Loss on validation rows after the same {budget} training rows in batches of 2 to 64, "
        "with a rate in proportion to the batch. Batch norm takes mean and spread from the rows of "
        "the batch: of two rows it keeps nothing but which one is larger, and the averages that it "
        "saves for later use fit no batch it has seen. The norms within one row do not know what a "
        "batch is; this is why the rule for fewer than 8 rows on a device is group norm.",
        "batch: mean over rows and pixels;   layer: over channels and pixels of one row;   group: "
        "over a group of channels of one row",
        "Wu and He 2018, Group normalization, arXiv:1803.08494; Ba, Kiros and Hinton 2016, Layer "
        "normalization, arXiv:1607.06450",
        (panel,), (LARGE[0], LARGE[1] + 40), keys=tuple((k, colours[k]) for k in kinds),
    )  # fmt: skip
    return picture, numbers
