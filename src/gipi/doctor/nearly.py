"""Rows that are copies but for a little: a jitter, a picture that was saved again, a row number.

Shapes: n rows, p features.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gipi.doctor.order import ascending
from gipi.doctor.sheet import cpu, origin, sheet
from gipi.doctor.twins import Copies, copies

if TYPE_CHECKING:
    from gipi.doctor.facts import Facts

LEAST = 200
MEASURED, FEW = 0.5, 4
"""Different values of a column that is measured, as a share of the rows, and such columns that are
needed: rows of one kind in all others are near by nature."""
GAP = 5.0
"""Times farther that the next row is beyond a gap; distances that were measured have none."""
FIRST = 100
"""Rows whose nearest one is looked for first."""
SHARE = 0.15, 0.98
"""Share of the rows whose nearest one is on the near side."""


def unnumbered(X: Any) -> Any:
    """Return a table without the columns that number its rows; what else there is as it is."""
    if not isinstance(X, Tensor) or X.ndim != 2 or X.shape[1] < 2 or len(X) < LEAST:
        return X
    moved = cpu(X).double().diff(dim=0)
    numbers = (moved > 0).all(0) | (moved < 0).all(0)
    return X if bool(numbers.all()) else X[:, ~numbers.to(X.device)]


def without_numbers(facts: Facts) -> Copies | None:
    """Return the equal rows of a table but for columns that number its rows; None without those."""
    X = origin(facts).X
    bare = unnumbered(X)
    return None if X is None or bare.shape == X.shape else copies(cpu(bare))


def share_of_near(facts: Facts) -> float:
    """Return the share of rows that nearly repeat another, by a gap in the nearest distances; or 0.

    No distance within the gap: d₍ᵢ₊₁₎ ≥ 5 d₍ᵢ₎ of the ascending nearest distances.
    """
    train, X = sheet(facts), origin(facts).X
    if train is None or X is None or len(train.F) < LEAST or facts.inputs not in ("table", "image"):
        return 0.0
    x = torch.nan_to_num(cpu(X)[train.rows].double()).flatten(1)
    x = _measured(x)
    if x.shape[1] < FEW:
        return 0.0
    if facts.inputs == "table":  # of pictures a place that says nothing counts as little as it says
        x = (x - x.mean(0)) / x.std(0).clamp_min(1e-9)
    some = torch.arange(min(len(x), FIRST)) * len(x) // min(len(x), FIRST)
    far = torch.cdist(x[some], x)
    far[torch.arange(len(some)), some] = torch.inf
    if not _near_side(far.min(1).values, SHARE[0] / 2):  # before all are looked for
        return 0.0
    return _near_side((x - x[train.near[:, 0]]).norm(dim=1), SHARE[0])


def _near_side(nearest: Tensor, least: float) -> float:
    """Return the share of distances on the near side of a gap; or 0."""
    nearest = ascending(nearest[None])[0]
    if float(nearest[0]) <= 0:
        return 0.0
    low, high = (round(s * len(nearest)) for s in (least, SHARE[1]))
    ratio = nearest[low + 1 : high] / nearest[low : high - 1]
    most = int(ratio.argmax())
    return (low + most + 1) / len(nearest) if float(ratio[most]) >= GAP else 0.0


def _measured(x_np: Tensor) -> Tensor:
    """Return the columns that hardly ever repeat a value."""
    different = (ascending(x_np.T.contiguous()).diff(dim=1) != 0).sum(1) + 1
    return x_np[:, different > MEASURED * len(x_np)]
