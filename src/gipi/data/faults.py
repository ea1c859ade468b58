"""Rows that cannot be used: each has a reason; all together they are refused, or left out and said.

A picture may be corrupt, empty or a decompression bomb; an annotation may be missing, of another
size, of an unknown class, outside the picture or turned inside out. All of them are found while the
data is opened, in every stream mode, so that no run meets them in its middle.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gipi.core.errors import ConfigError, DataError
from gipi.data.source import ImageFiles

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gipi.data.options import DataOptions
    from gipi.data.source import Source

POLICIES = ("refuse", "skip")
SHOWN = 5


def settle(faults: Mapping[int, str], source: Source, options: DataOptions) -> list[str]:
    """Return notes about rows that are left out; raise `DataError` where they are refused.

    faults   row id -> what is wrong with it
    """
    if options.bad_rows not in POLICIES:
        raise ConfigError(
            f"bad_rows={options.bad_rows!r}", "refuse or skip", "bad_rows=skip leaves rows out"
        )
    if not faults:
        return []
    said = listing(faults, source)
    file = source.origin is not None and source.origin.is_file()
    place = source.origin.name if file and source.origin is not None else source.name
    if len(faults) == source.rows:
        raise DataError(
            f"none of the {source.rows:,} rows of {place} can be used: {said}",
            "rows that can be used", "correct the data",
        )  # fmt: skip
    what = "1 row" if len(faults) == 1 else f"{len(faults):,} rows"
    if options.bad_rows == "refuse":
        raise DataError(
            f"{what} of {source.rows:,} in {place} cannot be used: {said}",
            "rows that can all be read",
            "correct or remove them, or leave them out with --set bad_rows=skip",
        )
    return [f"{what} of {source.rows:,} left out (bad_rows=skip): {said}"]


def called(source: Source, row: int) -> str:
    """Return the name of a row, with that of its picture where a table names the row by number."""
    name = source.row_name(row)
    files = (c for c in source.columns.values() if isinstance(c, ImageFiles))
    pictures = [file for file in (c.name(row) for c in files) if file not in name]
    return f"{name} ({', '.join(pictures)})" if pictures else name


def listing(faults: Mapping[int, str], source: Source, *, shown: int = SHOWN) -> str:
    """Return the first faulty rows by name with their reasons, and how many more there are."""
    first = [f"{called(source, row)}: {faults[row]}" for row in sorted(faults)[:shown]]
    more = len(faults) - len(first)
    return "; ".join(first) + (f"; and {more:,} more" if more else "")
