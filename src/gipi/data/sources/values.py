"""What single values mean: marks for "missing", dates, and Python objects of mixed types."""

from __future__ import annotations

import datetime as dt
import json
import math
import re
from typing import Any

import numpy as np

MISSING = [
    "", "NA", "N/A", "n/a", "#N/A", "#NA", "<NA>", "nan", "NaN", "NAN", "-nan", "-NaN", "null",
    "NULL", "Null", "?",
]  # fmt: skip
WEAK_MISSING = [".", "-", "--", "none", "None", "NONE", "na", "missing", "unknown", "n.a."]
"""Marks that count as missing only in a column whose other values are all numbers."""

CLOCK_FORMATS = [
    ("%m/%d/%Y", "month/day/year"),
    ("%d/%m/%Y", "day/month/year"),
    ("%m/%d/%Y %H:%M", "month/day/year hour:minute"),
    ("%d/%m/%Y %H:%M", "day/month/year hour:minute"),
    ("%m/%d/%Y %H:%M:%S", "month/day/year hour:minute:second"),
    ("%d/%m/%Y %H:%M:%S", "day/month/year hour:minute:second"),
    ("%d.%m.%Y", "day.month.year"),
    ("%d.%m.%Y %H:%M", "day.month.year hour:minute"),
    ("%d.%m.%Y %H:%M:%S", "day.month.year hour:minute:second"),
    ("%d-%m-%Y", "day-month-year"),
    ("%Y/%m/%d", "year/month/day"),
    ("%Y/%m/%d %H:%M:%S", "year/month/day hour:minute:second"),
    ("%Y/%m/%d %H:%M", "year/month/day hour:minute"),
    ("%Y.%m.%d", "year.month.day"),
    ("%d %b %Y", "day month year"),
    ("%d-%b-%Y", "day-month-year"),
    ("%b %d, %Y", "month day, year"),
    ("%d %B %Y", "day month year"),
    ("%B %d, %Y", "month day, year"),
]
"""Formats tried after ISO 8601, the first that fits all rows wins."""

_DATE = re.compile(
    r"^(\d{4}[-/.]\d{1,2}[-/.]\d{1,2}|\d{1,2}[-/.]\d{1,2}[-/.]\d{4}"
    r"|\d{1,2}[ -][A-Za-z]{3,9}[ -]\d{4}|[A-Za-z]{3,9} \d{1,2}, \d{4})([T ]\d{1,2}:\d{2}.*|Z)?$"
)


def looks_like_date(text: str) -> bool:
    """Return whether a string has the shape of a date, with or without a time of day.

    >>> looks_like_date("2016-07-01 00:00:00"), looks_like_date("01/02/2020"), looks_like_date("7")
    (True, True, False)
    """
    return _DATE.match(text) is not None


def _is_missing(value: Any) -> bool:
    """None, NaN, NaT and the missing marks of frames (which compare unequal to themselves)."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return True
    if isinstance(value, np.datetime64):
        return bool(np.isnat(value))
    return type(value).__name__ in ("NAType", "NaTType")


def tidy_objects(values: list[Any]) -> tuple[np.ndarray, list[str]]:
    """Return Python objects as one typed column, and notes on what was mixed.

    All bools, all whole numbers, all numbers, all dates and all number lists of one length get
    their own dtype; anything else becomes text, nested values as JSON.
    """
    present = [v for v in values if not _is_missing(v)]
    complete = len(present) == len(values)
    if not present:
        return np.full(len(values), None, dtype=object), []
    if all(isinstance(v, bool | np.bool_) for v in present) and complete:
        return np.array(values, dtype=bool), []
    if all(_is_number(v) for v in present):
        whole = complete and all(isinstance(v, int | np.integer) for v in present)
        if whole and all(-(2**63) <= int(v) < 2**63 for v in present):
            return np.array([int(v) for v in values], dtype=np.int64), []
        return np.array([np.nan if _is_missing(v) else float(v) for v in values]), []
    if all(isinstance(v, dt.date | np.datetime64) for v in present):
        moments = [None if _is_missing(v) else _moment(v) for v in values]
        return np.array(moments, dtype="datetime64[us]"), []
    if all(isinstance(v, dt.timedelta) for v in present):
        seconds = [np.nan if _is_missing(v) else v.total_seconds() for v in values]
        return np.array(seconds), ["durations read as seconds"]
    vectors = _vectors(values, present)
    if vectors is not None:
        return vectors, []
    text = [None if _is_missing(v) else _text(v) for v in values]
    out = np.empty(len(values), dtype=object)
    out[:] = [t or None for t in text]
    kinds = sorted({type(v).__name__ for v in present})
    return out, [f"mixed values ({', '.join(kinds)}) read as text"] if len(kinds) > 1 else []


def _is_number(value: Any) -> bool:
    if isinstance(value, bool | np.bool_):
        return False
    return isinstance(value, int | float | np.number) or type(value).__name__ == "Decimal"


def _moment(value: Any) -> np.datetime64:
    if isinstance(value, dt.datetime) and value.tzinfo is not None:
        value = value.astimezone(dt.UTC).replace(tzinfo=None)
    return np.datetime64(value, "us")


def _vectors(values: list[Any], present: list[Any]) -> np.ndarray | None:
    first = present[0]
    if len(present) < len(values) or not isinstance(first, list | tuple | np.ndarray):
        return None
    if not all(isinstance(v, list | tuple | np.ndarray) and len(v) == len(first) for v in present):
        return None
    try:
        stacked = np.array(values, dtype=np.float64)
    except (TypeError, ValueError):
        return None
    return stacked if stacked.ndim == 2 else None


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, dict | list | tuple):
        return json.dumps(value, ensure_ascii=False, default=str)
    if isinstance(value, bytes):
        return value.decode(errors="replace").strip()
    return str(value)
