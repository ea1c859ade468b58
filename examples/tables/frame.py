"""Columns of mixed kinds with missing values: numbers, categories, dates; new rows as dictionaries.

A pandas or polars frame, or the path of a CSV or Parquet file, is given in the same place.
"""

from __future__ import annotations

import sys

import numpy as np

import gipi

QUICK = "--quick" in sys.argv


def flats(rows: int) -> dict[str, list[object]]:
    """Return invented flats: the rent depends on the area, the district and the balcony."""
    generator = np.random.default_rng(0)
    area = generator.uniform(20, 120, rows)
    district = generator.choice(["north", "south", "harbour", "old town"], rows)
    factor = {"north": 9.0, "south": 11.0, "harbour": 13.0, "old town": 16.0}
    balcony = generator.random(rows) < 0.4
    rent = [
        area[i] * factor[str(district[i])] + 80 * balcony[i] + generator.normal(0, 30)
        for i in range(rows)
    ]
    unknown = generator.random(rows) < 0.05
    return {
        "area": [None if unknown[i] else round(float(area[i]), 1) for i in range(rows)],
        "district": [str(d) for d in district],
        "balcony": ["yes" if b else "no" for b in balcony],
        "rent": [round(float(r)) for r in rent],
    }


def main() -> None:
    """Look at what was inferred, train, and ask about two flats."""
    table = flats(600 if QUICK else 4000)
    for field in gipi.open(table, "rent").schema.fields:
        print(f"{field.name:<10}{field.kind:<10}{field.role:<8}{field.reason}")

    run = gipi.train(table, "rent", epochs=8 if QUICK else 40, seed=0)
    print({name: round(value, 2) for name, value in run.metrics.items()})

    new = {"area": [55.0, None], "district": ["harbour", "a new one"], "balcony": ["yes", "no"]}
    for row, answer in zip(new["district"], run.predict(new), strict=True):
        print(f"{row}: {answer['rent']:.0f}")


if __name__ == "__main__":
    main()
