"""Your own torch Dataset: items (x, y), here made on the fly.

A few items are asked for twice: as they stay the same, the data is read once into columns and is
then like any other. One with random items goes to `gipi.fit` as a stream of its own.
"""

from __future__ import annotations

import sys

import torch
from torch.utils.data import Dataset

import gipi

QUICK = "--quick" in sys.argv


class Parity(Dataset[tuple[torch.Tensor, int]]):
    """All numbers of `bits` bits, and whether an odd number of their bits is set."""

    def __init__(self, bits: int) -> None:
        self.bits = bits

    def __len__(self) -> int:
        return 1 << self.bits

    def __getitem__(self, i: int) -> tuple[torch.Tensor, int]:
        if i >= len(self):
            raise IndexError(i)
        digits = torch.tensor([(i >> k) & 1 for k in range(self.bits)], dtype=torch.float32)
        return digits, int(digits.sum()) % 2


def main() -> None:
    """Train a small net on it."""
    run = gipi.train(
        Parity(8 if QUICK else 11), model="mlp", epochs=3 if QUICK else 60, batch_size=64, seed=0
    )
    print({name: round(value, 3) for name, value in run.metrics.items()})


if __name__ == "__main__":
    main()
