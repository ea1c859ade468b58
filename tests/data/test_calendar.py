"""The step of a series: inferred, counted in places, and continued."""

from __future__ import annotations

import numpy as np
import pytest

from gipi.data.calendar import DAY, SECOND, Step, infer_step


def dates(*texts: str) -> np.ndarray:
    return np.array(texts, dtype="datetime64[us]")


def span(first: str, last: str, unit: str) -> np.ndarray:
    return np.arange(first, last, dtype=f"datetime64[{unit}]").astype("datetime64[us]")


WEEKDAYS = span("2024-01-01", "2024-04-01", "D")
WEEKDAYS = WEEKDAYS[np.is_busday(WEEKDAYS.astype("datetime64[D]"))]
CASES = [
    (span("2024-01-01T00", "2024-01-09T00", "h"), Step("us", 3600 * SECOND), "1 hour", 24),
    (span("2024-01-01", "2024-03-01", "D"), Step("us", DAY), "1 day", 7),
    (span("2024-01-01", "2024-09-01", "D")[::7], Step("us", 7 * DAY), "1 week", 52),
    (span("2024-01-01T00:00", "2024-01-02T00:00", "m")[::15], Step("us", 900 * SECOND),
     "15 minutes", 96),
    (span("2019-01", "2024-01", "M"), Step("month"), "1 month", 12),
    (span("2019-01", "2024-01", "M")[::3], Step("month", 3), "3 months", 4),
    (span("2000", "2024", "Y"), Step("month", 12), "1 year", 1),
    (WEEKDAYS, Step("weekday"), "1 weekday", 5),
    (np.arange(5, 50, 3), Step("count", 3), "3 counts", 1),
]  # fmt: skip


@pytest.mark.parametrize(("times", "step", "words", "season"), CASES, ids=lambda v: str(v)[:20])
def test_a_regular_series_is_known_counted_and_continued(times, step, words, season):
    found = infer_step(times)
    assert (found, found.words, found.season[0]) == (step, words, season)
    assert found.places(times).tolist() == list(range(len(times)))
    half = len(times) // 2
    ahead = found.after(times[half - 1], np.arange(1, len(times) - half + 1))
    assert (ahead == times[half:]).all()


@pytest.mark.parametrize(
    ("times", "step"), [(c[0], c[1]) for c in CASES], ids=lambda v: str(v)[:20]
)
def test_a_gap_is_a_place_that_no_row_has(times, step):
    holed = np.delete(times, [3, 4, 9])
    assert infer_step(holed) == step
    assert np.setdiff1d(np.arange(len(times)), step.places(holed)).tolist() == [3, 4, 9]


def test_ends_of_months_stay_ends():
    ends = dates("2023-11-30", "2023-12-31", "2024-01-31", "2024-02-29", "2024-03-31")
    step = infer_step(ends)
    assert step == Step("month")
    assert step.places(ends).tolist() == [0, 1, 2, 3, 4]
    assert (step.after(ends[0], np.arange(5)) == ends).all()


def test_a_day_that_is_the_last_of_some_months_stays_that_day():
    thirtieth = dates("2024-04-30", "2024-05-30", "2024-06-30", "2024-07-30")
    step = infer_step(thirtieth)
    assert step == Step("month", 1, 30)
    assert step.places(thirtieth).tolist() == [0, 1, 2, 3]
    assert (step.after(thirtieth[0], np.arange(4)) == thirtieth).all()
    assert step.after(thirtieth[0], np.array([10])) == dates("2025-02-28")


def test_a_time_of_day_is_kept():
    noon = span("2019-01", "2020-01", "M") + np.timedelta64(12, "h")
    assert (infer_step(noon).after(noon[0], np.arange(12)) == noon).all()


def test_a_date_between_steps_has_no_place():
    hours = CASES[0][0].copy()
    hours[7] += np.timedelta64(30, "m")
    assert infer_step(hours).places(hours)[7] == -1
    months = CASES[4][0].copy()
    months[5] += np.timedelta64(1, "D")
    assert Step("month").places(months)[5] == -1
    days = WEEKDAYS.copy()
    days[4] += np.timedelta64(1, "D")  # a Saturday
    assert Step("weekday").places(days)[4] == -1
