"""Universal approximation: one hidden layer follows a function the better the wider it is."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from gipi import losses, models
from gipi.core.schema import Signature
from gipi.core.svg import Line, line_chart, number
from gipi.study.lab_charts import LARGE
from gipi.study.lab_net import descend
from gipi.study.lab_page import Picture

if TYPE_CHECKING:
    from torch import Tensor

WIDTHS = (1, 2, 4, 8, 16, 32)
SHOWN = (1, 2, 4, 8, 32)
POINTS = 161


def target(x: Tensor) -> Tensor:
    """Return the function to be followed: a wave whose frequency grows, and a kink."""
    return torch.sin(x * x) * 0.8 + (x - 0.5).abs() * 0.3 - 0.4


def fit_width(
    width: int, *, steps: int = 20, tries: int = 2, seed: int = 0
) -> tuple[float, list[float]]:
    """Return the root mean squared error of the best of some fits, and its answers.

    A net 1-width-1 with tanh, fitted to all points at once by L-BFGS, which finds the best weights
    of so small a net sooner than a first-order method.
    """
    x = torch.linspace(-math.pi, math.pi, POINTS)[:, None]
    y = target(x)
    best = (math.inf, [0.0] * POINTS)
    for attempt in range(tries):
        model = models.build(
            "mlp", Signature(numbers=1, outputs=1), seed=seed * 1000 + attempt,
            options={"widths": [width], "activation": "tanh", "numbers": "plain"},
        )  # fmt: skip
        generator = torch.Generator().manual_seed(seed * 1000 + attempt)
        with torch.no_grad():  # bends spread over the axis instead of all at 0
            for name, p in model.named_parameters():
                if name.endswith("bias") and len(p) == width and "head" not in name:
                    p.uniform_(-3, 3, generator=generator)
        curve = descend(
            model, (x, y), optimizer="lbfgs", lr=1.0, steps=steps, every=steps, loss=losses.mse
        )
        if curve.last < best[0]:
            with torch.no_grad():
                best = (curve.last, model(x)[:, 0].tolist())
    return math.sqrt(best[0]), best[1]


def width_picture(seed: int = 0) -> tuple[Picture, dict[str, float]]:
    """Return the picture of fits of growing width, and the error of each."""
    x = torch.linspace(-math.pi, math.pi, POINTS)
    wanted = target(x).tolist()
    found = {width: fit_width(width, seed=seed) for width in WIDTHS}
    at, (w, h) = x.tolist(), LARGE
    panels = []
    for width in SHOWN:
        error, answers = found[width]
        panels.append(
            line_chart(
                [Line("function", at, wanted, 2, dashed=True), Line("net", at, answers, 1)],
                width=w, height=h, x_label="x", label=f"a net of {width} units",
                title=f"{width} unit{'s' * (width > 1)}, error {number(error, 2)}",
                y_range=(-1.8, 1.8),
            )
        )  # fmt: skip
    panels.append(
        line_chart(
            [Line("error", list(WIDTHS), [found[n][0] for n in WIDTHS], 1, dots=True)],
            width=w, height=h, x_label="hidden units", label="error against width", log=True,
            log_x=True, title="root mean squared error",
        )
    )  # fmt: skip
    picture = Picture(
        "lab-width",
        "A net approximates a function as its width grows",
        "One hidden layer of tanh units, fitted to the dashed function. Each unit adds one bend "
        "that can be moved, stretched and turned over, so one unit makes a step, two a bump, and "
        "enough of them any continuous shape. The theorem says that such weights exist for any "
        "wanted precision; it says neither how many units it takes nor that descent finds them.",
        "f̂(x) = Σᵢ aᵢ tanh(wᵢ x + bᵢ) + c,   i = 1 ... width",
        "Cybenko 1989, Approximation by superpositions of a sigmoidal function; Hornik, "
        "Stinchcombe and White 1989, Multilayer feedforward networks are universal approximators",
        tuple(panels), LARGE, keys=(("net", 1), ("function", 2)),
    )  # fmt: skip
    return picture, {str(n): found[n][0] for n in WIDTHS}
