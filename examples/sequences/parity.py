"""Sequence to sequence, aligned: after every bit, whether an odd number of ones was seen so far.

Rows have different lengths. Padding reaches nothing, and its targets are left out of the loss.
"""

from __future__ import annotations

import sys

import torch
from torch.nn import functional as F

import gipi
from gipi import models
from gipi.core.schema import Signature

QUICK = "--quick" in sys.argv
PAD, ZERO, ONE, LONGEST, IGNORED = 0, 1, 2, 16, -100


def bits(rows: int, longest: int = LONGEST) -> tuple[torch.Tensor, torch.Tensor]:
    """Return tokens (B, T) of rows of random length, and the parity so far (B, T)."""
    generator = torch.Generator().manual_seed(rows)
    x = torch.randint(ZERO, ONE + 1, (rows, longest), generator=generator)
    lengths = torch.randint(1, longest + 1, (rows, 1), generator=generator)
    inside = torch.arange(longest) < lengths
    parity = (x == ONE).cumsum(1) % 2
    return x.where(inside, PAD), parity.where(inside, IGNORED)


def loss(scores: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Return the mean cross-entropy of each row's own steps, (B,)."""
    each = F.cross_entropy(scores.transpose(1, 2), target, ignore_index=IGNORED, reduction="none")
    return each.sum(1) / (target != IGNORED).sum(1)


def main() -> None:
    """Train a GRU that reads from left to right, then give it rows four times as long."""
    net = models.build(
        "gru", Signature(vocab=3, length=LONGEST, pad=PAD, outputs=2),
        options={"topology": "sequence-to-sequence", "bidirectional": False, "width": 24},
    )  # fmt: skip
    recipe = gipi.Recipe(epochs=6 if QUICK else 20, lr=0.02, batch_size=64, clip_norm=1.0)
    gipi.fit(net, loss, bits(4000), recipe)
    net.eval()
    for longest in (LONGEST, 4 * LONGEST):
        x, y = bits(500, longest)
        with torch.no_grad():
            right = (net(x).argmax(2) == y)[y != IGNORED].float().mean()
        print(f"rows of up to {longest} bits: {float(right):.3f} of the answers are right")


if __name__ == "__main__":
    main()
