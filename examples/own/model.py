"""Your own model: any `nn.Module` whose `forward` takes the inputs of the data in order."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from torch import nn

import gipi

if TYPE_CHECKING:
    from torch import Tensor

QUICK = "--quick" in sys.argv


class Mixer(nn.Module):
    """Mix the rows of a picture, then its columns (after Tolstikhin et al. 2021)."""

    def __init__(self, side: int, width: int, classes: int) -> None:
        super().__init__()
        self.enter = nn.Linear(side, width)
        self.down = nn.Sequential(nn.Linear(side, 4 * side), nn.GELU(), nn.Linear(4 * side, side))
        self.across = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), nn.GELU())
        self.head = nn.Linear(width, classes)

    def forward(self, image: Tensor) -> Tensor:
        """Return (B, classes) from pictures (B, 1, side, side)."""
        x = self.enter(image.squeeze(1))
        x = x + self.down(x.transpose(1, 2)).transpose(1, 2)
        x = x + self.across(x)
        out: Tensor = self.head(x.mean(1))
        return out


def main() -> None:
    """Train it as if it had a name."""
    net = Mixer(side=8, width=48, classes=10)
    run = gipi.train("digits", model=net, epochs=3 if QUICK else 40, lr=3e-3, seed=0)
    print({name: round(value, 3) for name, value in run.metrics.items()})
    print(f"{sum(p.numel() for p in net.parameters())} parameters")


if __name__ == "__main__":
    main()
