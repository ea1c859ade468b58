"""A regression that predicts its own uncertainty: the Gaussian negative log-likelihood.

The noise of the data grows with x; a mean alone cannot say so.
"""

from __future__ import annotations

import sys

import numpy as np

import gipi
from gipi import tasks

QUICK = "--quick" in sys.argv


def main() -> None:
    """Train a model with two outputs, mean and spread, and compare its spread with the true one."""
    generator = np.random.default_rng(0)
    x = generator.uniform(0, 1, (1000 if QUICK else 6000, 1))
    noise = 0.05 + 0.5 * x[:, 0]
    y = np.sin(6 * x[:, 0]) + noise * generator.standard_normal(len(x))

    run = gipi.train(
        (x, y), model="mlp", task=tasks.regress(loss="gaussian_nll"),
        epochs=10 if QUICK else 40, seed=0,
    )  # fmt: skip
    print({name: round(value, 3) for name, value in run.metrics.items()})

    at = np.linspace(0.05, 0.95, 7)[:, None]
    print("   x   mean   spread   true spread")
    for place, answer in zip(at[:, 0], run.predict(at), strict=True):
        true = 0.05 + 0.5 * place
        print(f"{place:.2f}  {answer['y']:+.2f}    {answer['std']:.2f}     {true:.2f}")


if __name__ == "__main__":
    main()
