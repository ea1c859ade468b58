"""The learning rate from too small to divergence, and how many rows a step should see."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from gipi import models
from gipi.core.schema import Signature
from gipi.core.svg import Line, Mark, line_chart, number
from gipi.study.lab_charts import LARGE, SMALL
from gipi.study.lab_net import Curve, Rows, descend, digits
from gipi.study.lab_page import Experiment, Picture
from gipi.study.lab_width import width_picture

if TYPE_CHECKING:
    from torch import nn

RATES = tuple(10 ** (e / 4) for e in range(-16, 9))  # 0.0001 ... 100
SHOWN = (0.001, 0.1, 1.0, 100.0)
BOWL = (0.1, 1.0, 1.8, 2.1)
"""Learning rates on the bowl, in units of 1 / curvature."""

EPOCHS = 4
SIZES = (("full batch", None, 1.0), ("32 rows", 32, 0.3), ("1 row", 1, 0.03))
"""Name, rows a step and learning rate: each about the largest that is still steady."""


def small_net(seed: int, width: int = 32) -> nn.Module:
    """Return the net of this experiment, 64-width-10, tanh."""
    return models.build(
        "mlp", Signature(image=(1, 8, 8), outputs=10), seed=seed,
        options={"widths": [width], "activation": "tanh"},
    )  # fmt: skip


def rate_curve(rows: Rows, lr: float, *, steps: int, seed: int = 0) -> Curve:
    """Return the training loss of plain descent with one learning rate."""
    return descend(
        small_net(seed), (rows.x, rows.y), optimizer="sgd", lr=lr, steps=steps, batch_size=64,
        seed=seed,
    )  # fmt: skip


def batch_curve(
    rows: Rows, batch_size: int | None, *, lr: float, epochs: int = EPOCHS, seed: int = 0
) -> Curve:
    """Return the training loss of plain descent with this many rows a step."""
    size = batch_size or len(rows.x)
    steps = epochs * (len(rows.x) // size)
    looks = {2**i for i in range(steps.bit_length())} | set(range(0, steps, -(-steps // 32)))
    return descend(
        small_net(seed), (rows.x, rows.y), optimizer="sgd", lr=lr, steps=steps,
        batch_size=size, seed=seed, every=looks,
    )  # fmt: skip


def bowl(factor: float, *, steps: int = 20) -> list[float]:
    """Return w on f(w) = w²/2 under w ← w - factor · w, from 1.

    >>> bowl(1.0, steps=2), [round(w, 2) for w in bowl(2.1, steps=2)]
    ([1.0, 0.0, 0.0], [1.0, -1.1, 1.21])
    """
    path = [1.0]
    for _ in range(steps):
        path.append(path[-1] - factor * path[-1])
    return path


def lr(seed: int = 0, *, steps: int = 120) -> Experiment:
    """Draw the effect of the learning rate, of the batch size, and of the width of a net."""
    rows = digits(seed)
    rates, numbers = _rates(rows, steps, seed)
    batches, batch_numbers = _batches(rows, seed)
    width, width_numbers = width_picture(seed)
    return Experiment(
        "lr", "Learning rate, batch size and width", (rates, _bowls(), batches, width),
        {"rates": numbers, "batches": batch_numbers, "widths": width_numbers},
    )  # fmt: skip


def _rates(rows: Rows, steps: int, seed: int) -> tuple[Picture, list[dict[str, float]]]:
    found = {rate: rate_curve(rows, rate, steps=steps, seed=seed) for rate in RATES}
    numbers = [{"lr": rate, "loss": curve.last} for rate, curve in found.items()]
    finite = {r: c.last for r, c in found.items() if math.isfinite(c.last)}
    best = min(finite, key=lambda r: finite[r])
    start = next(iter(found.values())).losses[0]
    w, h = LARGE
    scale = (min(finite.values()), max(start * 4, 10.0))
    ends = Line("loss at the end", list(RATES), [min(found[r].last, 1e30) for r in RATES], 1,
                dots=True)  # fmt: skip
    panels = [
        line_chart(
            [ends], width=w, height=h, x_label="learning rate", label="final loss against rate",
            title=f"loss after {steps} steps", log=True, log_x=True, y_range=scale,
            marks=[Mark(best, f"best {number(best, 2)}")],
        )
    ]  # fmt: skip
    for rate in SHOWN:
        near = min(RATES, key=lambda r: abs(math.log(r / rate)))
        ghosts = [c.line(number(r), 0) for r, c in found.items() if r != near]
        panels.append(
            line_chart(
                [*ghosts, found[near].line(number(near), 1)], width=w, height=h, x_label="step",
                label=f"training loss at rate {number(near)}", title=f"lr {number(near, 2)}",
                log=True, y_range=scale,
            )
        )  # fmt: skip
    picture = Picture(
        "lab-lr",
        "The learning rate, from too small to divergence",
        f"The same net (64-32-10, tanh) on the digits, {steps} steps of plain descent with "
        f"{len(RATES)} rates. Too small and nothing happens within the budget; ten times more is "
        "ten times faster, up to the edge; beyond it the loss jumps about, then grows. A rate "
        "a little below the edge is best, which is why one looks for the edge first. Points on the "
        "upper frame lie above it.",
        "w ← w - η ∂L/∂w",
        "Cauchy 1847, Méthode générale; Robbins and Monro 1951; Bengio 2012, Practical "
        "recommendations for gradient-based training, arXiv:1206.5533",
        tuple(panels), LARGE,
    )  # fmt: skip
    return picture, numbers


def _bowls() -> Picture:
    panels = []
    for factor in BOWL:
        path = bowl(factor)
        panels.append(
            line_chart(
                [Line("w", list(range(len(path))), path, 1, dots=True)], width=SMALL[0],
                height=SMALL[1], x_label="step", label=f"descent on a bowl, rate {factor}",
                title=f"η = {factor:g} / curvature", y_range=(-3.0, 3.0),
            )
        )  # fmt: skip
    return Picture(
        "lab-lr-bowl",
        "Why there is an edge: descent on a bowl",
        "On a parabola of curvature h a step multiplies the distance to the bottom by 1 - ηh. "
        "A small rate creeps, 1/h arrives in one step, between 1/h and 2/h it overshoots and still "
        "comes nearer, beyond 2/h every step leads further away. In a net the largest curvature of "
        "all directions sets the edge, the smallest sets how long it takes.",
        "f(w) = h w²/2,   wₜ₊₁ = (1 - ηh) wₜ;   converges where 0 < η < 2/h",
        "LeCun, Bottou, Orr and Müller 1998, Efficient backprop, section 4",
        tuple(panels), SMALL, columns=4,
    )  # fmt: skip


def _batches(rows: Rows, seed: int) -> tuple[Picture, dict[str, Any]]:
    found = {name: batch_curve(rows, size, lr=rate, seed=seed) for name, size, rate in SIZES}
    n = len(rows.x)
    per_step = {name: (size or n) / n for name, size, _ in SIZES}
    foot = min(min(c.losses) for c in found.values())
    top = max(max(c.losses) for c in found.values())
    w, h = LARGE
    panels = [
        line_chart(
            [c.line(name, colour, scale=per_step[name])
             for colour, (name, c) in enumerate(found.items(), 1)],
            width=w, height=h, x_label="epochs (rows seen)", label="loss against rows seen",
            title="the same work", log=True, y_range=(foot, top),
        ),
        line_chart(
            [Line(name, c.steps[1:], c.losses[1:], colour)
             for colour, (name, c) in enumerate(found.items(), 1)],
            width=w, height=h, x_label="steps", label="loss against steps", title="step by step",
            log=True, log_x=True, y_range=(foot, top),
        ),
    ]  # fmt: skip
    picture = Picture(
        "lab-lr-batches",
        "Full batch, mini-batch, stochastic",
        f"Plain descent for {EPOCHS} passes over {n} digits, with all rows in a step, 32, or one. "
        "For the same work the small batches are far ahead: they take many steps while the full "
        "batch takes one. Step by step it is the other way round, since a full gradient is exact "
        "and one row's is noisy and needs a smaller rate (here "
        + ", ".join(f"{name}: {number(rate)}" for name, _, rate in SIZES)
        + "). Mini-batches stand between, and a machine computes 32 rows in little more time than "
        "one.",
        "g = (1/B) Σᵢ ∂ℓᵢ/∂w over B rows drawn at random;   Var(g) ∝ 1/B",
        "Robbins and Monro 1951; Bottou, Curtis and Nocedal 2018, Optimization methods for "
        "large-scale machine learning, arXiv:1606.04838",
        tuple(panels), LARGE,
        keys=tuple((name, i) for i, (name, _, _) in enumerate(SIZES, 1)), columns=2,
    )  # fmt: skip
    return picture, {name: {"loss": c.last, "steps": c.steps[-1]} for name, c in found.items()}
