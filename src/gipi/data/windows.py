"""Windows of a series: rows that are cut out of one table of values when they are needed.

Row t of such a data set is the moment between steps t-1 and t: its input are the `lookback` steps
before t, its target the `horizon` steps from t on. The values of all steps lie in memory once; a
batch gathers its windows by their number, each as one contiguous piece of memory.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from gipi.data.buffers import Ring
from gipi.data.calendar import Step

if TYPE_CHECKING:
    from torch import Tensor

    from gipi.core.schema import Schema

KEY = "windows"
"""Under which the stats of the first target hold the geometry."""


@dataclass(frozen=True)
class Geometry:
    """What a window is, and how the series was made regular.

    lookback, horizon  steps that the model sees, and steps ahead
    season             steps after which the series repeats itself; 1: none is known
    step               how far apart the steps are
    policy             `bad_rows` of training: refuse, skip or fill
    """

    lookback: int
    horizon: int
    season: int
    step: Step
    policy: str = "refuse"

    def to_dict(self) -> dict[str, Any]:
        """Return the geometry as JSON-able values."""
        return asdict(self)


def geometry_of(schema: Schema) -> Geometry:
    """Return the geometry that a fitted schema of a series holds."""
    assert schema.target is not None
    found = dict(schema.target.stats[KEY])
    return Geometry(**{**found, "step": Step(**found["step"])})


@dataclass(frozen=True)
class Windows:
    """A column of windows: row t is values[t + first : t + first + length].

    values  (N, F) float32, contiguous, standardised; NaN only where no row of a split looks
    """

    values: Tensor
    first: int
    length: int

    @property
    def shape(self) -> tuple[int, int]:
        """Steps and series of one window."""
        return self.length, int(self.values.shape[1])

    def row_bytes(self) -> int:
        """Return the bytes of one window."""
        return self.length * self.values.shape[1] * self.values.element_size()

    def table(self, values: Tensor) -> Tensor:
        """Return a view (N - length + 1, length * F) of which each row is a window; no copy."""
        n, width = values.shape
        rows = max(n - self.length + 1, 0)
        return values.as_strided((rows, self.length * width), (width, 1))

    def fetch(self, rows: np.ndarray) -> Tensor:
        """Return (n, length, F) copies of these windows."""
        at = torch.from_numpy(np.asarray(rows, dtype=np.int64)) + self.first
        return self.table(self.values).index_select(0, at).view(len(at), *self.shape)


class WindowGather:
    """The windows of one split, gathered on the device."""

    depth = 0

    def __init__(
        self, windows: Windows, ids: Tensor, *, chunk_rows: int, device: torch.device
    ) -> None:
        self.shape = windows.shape
        self.table = windows.table(windows.values.to(device))
        self.at = ids.to(device) + windows.first
        self.ring = Ring(chunk_rows, self.table[:0].clone())

    def start(self, chunk: Any) -> Tensor:
        """Return the positions of a chunk: nothing is begun ahead."""
        positions: Tensor = chunk.positions
        return positions

    def finish(self, begun: Tensor) -> Tensor:
        """Return (n, length, F) of the rows at these positions of the split."""
        at = self.at.index_select(0, begun)
        out = self.ring.lend(len(at))
        return torch.index_select(self.table, 0, at, out=out).view(len(at), *self.shape)


def naive(values: np.ndarray, rows: np.ndarray, *, horizon: int, season: int) -> np.ndarray:
    """Return (n, horizon, F): the values of one season before, over and over; season 1: the last.

        ŷ(t + h) = y(t - season + h mod season),  h = 0 .. horizon - 1

    values  (N, F); where the season before is not known, the last value stands in
    """
    ahead: np.ndarray = np.arange(horizon) % season
    at = rows[:, None] - season + ahead
    last = values[rows - 1][:, None, :]
    found = np.where((at >= 0)[..., None], values[np.maximum(at, 0)], last)
    return np.asarray(np.where(np.isnan(found), last, found))
