"""How far a series is forecast, how far a model looks back, and after how long it repeats itself.

What is not asked for is chosen, and said: the season by the step of the dates (by the
autocorrelation where there are none), the horizon as one season, the lookback as some horizons.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from gipi.core.errors import DataError
from gipi.data.windows import Geometry

if TYPE_CHECKING:
    from gipi.data.calendar import Step
    from gipi.data.options import DataOptions

AHEAD = 10  # steps of a series without a season
HORIZONS = 4  # that a model looks back, where nothing is asked for
REPEATS = 0.3  # autocorrelation from which a lag is called a season


def choose_geometry(
    values: np.ndarray, step: Step, options: DataOptions, *, usual: int, train: int, name: str
) -> tuple[Geometry, list[str]]:
    """Return the lengths of a window and, for people, where each is from.

    values  (N, F) of the regular series;  train  steps to train on
    usual   horizon that this data is known for, 0: none

    Raises `DataError` where the training steps hold no window of the lengths asked for.
    """
    season, words = step.season
    if step.unit in ("row", "count"):
        season = _repeats(values[: max(train // 2, 2)])
        words = "by its autocorrelation" if season > 1 else ""
    why = f"{words}, steps of {step.words}" if step.unit != "row" else words
    if options.season is not None:
        season, why = options.season, "as asked"
    if 2 * season > train:
        season, why = 1, f"{train} training steps show no season of {season}"
    said = [f"season {season} ({why})" if season > 1 else f"no season is known ({why or 'none'})"]
    horizon = options.horizon or usual or (season if season > 1 else AHEAD)
    if options.horizon is None:
        why = f"usual for {name}" if usual else "one season" if season > 1 else "a usual number"
        said.append(f"horizon {horizon} ({why}; horizon=N changes it)")
    lookback = options.lookback
    if lookback is None:
        wanted = max(HORIZONS * horizon, 2 * season)
        lookback = max(1, min(wanted, (train - horizon) // 2))
        short = "what the training steps allow" if lookback < wanted else f"{HORIZONS} horizons"
        if lookback == 2 * season > HORIZONS * horizon:
            short = "two seasons"
        said.append(f"lookback {lookback} ({short}; lookback=N changes it)")
    if train < lookback + horizon:
        raise DataError(
            f"{name} has {train:,} steps to train on; lookback={lookback} and horizon={horizon} "
            f"need {lookback + horizon:,}",
            "at least one whole window before what is held back",
            f"use lookback={train - horizon} or less, a smaller horizon, or more steps"
            if train > horizon
            else f"use a horizon below {max(train, 2)}, or more steps",
        )
    return Geometry(lookback, horizon, season, step), said


def _repeats(values: np.ndarray) -> int:
    """Return the lag of the highest peak of the mean autocorrelation of the differences, or 1."""
    moves = np.diff(np.nan_to_num(values, nan=0.0), axis=0)
    n = len(moves)
    if n < 12:
        return 1
    moves = moves - moves.mean(0)
    power = np.abs(np.fft.rfft(moves, 2 * n, axis=0)) ** 2
    found = np.fft.irfft(power, axis=0)[: n // 3 + 1]
    level = (found / np.maximum(found[0], 1e-300)).mean(1)
    inner = level[2:-1]
    peaks: np.ndarray = (
        np.flatnonzero((inner > level[1:-2]) & (inner >= level[3:]) & (inner > REPEATS)) + 2
    )
    return int(peaks[level[peaks].argmax()]) if len(peaks) else 1
