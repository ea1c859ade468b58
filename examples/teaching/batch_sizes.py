"""Full-batch, mini-batch and stochastic descent are one thing with three sizes.

The same number of passes over the data: few exact steps, or many noisy ones.
"""

from __future__ import annotations

import sys
import time

import gipi

QUICK = "--quick" in sys.argv


def main() -> None:
    """Train the linear model on the breast-cancer table with three batch sizes."""
    epochs = 3 if QUICK else 30
    print("batch size   steps   seconds   val loss   test accuracy")
    for batch_size in ("full", 64, 8 if QUICK else 1):
        began = time.perf_counter()
        run = gipi.train(
            "breast-cancer", model="linear", epochs=epochs, batch_size=batch_size, lr=0.02, seed=0,
            settings={"optimizer": "sgd", "schedule": "constant"}, quiet=True,
        )  # fmt: skip
        seconds = time.perf_counter() - began
        loss, score = run.metrics["val/loss"], run.metrics["test/accuracy"]
        steps = run.result["steps"]
        print(f"{batch_size!s:>10}{steps:>8}{seconds:>10.1f}{loss:>11.3f}{score:>16.3f}")


if __name__ == "__main__":
    main()
