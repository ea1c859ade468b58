"""Initial weights: how signal and gradient fare through twenty layers before any training."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from gipi import models
from gipi.core.errors import ModelError
from gipi.core.schema import Signature
from gipi.core.seed import derive
from gipi.core.svg import Line, line_chart
from gipi.nn import ACTIVATIONS, INITS, dense_block, initialise
from gipi.nn.lsuv import lsuv
from gipi.study.lab_charts import LARGE, layer_map, ridges, shade_key
from gipi.study.lab_net import Rows, descend, digits
from gipi.study.lab_page import Experiment, Picture

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

DEPTH, WIDTH, BATCH = 20, 100, 200
SHOWN_LAYERS = (1, 5, 10, 15, 20)
HISTOGRAMS = (
    ("tanh", "normal"), ("tanh", "xavier"), ("sigmoid", "xavier"),
    ("relu", "xavier"), ("relu", "he"), ("selu", "lecun"),
)  # fmt: skip
LEARNERS = ("zeros", "normal", "xavier", "he", "orthogonal")
BINS = 40


@dataclass(frozen=True)
class Signals:
    """What one deep net does to random rows.

    layers     outputs of each layer, (B, width)
    gradients  gradient at the output of each layer, (B, width), zeros where none arrives
    forward    spread of each layer's output over the spread of the input
    backward   spread of the gradient at each layer's output over that at the last layer
    """

    layers: list[Tensor]
    gradients: list[Tensor]
    forward: list[float]
    backward: list[float]


def signals(
    activation: str,
    init: str,
    *,
    depth: int = DEPTH,
    width: int = WIDTH,
    rows: int = BATCH,
    seed: int = 0,
) -> Signals:
    """Return the signals of `depth` dense layers that were just initialised.

    Rows and the gradient at the end are drawn from N(0, 1). Raises `ModelError` where LSUV finds
    a layer whose output does not vary.
    """
    generator = torch.Generator().manual_seed(derive(seed, "lab init"))
    h = torch.randn(rows, width, generator=generator)
    back = torch.randn(rows, width, generator=generator)
    spread = h.std().item()
    layers = []
    net = nn.Sequential(*(dense_block(width, width, activation=activation) for _ in range(depth)))
    initialise(net, generator, activation=activation, init=init)
    if "needs-data" in INITS.get(init).tags:
        lsuv(net, h)
    for block in net:
        h = block(h)
        layers.append(h)
    traced = [layer for layer in layers if layer.requires_grad]
    grads: Sequence[Tensor | None] = ()
    if traced and layers[-1].requires_grad:
        grads = torch.autograd.grad(layers[-1], traced, back, allow_unused=True)
    found = {id(layer): g for layer, g in zip(traced, grads, strict=False)}
    found[id(layers[-1])] = back
    kept = [layer.detach() for layer in layers]
    gradients = [
        torch.zeros_like(layer) if (g := found.get(id(layer))) is None else g for layer in layers
    ]
    return Signals(
        kept, gradients, [_spread(layer) / spread for layer in kept],
        [_spread(g) / back.std().item() for g in gradients],
    )  # fmt: skip


def _spread(values: Tensor) -> float:
    return values.double().std().item()


def distinct_units(layer: nn.Linear) -> int:
    """Return how many units of a layer differ in their weights or bias."""
    parts = [layer.weight.detach()]
    if layer.bias is not None:
        parts.append(layer.bias.detach()[:, None])
    return len(torch.unique(torch.cat(parts, 1), dim=0))


def learns(
    init: str, rows: Rows, *, steps: int = 150, depth: int = 4, width: int = 32, seed: int = 0
) -> tuple[nn.Module, list[tuple[int, float]]]:
    """Return a ReLU net trained from `init` by momentum, and its (step, training loss)."""
    model = models.build(
        "mlp", Signature(image=(1, 8, 8), outputs=10), seed=seed,
        options={"widths": [width] * depth, "init": init},
    )  # fmt: skip
    curve = descend(
        model, (rows.x, rows.y), optimizer="momentum", lr=0.05, steps=steps, batch_size=64,
        seed=seed,
    )  # fmt: skip
    return model, list(zip(curve.steps, curve.losses, strict=True))


def init(seed: int = 0) -> Experiment:
    """Draw spread of signal and gradient for every initialisation and activation, and training."""
    forward, backward, numbers = _maps(seed)
    learned, learning = _learning(seed)
    words = (
        "Each panel is an activation, each row an initialisation, each cell one of "
        f"{DEPTH} dense layers of {WIDTH} units, before any training. Grey is kept within a factor "
        "of three, blue is fading, red is growing; the number at the right is the ratio at the "
    )
    pictures = (
        Picture(
            "lab-init-forward",
            "Spread of the signal through the layers",
            words + "last layer. A rule keeps the signal where it was made for the activation: "
            "He's for ReLU and its leaky kin, Xavier's nearly for tanh, LeCun's for SELU. SiLU and "
            "GELU fade slowly even under He's; LSUV measures each layer on the rows instead.",
            "std(hₗ) / std(h₀);   Var(Wx) = in · Var(W) · E[x²]",
            "Glorot and Bengio 2010, Understanding the difficulty of training deep networks; He, "
            "Zhang, Ren and Sun 2015, arXiv:1502.01852; Mishkin and Matas 2016, arXiv:1511.06422",
            forward, LARGE,
        ),
        Picture(
            "lab-init-backward",
            "Size of the gradient through the layers",
            "The same nets on the way back: the gradient enters at the last layer and is read at "
            "every layer's output; the number at the right is the ratio that reaches layer 1, at "
            "the left end. What fades there does not learn. The sigmoid's slope is at most 1/4, so "
            "it loses the gradient under every rule; only weights of spread 1, ten times too large "
            "for anything else, happen to make up for that. A step passes nothing at all.",
            "std(∂L/∂hₗ) / std(∂L/∂h_last);   ∂L/∂hₗ₋₁ = Wᵀ (f'(Whₗ₋₁) ⊙ ∂L/∂hₗ)",
            "Hochreiter 1991, Untersuchungen zu dynamischen neuronalen Netzen; Glorot and Bengio "
            "2010",
            backward, LARGE,
        ),
        *_histograms(seed),
        learned,
    )  # fmt: skip
    return Experiment(
        "init", "Initial weights", pictures, {"spread": numbers, "learning": learning}
    )


def _maps(seed: int) -> tuple[tuple[str, ...], tuple[str, ...], dict[str, Any]]:
    """Return the panels of both directions and their numbers; a pair that fails has no strip."""
    forward = [shade_key(LARGE, "spread compared with the input")]
    backward = [shade_key(LARGE, "gradient compared with the last layer")]
    numbers: dict[str, Any] = {}
    for record in ACTIVATIONS:
        ahead, back = [], []
        for rule in INITS:
            try:
                found = signals(record.name, rule.name, seed=seed)
            except ModelError:
                continue
            ahead.append((rule.name, found.forward))
            back.append((rule.name, found.backward))
            numbers.setdefault(record.name, {})[rule.name] = {
                "forward": found.forward[-1],
                "backward": found.backward[0],
            }
        forward.append(layer_map(ahead, title=record.name, size=LARGE))
        backward.append(layer_map(back, title=record.name, size=LARGE, said=0))
    return tuple(forward), tuple(backward), numbers


def _histograms(seed: int) -> tuple[Picture, Picture]:
    """Return the pictures of what some layers answer, and of the gradients that reach them."""
    ahead, back = [], []
    for activation, rule in HISTOGRAMS:
        found, title = signals(activation, rule, seed=seed), f"{activation}, {rule}"
        ahead.append(_ridges(found.layers, title, span=_span(found.layers[0])))
        back.append(_ridges(found.gradients, title, span=_span(found.gradients[-1])))
    answers = Picture(
        "lab-init-histograms",
        "Distribution of the activations, layer by layer",
        "Histograms of what the units of some layers answer. With the fixed small normal weights "
        "tanh collapses onto zero; Xavier's keep its spread for many layers. The sigmoid's "
        "histogram turns ragged: every unit answers the same whatever the row, so the rows can no "
        "longer be told apart. ReLU fades under Xavier's rule and keeps its spread under He's (a "
        "bar of zeros is cut at the top); SELU keeps its shape from the first layer to the last.",
        "histogram of hₗ = f(W hₗ₋₁), h₀ ~ N(0, 1), over rows and units",
        "Glorot and Bengio 2010; Klambauer et al. 2017, Self-normalizing neural networks, "
        "arXiv:1706.02515",
        tuple(ahead), LARGE,
    )  # fmt: skip
    gradients = Picture(
        "lab-init-gradients",
        "Distribution of the gradients, layer by layer",
        "Histograms of the gradient at the outputs of the same layers, drawn on the scale of what "
        "enters at layer 20; it travels from the lowest row up. Under the fixed small weights and "
        "in the sigmoid everything stands on zero long before layer 1, and so it does in ReLU "
        "under Xavier's rule. He's for ReLU and LeCun's for SELU hand it down about as wide.",
        "histogram of ∂L/∂hₗ, ∂L/∂h_last ~ N(0, 1), over rows and units",
        "Glorot and Bengio 2010, figures 6 and 7",
        tuple(back), LARGE,
    )  # fmt: skip
    return answers, gradients


def _ridges(layers: Sequence[Tensor], title: str, *, span: tuple[float, float]) -> str:
    """Return histograms of some layers, one above the other."""
    low, high = span
    rows = [
        (f"layer {n}", torch.histc(layers[n - 1], BINS, min=low, max=high).tolist())
        for n in SHOWN_LAYERS
    ]
    return ridges(rows, span=span, title=title, size=LARGE)


def _span(first: Tensor) -> tuple[float, float]:
    """Return round ends of an axis that holds nearly all of the first layer's answers."""
    low, high = (torch.quantile(first.flatten()[:10_000], q).item() for q in (0.002, 0.998))
    unit = 10.0 ** math.floor(math.log10(max(high - low, 1e-12))) / 2
    return math.floor(low / unit) * unit, math.ceil(high / unit) * unit


