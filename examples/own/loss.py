"""Your own loss: a function of outputs and target that answers with one value per row.

Per row, because then it can be divided by the rows of the whole step: any micro-batch gives the
same weights, and a column of row weights is honoured.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import numpy as np
from torch import nn

import gipi
from gipi import tasks

if TYPE_CHECKING:
    from torch import Tensor

QUICK = "--quick" in sys.argv
SHARE = 0.9


def pinball(outputs: Tensor, target: Tensor) -> Tensor:
    """Return the quantile loss of each row: its minimum is the 90 % quantile (Koenker 1978)."""
    error = target.reshape(-1) - outputs.reshape(-1)
    return (SHARE * error).maximum((SHARE - 1) * error)


def main() -> None:
    """Learn the value below which nine in ten targets lie."""
    generator = np.random.default_rng(0)
    x = generator.uniform(-1, 1, (1000 if QUICK else 5000, 2)).astype(np.float32)
    y = (x[:, 0] + generator.exponential(0.5, len(x))).astype(np.float32)

    data = gipi.open((x, y), settings={"task": "regress"})
    net = nn.Sequential(nn.Linear(2, 32), nn.ReLU(), nn.Linear(32, 1))
    state = gipi.fit(
        net,
        tasks.custom(pinball, row_separable=True),
        data.stream("train", batch_size=64),
        gipi.Recipe(epochs=10 if QUICK else 40, lr=5e-3, batch_size=64, micro_batch=16),
    )
    below, rows = 0, 0
    for batch in data.stream("test", batch_size=256).epoch(0):
        below += int((batch.target.reshape(-1) < net(*batch.inputs.values()).reshape(-1)).sum())
        rows += len(batch)
    print(f"{state.step} steps; {below / rows:.2f} of the test rows lie below the answer")


if __name__ == "__main__":
    main()
