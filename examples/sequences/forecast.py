"""The next day of an hourly series: windows, naive rules as floors, an answer with its dates.

A CSV file with a column of dates is given in the same place.
"""

from __future__ import annotations

import sys

import numpy as np

import gipi

QUICK = "--quick" in sys.argv


def station(hours: int) -> dict[str, np.ndarray]:
    """Return an invented station: a day and a week in its load, and a temperature that follows."""
    draw, t = np.random.default_rng(0), np.arange(hours)
    day, week = np.sin(2 * np.pi * t / 24), np.sin(2 * np.pi * t / 168)
    load = 60 + 15 * day + 8 * week + draw.normal(0, 2, hours)
    return {
        "time": (np.datetime64("2024-01-01T00", "h") + t).astype("datetime64[us]"),
        "load": load,
        "temperature": 20 + 0.2 * load + draw.normal(0, 1, hours),
    }


def main() -> None:
    """Train on the load and the temperature, compare with the rules, and look ahead."""
    table = station(1500 if QUICK else 8000)
    run = gipi.train(
        table, task="forecast", model="dlinear", epochs=3 if QUICK else 10, seed=0,
        settings={"horizon": 24, "lookback": 168},
    )  # fmt: skip
    print({name: round(value, 3) for name, value in run.metrics.items()})
    for rule, score in run.result["baselines"]["test/mse"].items():
        print(f"where {rule}: {score:.3f}")

    for step in list(run.predict(table))[:6]:
        print(step["time"], {k: round(v, 1) for k, v in step.items() if k != "time"})


if __name__ == "__main__":
    main()
