"""Time of one optimizer step: torch's own against the bound one, over four and over sixty tensors.

    python benchmarks/speed/optimizer_step.py

prints microseconds (best of seven runs of 400 steps, the two taken in turn) as a table.
"""

from __future__ import annotations

import platform
import time
from typing import TYPE_CHECKING

import torch
from torch import nn

from gipi import optim

if TYPE_CHECKING:
    from collections.abc import Callable

STEPS, ROUNDS = 400, 7
NAMES = ("sgd", "momentum", "nesterov", "adam", "adamw")


def net(tensors: int) -> nn.Module:
    """Return layers of 64 units with `tensors` parameters, gradients filled in."""
    model = nn.Sequential(*(nn.Linear(64, 64) for _ in range(tensors // 2)))
    for p in model.parameters():
        p.grad = torch.randn_like(p)
    return model


def microseconds(step: Callable[[], object]) -> float:
    """Return the mean time of a step."""
    begin = time.perf_counter()
    for _ in range(STEPS):
        step()
    return (time.perf_counter() - begin) / STEPS * 1e6


def main() -> None:
    """Measure and print."""
    torch.set_num_threads(1)
    print(f"torch {torch.__version__}, {platform.processor() or platform.machine()}, one thread")
    print("| optimizer | tensors | torch, µs | bound, µs | ratio |")
    print("|---|--:|--:|--:|--:|")
    for name in NAMES:
        for tensors in (4, 60):
            theirs = optim.build_optimizer(name, net(tensors), lr=1e-3)
            bound = optim.bind(optim.build_optimizer(name, net(tensors), lr=1e-3))
            times = [
                (microseconds(theirs.step), microseconds(lambda: bound(1e-3, None, None)))  # noqa: B023
                for _ in range(ROUNDS)
            ]
            a, b = (min(column) for column in zip(*times, strict=True))
            print(f"| {name} | {tensors} | {a:.1f} | {b:.1f} | {a / b:.1f} |")


if __name__ == "__main__":
    main()
