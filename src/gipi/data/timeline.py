"""The time of a series: which column holds it, whether its rows are in order, and what is missing.

A series that is not regular is refused, with the rows that are at fault. `bad_rows=skip` and
`bad_rows=fill` sort it, and put an empty row in the place of every missing step.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from gipi.core.errors import DataError
from gipi.data.calendar import DAY, SECOND, Step, infer_step
from gipi.data.source import Annotations, ImageFiles, Source, is_missing
from gipi.data.sources.values import CLOCK_FORMATS, looks_like_date

if TYPE_CHECKING:
    from gipi.data.options import DataOptions
    from gipi.data.source import Column

COUNTED = ("date", "time", "datetime", "timestamp", "ds")
NAMES = ("date", "time", "datetime", "timestamp", "ds", "day", "month")
MOST_STEPS = 20  # steps put in for each row of the table, at most: beyond it the step is wrong
_ZONE = re.compile(r"\d(Z|[+-]\d{2}:?\d{2})$")
_MONTH = re.compile(r"\d{4}-(0[1-9]|1[0-2])")
_REPAIR = (
    "add them, or use --set bad_rows=skip (windows that touch a gap are left out) or "
    "--set bad_rows=fill (the last value goes on)"
)


@dataclass(frozen=True)
class Moments(Sequence[str]):
    """The dates of a regular series as text, also beyond its last row.

    first   of row 0
    months  written without a day, as in the table: "2024-01"
    """

    first: np.datetime64 | int
    step: Step
    rows: int
    months: bool = False

    def __len__(self) -> int:
        return self.rows

    @overload
    def __getitem__(self, row: int) -> str: ...
    @overload
    def __getitem__(self, row: slice) -> Sequence[str]: ...
    def __getitem__(self, row: int | slice) -> str | Sequence[str]:
        if isinstance(row, slice):
            return [self[i] for i in range(*row.indices(self.rows))]
        return self.texts(np.array([row]))[0]

    def texts(self, rows: np.ndarray) -> list[str]:
        """Return the dates of these rows: "2024-01-31", with the time of day where it is needed."""
        found = self.step.after(self.first, np.asarray(rows, dtype=np.int64))
        if found.dtype.kind != "M":
            return [("row " if self.step.unit == "row" else "") + str(v) for v in found.tolist()]
        if self.months:
            return [str(v) for v in found.astype("datetime64[M]")]
        day = self.step.unit != "us" or self.step.size % DAY == 0
        if day and (found == found.astype("datetime64[D]")).all():
            return [str(v) for v in found.astype("datetime64[D]")]
        exact = self.step.unit == "us" and self.step.size % SECOND
        return [
            str(v).replace("T", " ") for v in found.astype(f"datetime64[{'us' if exact else 's'}]")
        ]


@dataclass(frozen=True)
class Timeline:
    """Where the rows of a table lie in time.

    name    the column of time, None: rows are counted
    rows    (N,) int64 row of the table at each step, -1 where a step is missing
    """

    name: str | None
    step: Step
    moments: Moments
    rows: np.ndarray
    notes: tuple[str, ...] = ()


def where(source: Source, row: int) -> str:
    """Return the file and row of a table, "sales.csv row 17"."""
    name = source.row_name(row)
    file = source.origin.name if source.origin is not None else source.name
    return name if len(source.parts) > 1 or name.startswith(file) else f"{file} {name}"


def time_column(source: Source, options: DataOptions) -> str | None:
    """Return the column of time: the one asked for, else the first of dates, else by its name."""
    if options.time_column is not None:
        return options.time_column
    free = {n: c for n, c in source.columns.items() if options.overrides.get(n) != "ignored"}
    for name, column in free.items():
        if isinstance(column, np.ndarray) and column.ndim == 1 and column.dtype.kind == "M":
            return name
    for name, column in free.items():
        if is_months(column):
            return name
    for name, column in free.items():
        if name.lower() in NAMES and isinstance(column, np.ndarray) and column.dtype.kind == "O":
            return name
    for name, column in free.items():
        if name.lower() in COUNTED and _rises(column):
            return name
    return None


def _rises(column: Column) -> bool:
    """Return whether a column holds whole numbers, each above the one before: seconds, say."""
    if not isinstance(column, np.ndarray) or column.ndim != 1 or column.dtype.kind not in "iu":
        return False
    return len(column) > 2 and bool((column[1:] > column[:-1]).all())


def read_timeline(source: Source, options: DataOptions, *, step: Step | None = None) -> Timeline:
    """Return where the rows of `source` lie in time.

    step  that of training, where there was one

    Raises `DataError` naming file and row of a date that is missing, unreadable, repeated, out of
    order or between two steps, and of missing steps where `bad_rows` is "refuse".
    """
    name = time_column(source, options)
    if name is None:
        rows = np.arange(source.rows)
        note = "no column of dates: the rows are taken as equally spaced, in the order of the table"
        return Timeline(None, Step("row"), Moments(1, Step("row"), source.rows), rows, (note,))
    dates = _dates(source, name)
    order, notes = _in_order(source, name, dates, options)
    dates = dates[order]
    if len(dates) < 2:
        raise DataError(
            f"{source.name} has {len(dates)} row", "a series of many rows", "check the file"
        )
    found = infer_step(dates)
    if step is not None and found != step and step.places(dates).min() < 0:
        raise DataError(
            f"the rows of {source.name} are {found.words} apart",
            f"steps of {step.words}, as in training",
            "give a series with the same steps",
        )
    found = step or found
    places = found.places(dates)
    off = np.flatnonzero(places < 0)
    if len(off):
        row = int(order[off[0]])
        raise DataError(
            f"{where(source, row)}: '{name}' is {_said(dates[off[0]])}, between the steps of "
            f"{found.words} that most rows follow",
            "dates that are equally spaced",
            "correct the date, or bring the series to equal steps before",
        )
    rows = np.full(int(places[-1]) + 1 if places[-1] < MOST_STEPS * len(dates) else 0, -1)
    if len(rows):
        rows[places] = order
    lost = int(places[-1]) + 1 - len(places)
    if lost and (options.bad_rows == "refuse" or not len(rows)):
        raise _gap(source, name, dates, order, places, found)
    if lost:
        notes.append(f"{lost:,} missing steps of {found.words} ({_policy(options)})")
    moments = Moments(dates[0], found, len(rows), is_months(source.columns[name]))
    return Timeline(name, found, moments, rows, tuple(notes))


def regular(source: Source, line: Timeline) -> Source:
    """Return the source with one row a step, in order; rows that were missing are empty."""
    columns: dict[str, Column] = {}
    for name, column in source.columns.items():
        if isinstance(column, (ImageFiles, Annotations)):
            continue
        taken = column[np.maximum(line.rows, 0)]
        if (line.rows < 0).any():
            taken = _emptied(taken, line.rows < 0)
        columns[name] = taken
    if line.name is not None:
        columns[line.name] = line.step.after(line.moments.first, np.arange(len(line.rows)))
    given = source.given_split
    if given is not None:
        given = given[_held(line.rows)]
    names = line.moments
    return replace(source, columns=columns, rows=len(line.rows), row_names=names, given_split=given,
                   parts=())  # fmt: skip


def _held(rows: np.ndarray) -> np.ndarray:
    """Return `rows` with the last known one in the place of those that are missing."""
    last = np.maximum.accumulate(np.where(rows >= 0, np.arange(len(rows)), -1))
    return np.asarray(rows[last])


def _emptied(column: np.ndarray, lost: np.ndarray) -> np.ndarray:
    if column.dtype.kind in "iub":
        column = column.astype(np.float64)
    out = column.copy()
    out[lost] = {"M": np.datetime64("NaT"), "O": None}.get(column.dtype.kind, np.nan)
    return out


# ------------------------------------------------------------------ reading dates


def _dates(source: Source, name: str) -> np.ndarray:
    """Return the column of time as datetime64[us], or int64 for whole numbers."""
    column = source.columns.get(name)
    if not isinstance(column, np.ndarray) or column.ndim > 1:
        raise DataError(f"the time column '{name}' holds no dates", "dates", "name another column")
    if is_months(column):
        return column.astype("datetime64[M]").astype("datetime64[us]")
    if column.dtype.kind == "O":
        raise _unreadable(source, name, column)
    lost = np.flatnonzero(is_missing(column))
    if len(lost):
        raise DataError(
            f"{where(source, int(lost[0]))}: the time column '{name}' is empty"
            + (f" (and in {len(lost) - 1:,} more rows)" if len(lost) > 1 else ""),
            "a date in every row",
            "fill it in, or remove the row",
        )
    if column.dtype.kind == "M":
        return column.astype("datetime64[us]")
    fine = column.dtype.kind in "iu" or (column.dtype.kind == "f" and np.isfinite(column).all())
    whole: np.ndarray = column.astype(np.int64) if fine else np.zeros(len(column), np.int64)
    if not fine or (whole != column).any():
        raise DataError(
            f"the time column '{name}' holds numbers with fractions",
            "dates, or whole numbers that count the steps",
            "write the dates as 2024-01-31, or name another column with --time-column",
        )
    return whole


def is_months(column: Column) -> bool:
    """Return whether every value is a year and a month, such as 1949-01."""
    if not isinstance(column, np.ndarray) or column.ndim > 1 or column.dtype.kind != "O":
        return False
    return all(isinstance(v, str) and _MONTH.fullmatch(v) for v in column.tolist())


def _unreadable(source: Source, name: str, column: np.ndarray) -> DataError:
    """Say which row of a column of text is no date, by the form that most rows have."""
    texts = ["" if v is None else str(v) for v in column.tolist()]
    zones = [bool(_ZONE.search(t)) and ":" in t for t in texts]
    if any(zones) and not all(zones):
        few = sum(zones) * 2 <= len(zones)
        row = zones.index(few)
        return DataError(
            f"{where(source, row)}: '{name}' is {texts[row]!r}, "
            f"{'with' if few else 'without'} a time zone, unlike the other rows",
            "dates that all have a time zone, or none",
            "write all dates in UTC",
        )
    row = next((i for i, t in enumerate(texts) if not looks_like_date(t)), -1)
    if row < 0:
        row = _odd_one(texts)
    return DataError(
        f"{where(source, row)}: the time column '{name}' is {texts[row][:40]!r}"
        if texts[row] else f"{where(source, row)}: the time column '{name}' is empty",
        "a date in every row, such as 2024-01-31 or 2024-01-31 18:00",
        "correct it, or name another column with --time-column",
    )  # fmt: skip


def _odd_one(texts: list[str]) -> int:
    """Return the first row that does not have the form that most rows have."""

    def fits(text: str, form: str) -> bool:
        try:
            dt.datetime.fromisoformat(text) if not form else dt.datetime.strptime(text, form)  # noqa: DTZ007
        except ValueError:
            return False
        return True

    forms = ["", *(form for form, _ in CLOCK_FORMATS)]
    some = texts[:: max(1, len(texts) // 200)]
    best = max(forms, key=lambda form: sum(fits(t, form) for t in some))
    return next((i for i, t in enumerate(texts) if not fits(t, best)), 0)


# ------------------------------------------------------------------ order and gaps


def _in_order(
    source: Source, name: str, dates: np.ndarray, options: DataOptions
) -> tuple[np.ndarray, list[str]]:
    """Return the rows in the order of time, each date once, and what was done."""
    order = np.arange(len(dates))
    notes: list[str] = []
    back = np.flatnonzero(np.diff(dates) < np.zeros(1, dtype=np.diff(dates[:2]).dtype))
    if len(back) and options.bad_rows == "refuse":
        row = int(back[0]) + 1
        raise DataError(
            f"{where(source, row)}: '{name}' is {_said(dates[row])}, before the row above it "
            f"({_said(dates[row - 1])})" + _forms(source, name),
            "rows in the order of time",
            f"sort the table by '{name}', or use --set bad_rows=skip or fill, which sort it",
        )
    if len(back):
        order = np.argsort(dates, kind="stable")
        notes.append(f"{len(back):,} rows were earlier than the row above them: sorted by '{name}'")
    ordered = dates[order]
    again: np.ndarray = np.flatnonzero(ordered[1:] == ordered[:-1]) + 1
    if not len(again):
        return order, notes
    same = [_same(source, int(order[i]), int(order[i - 1])) for i in again]
    if options.bad_rows == "refuse" or not all(same):
        i = int(again[0] if options.bad_rows == "refuse" else again[same.index(False)])
        first, second = sorted((int(order[i - 1]), int(order[i])))
        summer = _summer(ordered[i])
        raise DataError(
            f"{where(source, second)}: '{name}' is {_said(ordered[i])}, as in "
            f"{source.row_name(first)}"
            + (f" ({len(again):,} repeated dates in all)" if len(again) > 1 else ""),
            "one row a date",
            summer or "keep one row of each date; give several series a column each",
        )
    notes.append(f"{len(again):,} rows repeat the row before them exactly: left out")
    return np.delete(order, again), notes


def _same(source: Source, a: int, b: int) -> bool:
    """Return whether two rows hold the same values, missing ones included."""
    for column in source.columns.values():
        if isinstance(column, np.ndarray):
            left, right = column[a], column[b]
            if not np.array_equal(left, right) and not (
                is_missing(column[[a]])[0] and is_missing(column[[b]])[0]
            ):
                return False
    return True


def _gap(
    source: Source, name: str, dates: np.ndarray, order: np.ndarray, places: np.ndarray, step: Step
) -> DataError:
    apart = np.diff(places)
    gaps = np.flatnonzero(apart > 1)
    at = int(gaps[0])
    missing, total = int(apart[at]) - 1, int((apart[gaps] - 1).sum())
    are = "step is" if missing == 1 else "steps are"
    more = f" ({len(gaps):,} gaps, {total:,} steps in all)" if len(gaps) > 1 else ""
    summer = _summer(dates[at + 1]) if missing * step.size == 3600 * SECOND else ""
    return DataError(
        f"{where(source, int(order[at + 1]))}: {missing:,} {are} missing between "
        f"{_said(dates[at])} and {_said(dates[at + 1])} in '{name}'{more}",
        f"a row for every step of {step.words}",
        summer or _REPAIR,
    )


def _summer(date: Any) -> str:
    """Return advice where an hour is lost or repeated as clocks are changed, else nothing."""
    if not isinstance(date, np.datetime64):
        return ""
    moment: dt.datetime = date.astype("datetime64[s]").item()
    if moment.weekday() != 6 or moment.month not in (3, 4, 9, 10, 11) or moment.hour > 4:
        return ""
    return "clocks change on such a Sunday: write the dates in UTC, where no hour is lost or twice"


def _forms(source: Source, name: str) -> str:
    """Return how the dates were read, where day and month could be the other way round."""
    note = next((n for n in source.notes if n.startswith(f"column '{name}': dates read as ")), "")
    return f"; {note.partition(': ')[2]}" if note else ""


def _policy(options: DataOptions) -> str:
    return (
        "bad_rows=fill: the last value goes on" if options.bad_rows == "fill"
        else "bad_rows=skip: windows that touch them are left out"
    )  # fmt: skip


def _said(date: Any) -> str:
    if not isinstance(date, np.datetime64):
        return str(date)
    text = str(date.astype("datetime64[s]")).replace("T", " ")
    return text.removesuffix(" 00:00:00")
