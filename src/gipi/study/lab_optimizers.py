"""Optimizers: loss curves on the same net, and paths on a surface with minima and saddles."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from gipi import models
from gipi.core.schema import Signature
from gipi.core.svg import line_chart, number
from gipi.optim import OPTIMIZERS, build_optimizer
from gipi.study.lab_charts import LARGE, SMALL, surface
from gipi.study.lab_net import Curve, Rows, descend, digits
from gipi.study.lab_page import Experiment, Picture

if TYPE_CHECKING:
    from gipi.core.registry import Record

FACTORS = (0.3, 1.0, 3.0, 10.0, 30.0)
"""Learning rates tried on the net, in multiples of the record's own first guess."""

RATES = (0.003, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
"""Learning rates tried on the surface."""

SPAN = (-2.05, 2.05, -1.15, 1.15)
LEVELS = (-1.0, -0.8, -0.5, -0.2, 0.0, 0.2, 0.6, 1.2, 2.0, 3.0, 4.5)
MINIMA = ((0.0898, -0.7126), (-0.0898, 0.7126))
STARTS = ((1e-4, 1e-5), (-1.85, 0.95), (1.95, -0.2))
"""Beside the saddle at (0, 0); above a local minimum on either side."""

STEPS = 100
LEFT = -0.5
"""Height below which the saddle, of height 0, has been left."""


def camel(x: float, y: float) -> float:
    """Return the six-hump camel: two global minima of -1.0316, four local ones, a saddle at 0.

    f(x, y) = (4 - 2.1 x² + x⁴/3) x² + x y + (4 y² - 4) y². Dixon and Szegő 1978.

    >>> round(camel(0.0898, -0.7126), 4), camel(0.0, 0.0)
    (-1.0316, 0.0)
    """
    return (4 - 2.1 * x * x + x**4 / 3) * x * x + x * y + (4 * y * y - 4) * y * y


class Point(nn.Module):
    """A point of the plane as the parameter of a model; its output is the height there."""

    def __init__(self, start: tuple[float, float]) -> None:
        super().__init__()
        self.xy = nn.Parameter(torch.tensor(start, dtype=torch.float64))

    def forward(self) -> torch.Tensor:
        """Return the camel's height, a scalar."""
        x, y = self.xy
        height: torch.Tensor = (4 - 2.1 * x**2 + x**4 / 3) * x**2 + x * y + (4 * y**2 - 4) * y**2
        return height


@dataclass(frozen=True)
class Walk:
    """A path on the surface: the points, and the height of the last one."""

    points: list[tuple[float, float]]
    height: float


def walk(optimizer: str, start: tuple[float, float], *, lr: float, steps: int = STEPS) -> Walk:
    """Return the path of an optimizer on the camel; it ends where a value is not finite."""
    point = Point(start)
    stepper = build_optimizer(optimizer, point, lr=lr)
    points = [start]
    for _ in range(steps):
        stepper.zero_grad()
        point().backward()
        stepper.step()
        x, y = point.xy.tolist()
        if not (math.isfinite(x) and math.isfinite(y) and abs(x) + abs(y) < 1e3):
            return Walk(points, math.inf)
        points.append((x, y))
    return Walk(points, camel(*points[-1]))


def best_walks(optimizer: str, *, steps: int = STEPS) -> tuple[float, list[Walk]]:
    """Return the learning rate of `RATES` whose walks are lowest on average, and these walks.

    The average is over all points of all walks; a rate that leads one out of the picture is out.
    """
    found = []
    for lr in RATES:
        walks = [walk(optimizer, start, lr=lr, steps=steps) for start in STARTS]
        found.append((sum(_mean_height(w) for w in walks), lr, walks))
    _, lr, walks = min(found, key=lambda f: (f[0], f[1]))
    return lr, walks


def _mean_height(walk: Walk) -> float:
    """Return the mean height along a walk, infinite where it leaves the picture."""
    inside = all(SPAN[0] <= x <= SPAN[1] and SPAN[2] <= y <= SPAN[3] for x, y in walk.points)
    if not inside or not math.isfinite(walk.height):
        return math.inf
    return sum(camel(x, y) for x, y in walk.points) / len(walk.points)


def steps_to_leave(walk: Walk, level: float = LEFT) -> int | None:
    """Return the first step whose height is below `level`; None where there is none."""
    return next((i for i, (x, y) in enumerate(walk.points) if camel(x, y) < level), None)


def net_curve(record: Record, rows: Rows, *, lr: float, steps: int, seed: int) -> Curve:
    """Return the training loss of the common net under one optimizer."""
    model = models.build(
        "mlp", Signature(image=(1, 8, 8), outputs=10), seed=seed, options={"widths": [32]}
    )
    return descend(
        model, (rows.x, rows.y), optimizer=record.name, lr=lr, steps=steps, batch_size=64,
        seed=seed, every=max(steps // 40, 1),
    )  # fmt: skip


def best_curve(record: Record, rows: Rows, *, steps: int, seed: int) -> tuple[float, Curve]:
    """Return the learning rate whose training loss ends lowest, and its curve."""
    found = []
    for factor in FACTORS:
        lr = record.facts["lr"] * factor
        curve = net_curve(record, rows, lr=lr, steps=steps, seed=seed)
        found.append((curve.last if math.isfinite(curve.last) else math.inf, lr, curve))
    _, lr, curve = min(found, key=lambda f: (f[0], f[1]))
    return lr, curve


def first_order() -> list[Record]:
    """Return the optimizers that need one gradient a step: all but those with a closure."""
    return [r for r in OPTIMIZERS if "closure" not in r.tags]


def _left_out() -> list[str]:
    drawn = {r.name for r in first_order()}
    return [name for name in OPTIMIZERS.names() if name not in drawn]


def optimizers(seed: int = 0, *, steps: int = 160) -> Experiment:
    """Draw the loss of every first-order optimizer on one net, and its paths on the camel."""
    rows = digits(seed)
    curves = {r.name: best_curve(r, rows, steps=steps, seed=seed) for r in first_order()}
    top = max(c.losses[0] for _, c in curves.values())
    foot = min(min(c.losses) for _, c in curves.values())
    panels = []
    for name, (lr, curve) in curves.items():
        ghosts = [c.line(n, 0) for n, (_, c) in curves.items() if n != name]
        panels.append(
            line_chart(
                [*ghosts, curve.line(name, 1)], width=SMALL[0], height=SMALL[1], x_label="step",
                label=f"training loss under {name}", title=f"{name}, lr {number(lr)}", log=True,
                y_range=(foot, top),
            )
        )  # fmt: skip
    numbers: dict[str, Any] = {
        "net": {n: {"lr": lr, "loss": c.last} for n, (lr, c) in curves.items()}
    }
    order = sorted(curves, key=lambda n: curves[n][1].last)
    ranking = ", ".join(f"{n} {number(curves[n][1].last, 2)}" for n in order)
    picture = Picture(
        "lab-optimizers",
        "The same net under every optimizer",
        "Training loss of one small net (64-32-10, digits, 64 rows a step), from the same initial "
        "weights and in the same order of rows; behind each curve all the others. Each optimizer "
        f"has the best of {len(FACTORS)} learning rates around its usual one, chosen by the "
        "training loss, since a common rate would compare the rates and not the methods. Loss at "
        f"the end, from the lowest: {ranking}. Not here: {', '.join(_left_out())}, which needs all "
        "rows and several gradients a step. On so small a net much of the order is luck of the "
        "rates; what stays is that momentum or a scale for each weight saves steps over plain "
        "descent, which is why one of them is the default.",
        "sgd: w ← w - η g;   momentum: v ← μv + g, w ← w - ηv;   adam: w ← w - η m̂ / (√v̂ + ε)",
        "Robbins and Monro 1951; Polyak 1964; Kingma and Ba 2015, arXiv:1412.6980; the others: "
        "gipi show NAME",
        tuple(panels), SMALL, columns=4,
    )  # fmt: skip
    paths, numbers["surface"] = _surface_picture()
    return Experiment("optimizers", "Optimizers", (picture, paths), numbers)


def _surface_picture() -> tuple[Picture, dict[str, Any]]:
    panels, numbers = [], {}
    waits = []
    for record in first_order():
        if record.name == "muon":  # its own half needs a matrix; a point would show AdamW again
            continue
        lr, walks = best_walks(record.name)
        numbers[record.name] = {
            "lr": lr,
            "ends": [w.points[-1] for w in walks],
            "heights": [w.height for w in walks],
            "steps_to_leave_the_saddle": steps_to_leave(walks[0]),
        }
        waits.append(f"{record.name} {steps_to_leave(walks[0]) or f'over {STEPS}'}")
        panels.append(
            surface(
                camel, span=SPAN, levels=LEVELS, stars=MINIMA,
                paths=[(colour, w.points) for colour, w in zip((1, 2, 3), walks, strict=True)],
                title=f"{record.name}, lr {number(lr)}", size=LARGE,
            )
        )  # fmt: skip
    picture = Picture(
        "lab-optimizers-surface",
        "Paths on a surface with local minima and a saddle",
        f"{STEPS} steps on the six-hump camel; rings are the starts, dots the ends, stars the two "
        "global minima. The first start lies beside the saddle in the middle, where the gradient "
        f"is almost zero. Steps until the height is below {LEFT:g}: " + ", ".join(waits)
        + ". The other two "
        "start above local minima: whether a path ends there or rolls on depends on the size of "
        "its steps and on its momentum. Each optimizer has the one rate, of "
        f"{len(RATES)}, whose paths are lowest on average; Muon is not here, it needs a matrix.",
        "f(x, y) = (4 - 2.1x² + x⁴/3) x² + xy + (4y² - 4) y²",
        "Dixon and Szegő 1978, The global optimization problem; Dauphin et al. 2014, Identifying "
        "and attacking the saddle point problem, arXiv:1406.2572",
        tuple(panels), LARGE, keys=(("from the saddle", 1), ("from the left", 2),
                                    ("from the right", 3)),
    )  # fmt: skip
    return picture, numbers
