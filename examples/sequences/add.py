"""Sequence to vector: the sum of the two marked numbers of a long row, wherever they stand.

The adding problem of Hochreiter and Schmidhuber 1997. Who answers 1 every time errs by 0.167.
"""

from __future__ import annotations

import sys

import torch

import gipi
from gipi import models
from gipi.core.schema import Signature

QUICK = "--quick" in sys.argv
STEPS = 30 if QUICK else 60


def marked_numbers(rows: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return rows (B, T, 2) of random numbers and marks, and the sums of the marked (B,)."""
    generator = torch.Generator().manual_seed(rows)
    x = torch.rand(rows, STEPS, 2, generator=generator)
    x[..., 1] = 0.0
    for half in (0, STEPS // 2):
        place = torch.randint(half, half + STEPS // 2, (rows,), generator=generator)
        x[torch.arange(rows), place, 1] = 1.0
    return x, (x[..., 0] * x[..., 1]).sum(1)


def squared_error(outputs: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Return the error of each row, (B,)."""
    return (outputs[:, 0] - target).square()


def main() -> None:
    """Train an LSTM on it, and, where there is time, a net of simple cells beside it."""
    for name in ("lstm",) if QUICK else ("lstm", "rnn"):
        net = models.build(name, Signature(numbers=2, length=STEPS), options={"width": 32})
        gipi.fit(
            net, squared_error, marked_numbers(6000 if QUICK else 20000),
            gipi.Recipe(epochs=6 if QUICK else 8, lr=0.01, batch_size=64, clip_norm=1.0),
        )  # fmt: skip
        x, y = marked_numbers(500)
        with torch.no_grad():
            print(f"{name}: error {float(squared_error(net.eval()(x), y).mean()):.4f}")


if __name__ == "__main__":
    main()
