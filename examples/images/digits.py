"""The first run in Python: train on the embedded digits, look, predict, and load it again."""

from __future__ import annotations

import sys

import gipi

QUICK = "--quick" in sys.argv


def main() -> None:
    """Train, then use what was trained."""
    run = gipi.train("digits", epochs=2 if QUICK else None, seed=0)
    print(f"run folder:    {run.path}")
    for name, value in run.metrics.items():
        print(f"{name:<15}{value:.4f}")

    # The same rows of numbers that the report draws.
    losses = [row["train/loss"] for row in run.rows if "train/loss" in row]
    print(f"loss:          {losses[0]:.3f} at first, {losses[-1]:.3f} at last")

    # Answers for rows of the data, prepared as the training rows were.
    digits = gipi.open("digits")
    some = digits.splits["test"][:5]
    answers = run.predict(list(map(digits.picture, some)))
    for row, answer in zip(digits.raw(some), answers, strict=True):
        print(f"{row} -> {answer['label']} ({answer['probability']:.2f})")

    # Another process brings the run back by its folder.
    again = gipi.load(run.path)
    assert again.metrics == run.metrics


if __name__ == "__main__":
    main()
