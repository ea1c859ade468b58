"""How nearly a column of a table is the target: by its values, its labels, or by being there."""

from __future__ import annotations

import torch
from torch import Tensor

from gipi.doctor.order import ascending
from gipi.metrics.shares import wilson

FLAG = 0.95
"""Explained share from which on a column marks classes by few values, some of which may be wrong,
or by stretches of values that lie far apart."""
WRONG, QUANTILE = 0.01, 1.645
"""Share of wrong marks up to which such a column is a leak and no good test, and the quantile of
the normal distribution by which it must be sure: 95 %, of one side."""

TWICE = 10.0
"""Pairs of rows that would be equal by chance, n² / 2R of n rows and R numbers, from which on
numbers that are all different were given one by one."""
NEAR, HALF = 0.1, 0.5
"""How far a step is off a whole one, of steps; changes of class that are one row amiss."""
PARTS_CLASSES = 0.1
"""Share of a column's variance that lies between classes, at the least, where each is a stretch."""


def told_by_one(x_nd: Tensor, Y_nk: Tensor, label: Tensor | None) -> Tensor:
    """Return for each column how nearly it is the target: (d,).

    Numbers: the squared correlation, of values or of ranks: columns may have been bent when they
    were prepared. Classes: the share
    of the column's variance that lies between classes, where each class is told apart by it; a
    column that parts classes widely but is spread within them is a good feature and no copy.
    """
    x = x_nd - x_nd.mean(0)
    total = x.square().sum(0)
    live = total > 0
    if label is None:
        by_rank = torch.where(live[:, None], _ranks(x_nd).T, 0.0).T
        return torch.maximum(_squared(x, Y_nk), _squared(by_rank, _ranks(Y_nk)))
    groups = Y_nk.T @ x  # (k, d)
    counts = Y_nk.sum(0).clamp_min(1)
    between = (groups.square() / counts[:, None]).sum(0)
    share = between / total.clamp_min(1e-30)
    # Every class must have a place of its own: a column that parts one class from the rest is not
    # the target of many classes.
    means = (groups / counts[:, None]).sort(0).values
    within = ((total - between).clamp_min(0) / len(x)).sqrt()
    apart = means.diff(dim=0).min(0).values > 4 * within
    return torch.where(live & apart, share, torch.zeros_like(share))


def told_by_labels(code_n: Tensor, Y_nk: Tensor) -> float:
    """Return the explained share of the target where each row is told by the others of its label.

    R² = 1 - Σ(y - m)² / Σ(y - ȳ)², with m the mean of the other rows of the label, and of all other
    rows where it has none: a label of its own for every row tells nothing.
    """
    _, label = torch.unique(code_n, return_inverse=True)
    n = len(Y_nk)
    sums = torch.zeros(int(label.max()) + 1, Y_nk.shape[1], dtype=Y_nk.dtype)
    sums = sums.index_add(0, label, Y_nk)[label]
    count = torch.bincount(label)[label][:, None]
    others = (Y_nk.sum(0) - Y_nk) / (n - 1)
    told = torch.where(count > 1, (sums - Y_nk) / (count - 1).clamp_min(1), others)
    off, spread = (Y_nk - told).square().sum(), (Y_nk - Y_nk.mean(0)).square().sum()
    return float(1 - off / spread.clamp_min(1e-30))


def filled(x_nd: Tensor, Y_nk: Tensor, single_d: Tensor, label_n: Tensor) -> tuple[Tensor, Tensor]:
    """Return columns and what they tell, each as whether it is filled where that tells more.

    An amount, or a date, that only one of two classes has is spread widely within it: it tells by
    being there, whatever its value. The median of the other class stands for none.
    """
    for c in range(2 if Y_nk.shape[1] == 2 else 0):
        rows = x_nd[label_n == c]
        if not len(rows):
            continue
        none = rows.median(0).values
        there = (x_nd != none).double()
        by_there = told_by_one(there, Y_nk, label_n)
        more = by_there > single_d
        x_nd, single_d = torch.where(more, there, x_nd), torch.maximum(by_there, single_d)
    return x_nd, single_d