def _learning(seed: int) -> tuple[Picture, dict[str, Any]]:
    rows = digits(seed)
    panels, numbers = [], {}
    curves = {}
    for rule in LEARNERS:
        model, curves[rule] = learns(rule, rows, seed=seed)
        first = next(m for m in model.modules() if isinstance(m, nn.Linear))
        numbers[rule] = {"loss": curves[rule][-1][1], "distinct_units": distinct_units(first)}
    top = max(v for points in curves.values() for _, v in points if math.isfinite(v))
    for rule, points in curves.items():
        kept = numbers[rule]["distinct_units"]
        panels.append(
            line_chart(
                [*_ghosts(curves, rule), _line(rule, points)], width=LARGE[0], height=LARGE[1],
                x_label="step", label=f"training loss from {rule}", from_zero=True,
                title=f"{rule}: {kept} different units of 32", y_range=(0.0, top),
            )
        )  # fmt: skip
    picture = Picture(
        "lab-init-learning",
        "Why zeros fail",
        "Training loss of a ReLU net with four hidden layers on the digits, from different "
        "initial weights. From zeros every unit of a layer has the same weights and receives the "
        "same gradient, so they stay one and the same unit for ever; only the output's bias "
        "learns, and the loss stays near log 10 = 2.30, the loss of guessing. Weights that are "
        "random but far too small break the symmetry and still hardly move.",
        "W = 0  ⇒  hᵢ = hⱼ and ∂L/∂wᵢ = ∂L/∂wⱼ for all units i, j of a layer",
        "Rumelhart, Hinton and Williams 1986 (symmetry breaking); Glorot and Bengio 2010",
        tuple(panels), LARGE,
    )  # fmt: skip
    return picture, numbers


def _line(name: str, points: Sequence[tuple[int, float]], colour: int = 1) -> Line:
    return Line(name, [s for s, _ in points], [v for _, v in points], colour)


def _ghosts(curves: dict[str, list[tuple[int, float]]], without: str) -> list[Line]:
    return [_line(n, p, 0) for n, p in curves.items() if n != without]
