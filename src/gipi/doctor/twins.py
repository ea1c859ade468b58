"""Rows that are equal, and whether they may be equal by chance.

Two rows of low-cardinality columns are often equal, and nothing is wrong with that. How much a row
says is counted in bits, −Σⱼ log₂ pⱼ(xᵢⱼ) over its columns: among n rows whose columns are
independent an equal one is expected n 2^−bits times. Rows below three times log₂ n bits, a margin
for columns that depend on each other, are never counted as copies.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gipi.doctor.edits import at_hand
from gipi.doctor.order import ascending
from gipi.doctor.sheet import cpu

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gipi.doctor.facts import Facts

LOOKED_AT = 64
"""Columns whose frequencies are counted; fewer columns can only lower the bits."""
MARGIN = 3.0
DISTINCT = 10
MORE = 10.0
AT_ONCE = 2_000_000
"""Numbers whose frequencies are counted at once."""
AS_OFTEN = 2.0
"""Equal rows over rows that go on where another begins, up to which windows are equal by chance."""
ONCE = 0.2
"""Share of different windows that come once at least: of twice as many as places it is 0.31."""
OVERLAPS = 0.01
"""Pairs that overlap with all but one place, as a share of the rows, that windows have at least."""
PLACES = 8
"""Places that rows have at least that may be windows of a longer text or series."""
MOST, NUMBERS = 200_000, 50_000_000
"""Rows, and numbers in them, up to which all of a split are compared."""


def keys_of(X: Any) -> Tensor:
    """Return one 64-bit number a row, equal for equal rows: (n,)."""
    total: Tensor | None = None
    generator = torch.Generator().manual_seed(7)
    for part in _parts(cpu(X)):
        flat = part.reshape(len(part), math.prod(part.shape[1:]))
        if flat.is_floating_point():
            flat = torch.nan_to_num(flat.float(), nan=-7.25e30) + 0.0  # -0 and 0 are one number
            flat = flat.contiguous().view(torch.int32)
        ints = flat.long()
        high = 2**62
        salt = torch.randint(-high, high, (ints.shape[1],), generator=generator) | 1
        for chosen in torch.arange(len(ints)).split(max(1, 4_000_000 // max(ints.shape[1], 1))):
            mixed = (ints[chosen] + 1) * -7046029254386353131
            mixed = (mixed ^ (mixed >> 29)) * salt
            sums = (mixed ^ (mixed >> 32)).sum(1)
            if total is None:
                total = torch.zeros(len(ints), dtype=torch.int64)
            total[chosen] = total[chosen] * 31 + sums
    return torch.zeros(0, dtype=torch.int64) if total is None else total


def bits_of(X: Any, first: Tensor, *, since: int = 0) -> Tensor:
    """Return how much each row says, in bits: (n,).

    first  one row of every set of equal ones: frequencies are counted among these
    since  number of the first row that is asked for: (n - since,)
    """
    total: Tensor | None = None
    plenty = enough(len(first))
    for part in _parts(cpu(X)):
        flat = part.reshape(len(part), math.prod(part.shape[1:]))
        width = flat.shape[1]
        if width > LOOKED_AT:
            flat = flat[:, torch.arange(LOOKED_AT) * width // LOOKED_AT]
        flat = torch.nan_to_num(flat.float()) if flat.is_floating_point() else flat.long()
        if total is None:
            total = torch.zeros(len(flat) - since, dtype=torch.float64)
        for some in torch.arange(flat.shape[1]).split(max(1, AT_ONCE // max(len(flat), 1))):
            rows = flat[:, some].T.contiguous()
            seen = ascending(rows[:, first])
            asked = rows[:, since:].contiguous()
            count = torch.searchsorted(seen, asked, right=True) - torch.searchsorted(seen, asked)
            bits = -(count.clamp_min(1).double() / len(first)).log2()
            # Of a column that hardly ever repeats one value says enough.
            distinct = (seen.diff(dim=1) != 0).sum(1) + 1
            single = (distinct > max(DISTINCT, 0.5 * len(first)))[:, None] & (count <= 1)
            total += torch.where(single, plenty, bits).sum(0)
    return torch.zeros(0, dtype=torch.float64) if total is None else total


def enough(n: int) -> float:
    """Return the bits from which on equal rows are no chance among n."""
    return MARGIN * math.log2(max(n, 2)) + MORE


@dataclass(frozen=True)
class Copies:
    """Equal rows within one split.

    X      their inputs
    keys   one number a row, equal for equal rows
    first  whether a row is the first of its kind
    """

    X: Any
    keys: Tensor
    first: Tensor

    @cached_property
    def telling(self) -> Tensor:
        """Whether a row says so much that an equal one is no chance; counted when it is asked."""
        return bits_of(self.X, self.first.nonzero().flatten()) >= enough(len(self.keys))

    @property
    def share(self) -> float:
        """Share of telling rows that repeat an earlier one."""
        said = int(self.telling.sum())
        return int((self.telling & ~self.first).sum()) / said if said else 0.0

    @property
    def in_company(self) -> float:
        """Share of all rows that have an equal one."""
        _, inverse, counts = torch.unique(self.keys, return_inverse=True, return_counts=True)
        return float((counts[inverse] > 1).double().mean())

    @cached_property
    def windows(self) -> bool:
        """Whether rows are windows of a longer text or series: they overlap as they repeat.

        Of windows that begin anywhere, two that begin at one place are as many as two that begin
        one place apart: an equal pair is nothing but the largest overlap. And many come once: rows
        that were stored twice do not.
        """
        X = self.X
        if not isinstance(X, Tensor) or X.ndim not in (2, 3) or X.shape[1] < PLACES:
            return False
        if (X.ndim == 2 and X.is_floating_point()) or not bool(self.telling.any()):
            return False
        X = X[self.telling]
        _, counts = torch.unique(self.keys[self.telling], return_counts=True)
        if float((counts == 1).double().mean()) < ONCE:
            return False
        equal, overlapping = int((counts * (counts - 1)).sum()), 0
        for shift in (1, 2, 3):
            later, earlier = keys_of(X[:, shift:]), keys_of(X[:, :-shift])
            both, which = torch.unique(torch.cat([later, earlier]), return_inverse=True)
            ends, begins = (torch.bincount(p, minlength=len(both)) for p in which.split(len(X)))
            overlapping += int((ends * begins).sum()) - int((later == earlier).sum())
        often = overlapping / 3
        return often >= OVERLAPS * len(X) and equal <= AS_OFTEN * often


def copies(X: Any) -> Copies:
    """Return the equal rows of one split."""
    keys = keys_of(X)
    first = first_of(keys)
    return Copies(X, keys, first)


def training_copies(facts: Facts) -> Copies:
    """Return the equal rows among the training inputs, looked for once."""
    first = facts.start or facts
    if "copies" not in first.notes:
        assert first.train is not None
        first.notes["copies"] = copies(inputs_of(first.exp.train, first.train))
    found: Copies = first.notes["copies"]
    return found


def first_of(keys: Tensor) -> Tensor:
    """Return a mask of the rows that are the first of their kind."""
    order = torch.argsort(keys, stable=True)
    ordered = keys[order]
    new = torch.ones(len(keys), dtype=torch.bool)
    new[1:] = ordered[1:] != ordered[:-1]
    first = torch.zeros(len(keys), dtype=torch.bool)
    first[order[new]] = True
    return first


def inputs_of(data: Any, looked: tuple[Any, Any]) -> Any:
    """Return all inputs of a split where they lie in one tensor, else those that are looked at."""
    pair = at_hand(data)
    if pair is not None and pair[0].numel() <= NUMBERS and len(pair[0]) <= MOST:
        return cpu(pair[0])
    return cpu(looked[0])


def _parts(X: Any) -> Iterator[Tensor]:
    if isinstance(X, Tensor):
        yield X
    elif isinstance(X, dict):
        for value in X.values():
            yield from _parts(value)
    elif isinstance(X, (tuple, list)):
        for value in X:
            yield from _parts(value)
