"""The work of the law of equivalence: a small net, ragged batches, row weights.

Run as a script under torchrun it trains with the ranks it finds and saves the weights (rank 0):
    torchrun --nproc-per-node 2 equivalence_work.py OUT.pt net dtype weighted plant
"""

from __future__ import annotations

import sys

import torch
from torch import nn

from gipi import tasks
from gipi.core import dist
from gipi.core.config import Recipe
from gipi.core.device import pick_device
from gipi.core.schema import Field, Schema
from gipi.data.stream import Columns, RowStream
from gipi.train import Setup, fit

ROWS, BATCH, STEPS = 203, 32, 50
SCHEMA = Schema((Field("y", "category", "target", classes=tuple("abcd")),))
DTYPES = {"float64": torch.float64, "float32": torch.float32}


def net(kind: str, dtype: torch.dtype) -> nn.Module:
    """Return an MLP or a small convolutional net with weights from one seed."""
    torch.manual_seed(3)
    if kind == "mlp":
        layers = [nn.Linear(12, 24), nn.Tanh(), nn.LayerNorm(24), nn.Linear(24, 4)]
    else:
        layers = [
            nn.Unflatten(1, (1, 3, 4)), nn.Conv2d(1, 5, 3, padding=1), nn.ReLU(),
            nn.GroupNorm(1, 5), nn.Flatten(), nn.Linear(60, 4),
        ]  # fmt: skip
    return nn.Sequential(*layers).to(dtype)


def train(
    kind: str,
    dtype: str,
    *,
    weighted: bool,
    micro: int | None = None,
    rank: int = 0,
    world: int = 1,
    optimizer: str = "sgd",
    clip: float | None = None,
) -> torch.Tensor:
    """Train 50 steps and return all weights as one vector."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(ROWS, 12, generator=generator, dtype=DTYPES[dtype])
    y = torch.randint(0, 4, (ROWS,), generator=generator)
    w = torch.rand(ROWS, generator=generator, dtype=DTYPES[dtype]) * 3 if weighted else None
    import numpy as np

    stream = RowStream(
        Columns({"numbers": x}, y, w), np.arange(ROWS), batch_size=BATCH, seed=5,
        rank=rank, world=world,
    )  # fmt: skip
    model = net(kind, DTYPES[dtype])
    recipe = Recipe(
        steps=STEPS, optimizer=optimizer, lr=0.05, schedule="cosine", micro_batch=micro,
        clip_norm=clip, l2=1e-3,
    )  # fmt: skip
    fit(model, tasks.classify(), stream, recipe, schema=SCHEMA, setup=Setup(), device="cpu")
    return torch.cat([p.detach().double().reshape(-1) for p in model.parameters()])


def main() -> None:
    """Train as one of several ranks."""
    out, kind, dtype, weighted, plant, micro = sys.argv[1:7]
    dist.start(pick_device("cpu"))
    if plant == "1":  # the bug: each rank divides by its own count

        def own(value: torch.Tensor) -> torch.Tensor:
            return value.mul_(dist.world())

        dist.sum_over_ranks = own
    vector = train(
        kind, dtype, weighted=weighted == "1", rank=dist.rank(), world=dist.world(),
        micro=int(micro) or None,
    )  # fmt: skip
    if dist.rank() == 0:
        torch.save(vector, out)
    dist.stop()


if __name__ == "__main__":
    main()
