"""The step of a series: how far apart its rows are, and what date comes next.

Hours and days are a fixed number of microseconds; months are not, and the days of an exchange leave
out weekends. A series without dates is counted in rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

Unit = Literal["us", "month", "weekday", "count", "row"]

SECOND, DAY = 1_000_000, 86_400_000_000
_UNITS = ((7 * DAY, "week"), (DAY, "day"), (3600 * SECOND, "hour"), (60 * SECOND, "minute"),
          (SECOND, "second"), (1000, "millisecond"), (1, "microsecond"))  # fmt: skip
_MONTH = 28 * DAY  # no month is shorter


@dataclass(frozen=True)
class Step:
    """One step of a series: `size` times a unit.

    unit  "us" (microseconds), "month", "weekday" (Monday to Friday), "count" (a column of whole
          numbers) or "row" (no column of time at all)
    day   of the month, where some of the dates alone are the last of theirs; 0: that of a date
    """

    unit: Unit
    size: int = 1
    day: int = 0

    @property
    def words(self) -> str:
        """The step as people say it.

        >>> Step("us", 900_000_000).words, Step("month", 12).words, Step("weekday").words
        ('15 minutes', '1 year', '1 weekday')
        """
        size, name = self.size, str(self.unit)
        if self.unit == "us":
            unit, name = next((u, n) for u, n in _UNITS if size % u == 0)
            size //= unit
        elif self.unit == "month" and size % 12 == 0:
            size, name = size // 12, "year"
        return f"{size} {name}{'s' * (size != 1)}"

    @property
    def season(self) -> tuple[int, str]:
        """Steps of the usual season and its name; (1, "") where none is usual.

        Steps of less than a day: a day. Days: a week. Weeks, months, quarters: a year.

        >>> Step("us", 3_600_000_000).season, Step("month", 3).season
        ((24, 'a day'), (4, 'a year'))
        """
        if self.unit == "weekday":
            return (5, "a week") if self.size == 1 else (1, "")
        if self.unit == "month":
            return (
                (12 // self.size, "a year") if 12 % self.size == 0 and self.size < 12 else (1, "")
            )
        if self.unit != "us":
            return 1, ""
        if self.size == 7 * DAY:
            return 52, "a year"
        for length, name in ((DAY, "a day"), (7 * DAY, "a week")):
            if self.size < length and length % self.size == 0:
                return length // self.size, name
        return 1, ""

    def places(self, dates: np.ndarray) -> np.ndarray:
        """Return (N,) int64 steps from the first of ascending `dates`; -1 for one between steps."""
        if self.unit == "row":
            return np.arange(len(dates))
        if self.unit in ("us", "count"):
            far = (dates - dates[0]).astype(np.int64)
            return np.where(far % self.size == 0, far // self.size, -1)
        if self.unit == "weekday":
            days = dates.astype("datetime64[D]")
            far = np.busday_count(days[0], days)
            fits = (
                np.is_busday(days) & (_clock(dates) == _clock(dates[:1])) & (far % self.size == 0)
            )
            return np.where(fits, far // self.size, -1)
        far = (_months(dates) - _months(dates[:1])).astype(np.int64)
        same = _clock(dates) == _clock(dates[:1])
        days = (_day(dates) == _day(dates[:1])) | (_last_day(dates) & _last_day(dates[:1]))
        return np.where(same & days & (far % self.size == 0), far // self.size, -1)

    def after(self, date: np.datetime64 | int, steps: np.ndarray) -> np.ndarray:
        """Return the dates `steps` (n,) int64 after `date`; the last day of a month stays the last.

        Unless the step has a day of its own, such as the 30th.

        >>> Step("month").after(np.datetime64("2024-01-31", "us"), np.array([1, 2])).astype("M8[D]")
        array(['2024-02-29', '2024-03-31'], dtype='datetime64[D]')
        """
        far = steps * self.size
        if self.unit in ("count", "row"):
            return np.asarray(int(date) + far)
        moment = np.array([date], dtype="datetime64[us]")
        if self.unit == "us":
            return np.asarray(moment + far.astype("timedelta64[us]"))
        if self.unit == "weekday":
            days = np.busday_offset(moment.astype("datetime64[D]"), far, roll="forward")
            return np.asarray(days.astype("datetime64[us]") + _clock(moment))
        months = _months(moment) + far.astype("timedelta64[M]")
        length = ((months + 1).astype("datetime64[D]") - months.astype("datetime64[D]")).astype(int)
        last = _last_day(moment) & (self.day == 0)
        day = np.where(last, length, np.minimum(self.day or _day(moment), length))
        first = months.astype("datetime64[D]")
        return np.asarray((first + (day - 1)).astype("datetime64[us]") + _clock(moment))


def _months(dates: np.ndarray) -> np.ndarray:
    return dates.astype("datetime64[M]")


def _day(dates: np.ndarray) -> np.ndarray:
    days = dates.astype("datetime64[D]") - _months(dates).astype("datetime64[D]")
    return np.asarray(days.astype(np.int64) + 1)


def _last_day(dates: np.ndarray) -> np.ndarray:
    days = dates.astype("datetime64[D]")
    return np.asarray((days + 1).astype("datetime64[M]") > days.astype("datetime64[M]"))


def _clock(dates: np.ndarray) -> np.ndarray:
    """Return the time of day as timedelta64."""
    return np.asarray(dates - dates.astype("datetime64[D]"))


def infer_step(dates: np.ndarray) -> Step:
    """Return the step that most of the ascending `dates` (datetime64[us] or whole numbers) follow.

    Months where the days of the month agree, weekdays where weekends alone are left out, else the
    commonest distance (the shortest of equally common ones).
    """
    far = np.diff(dates).astype(np.int64)
    lengths, counts = np.unique(far, return_counts=True)
    common = int(lengths[counts.argmax()])
    if dates.dtype.kind != "M":
        return Step("count", common)
    month = _monthly(dates)
    if month is not None and int(np.median(far)) >= _MONTH:
        return month
    if len(lengths) > 1 and common == DAY and _weekdays(dates, far):
        return Step("weekday")
    return Step("us", common)


def _monthly(dates: np.ndarray) -> Step | None:
    if len(np.unique(_clock(dates))) > 1:
        return None
    if len(np.unique(_day(dates))) > 1 and not _last_day(dates).all():
        return None
    apart, counts = np.unique(np.diff(_months(dates)).astype(np.int64), return_counts=True)
    size, ends = int(apart[counts.argmax()]), _last_day(dates)
    day = int(_day(dates)[0]) if ends.any() and not ends.all() else 0
    return Step("month", size, day) if size > 0 else None


def _weekdays(dates: np.ndarray, far: np.ndarray) -> bool:
    """Return whether no date is a Saturday or Sunday, and most Fridays are followed by Mondays."""
    if not np.is_busday(dates.astype("datetime64[D]")).all():
        return False
    fridays = np.is_busday(dates.astype("datetime64[D]"), weekmask="Fri")[:-1]
    return bool(fridays.any()) and float((far[fridays] == 3 * DAY).mean()) > 0.5