def numbered(x_nd: Tensor, Y_nk: Tensor, label_n: Tensor) -> Tensor:
    """Return of columns that number rows how nearly each class is one stretch of them: (d,).

    One minus the changes of class from number to number, but for one a class, as a share of the
    rows; 0 for columns that number nothing. The row of a file that was sorted by class says which
    class a row is of, though it is spread as widely within classes as between them.
    """
    told = torch.zeros(x_nd.shape[1], dtype=torch.float64)
    x = x_nd - x_nd.mean(0)
    between = ((Y_nk.T @ x).square() / Y_nk.sum(0).clamp_min(1)[:, None]).sum(0)
    likely = between > PARTS_CLASSES * x.square().sum(0)
    classes = len(torch.unique(label_n))
    for j in likely.nonzero().flatten().tolist():
        order = x_nd[:, j].argsort()
        changes = int((label_n[order].diff() != 0).sum()) - (classes - 1)
        if changes <= HALF * WRONG * len(order) and _are_given(x_nd[order, j]):
            told[j] = 1 - changes / len(order)
    return told


def _are_given(ascending_n: Tensor) -> bool:
    """Whether numbers stand on a ladder, all different though by chance some would be equal.

    The step of the ladder is told by the smallest differences first, then by larger ones: of what
    was standardised in single precision a single step is known to a few digits.
    """
    moved = ascending_n.diff()
    step = float(moved.min()) if len(moved) else 0.0
    if step <= 0 or float(moved.sum()) / step > len(moved) ** 2 / TWICE:
        return False
    reach = 1.5
    while reach * step < 2 * float(moved.max()):
        some = moved[moved < reach * step]
        step = float(some.sum() / (some / step).round().sum())
        reach *= 2
    steps = moved / step
    off = (steps - steps.round()).abs() < NEAR
    return bool(off.double().mean() > 1 - WRONG) and (
        len(moved) ** 2 > 2 * TWICE * float(steps.sum())
    )


def parts(x_nd: Tensor, Y_nk: Tensor, label_n: Tensor, single_d: Tensor) -> Tensor:
    """Return what columns tell of which each class has a stretch to itself, but for few rows: (d,).

    Such a column marks classes, with a spread of its own within them, that says nothing: it is read
    as the class whose mean is the nearest. 0 for all others.
    """
    told = torch.zeros(x_nd.shape[1], dtype=torch.float64)
    for j in (single_d > 0).nonzero().flatten().tolist():
        if error(x_nd[:, j], label_n) <= WRONG:
            told[j] = told_by_labels(_nearest(x_nd[:, j], label_n), Y_nk)
    return told


def most_wrong(mark_n: Tensor, label_n: Tensor) -> float:
    """Return Wilson's upper bound of the share of rows whose mark is that of another class."""
    mark, label = (torch.unique(v, return_inverse=True)[1] for v in (mark_n, label_n))
    n, classes = len(mark), int(label.max()) + 1
    pairs = torch.bincount(mark * classes + label, minlength=(int(mark.max()) + 1) * classes)
    return wilson(1 - float(pairs.view(-1, classes).amax(1).sum()) / n, n, z=QUANTILE)[1]


def error(x_n: Tensor, label_n: Tensor) -> float:
    """Return `most_wrong` of a column read as the class whose mean is the nearest."""
    return most_wrong(_nearest(x_n, label_n), label_n)


def _nearest(x_n: Tensor, label_n: Tensor) -> Tensor:
    """Return the number of the class whose mean is the nearest."""
    label = torch.unique(label_n, return_inverse=True)[1]
    mean = torch.bincount(label, weights=x_n.double()) / torch.bincount(label).double()
    return (x_n[:, None] - mean).abs().argmin(1)


def marks(x_nd: Tensor, classes: int) -> Tensor:
    """Whether a column holds no more different values than there are classes: (d,)."""
    return (ascending(x_nd.T.contiguous()).diff(dim=1) != 0).sum(1) < classes


def _squared(x_nd: Tensor, Y_nk: Tensor) -> Tensor:
    """Return the largest squared correlation of each column with a target; 0 for constants."""
    x, Y = x_nd - x_nd.mean(0), Y_nk - Y_nk.mean(0)
    norm = x.square().sum(0)[:, None] * Y.square().sum(0)[None]
    return ((x.T @ Y).square() / norm.clamp_min(1e-30)).max(1).values


def _ranks(x_nd: Tensor) -> Tensor:
    """Return the rank of every row in each column, (n, d); equal values share the middle one."""
    first = x_nd.T.contiguous()
    ordered = ascending(first)
    low = torch.searchsorted(ordered, first)
    high = torch.searchsorted(ordered, first, right=True)
    return ((low + high) / 2).double().T
