"""Vector to sequence: three numbers say what a wave is like, the net draws it step by step."""

from __future__ import annotations

import math
import sys

import torch

import gipi
from gipi import models
from gipi.core.schema import Signature

QUICK = "--quick" in sys.argv
STEPS = 24


def waves(rows: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return (height, frequency, phase) of each row, (B, 3), and its wave (B, T)."""
    v = torch.rand(rows, 3, generator=torch.Generator().manual_seed(rows))
    t = torch.linspace(0, 1, STEPS)
    angle = 2 * math.pi * ((0.5 + v[:, 1:2]) * t + v[:, 2:])
    return 2 * v - 1, (0.5 + v[:, :1]) * angle.sin()


def squared_error(outputs: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Return the mean squared error of each row, (B,)."""
    return (outputs[..., 0] - target).square().mean(1)


def main() -> None:
    """Train a GRU whose first state is made of the vector."""
    net = models.build(
        "gru", Signature(numbers=3, length=STEPS),
        options={"topology": "vector-to-sequence", "width": 48},
    )  # fmt: skip
    recipe = gipi.Recipe(epochs=10 if QUICK else 60, lr=0.01, batch_size=64, clip_norm=1.0)
    gipi.fit(net, squared_error, waves(2000), recipe)
    v, wave = waves(300)
    with torch.no_grad():
        drawn = net.eval()(v)[..., 0]
    print(f"error {float((drawn - wave).square().mean()):.4f}, spread {float(wave.var()):.4f}")
    for line in (wave[0], drawn[0]):
        print(" ".join(f"{value:+.1f}" for value in line.tolist()))


if __name__ == "__main__":
    main()
