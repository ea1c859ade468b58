"""Numbers that stand for "unknown": -999 among ages, 1e20 among temperatures.

Scaling by the training rows hides them from the net, but it still reads them as quantities, and
a column's mean and spread are those of the code.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from gipi.data.source import is_missing

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gipi.core.schema import Schema
    from gipi.data.source import Source

CODES = frozenset(
    (-99.0, -999.0, -9999.0, -99999.0, 99.0, 999.0, 9999.0, 99999.0, 999999.0, 1e10, -1e10, 1e20,
     -1e20, 1e30, -1e30)
)  # fmt: skip
"""What people write for "unknown" where a file has no empty cells."""
FEWEST, SHARE, MOST = 5, 0.01, 0.9
"""Rows, and shares of the rows, within which a code is one."""
DISTINCT = 10
"""Other values, at least: of few, as of labels, any may lie apart."""
SPREADS, REACH = 3.0, 0.5
"""Distance to the nearest other value, in interquartile ranges of the others and in ranges that
hold 99 % of them: tails do not end in a gap."""


@dataclass(frozen=True)
class StandIn:
    """A code in a column, and the rows that hold it."""

    column: str
    value: float
    rows: int
    share: float

    def __str__(self) -> str:
        return (
            f"'{self.column}' is {self.value:g} in {self.rows} rows ({self.share:.1%}), far from "
            "all its other values: it seems to mean 'unknown', and is read as a quantity"
        )

    @property
    def do(self) -> str:
        """What a person does about it."""
        return f"leave these cells empty: na_values={{'{self.column}': {self.value:g}}} in pandas"


def stand_ins(source: Source, schema: Schema, rows: np.ndarray) -> Iterator[StandIn]:
    """Yield the codes in the columns of numbers that are inputs, as `rows` show them."""
    for f in schema.of("input", "number"):
        column = source.columns[f.name]
        if not isinstance(column, np.ndarray) or column.ndim > 1 or column.dtype.kind not in "iuf":
            continue
        column = column[rows]
        values = column[~is_missing(column)].astype(np.float64)
        code = code_of(values)
        if code is not None:
            count = int((values == code).sum())
            yield StandIn(f.name, code, count, count / max(1, len(rows)))


def code_of(values: np.ndarray) -> float | None:
    """Return the lowest or highest value where it is a code for "unknown", else None.

    >>> ages = np.r_[np.linspace(18, 80, 60), [-999] * 6]
    >>> code_of(ages), code_of(ages[:60])
    (-999.0, None)
    """
    values = values[np.isfinite(values)]
    for end in (values.min(), values.max()) if len(values) else ():
        there = values == end
        often = max(FEWEST, SHARE * len(values)) <= there.sum() <= MOST * len(values)
        if float(end) not in CODES or not often:
            continue
        others = values[~there]
        if len(np.unique(others)) < DISTINCT:
            continue
        low, q1, q3, high = np.quantile(others, (0.005, 0.25, 0.75, 0.995))
        gap = np.abs(others - end).min()
        if gap >= SPREADS * (q3 - q1) and gap >= REACH * (high - low) > 0:
            return float(end)
    return None
