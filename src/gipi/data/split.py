"""Which rows train, validate and test: a pure function of (seed, rows), without leaks.

Rows are first bound into units that must stay together (exact duplicates of the inputs, and rows of
one group); whole units are then dealt out, class by class where there are classes. The order within
a class is a counter-based shuffle, so the split depends on no library's generator.

Validation and test rows that were given are never altered: a training row that repeats one of them
is dropped instead, and counted in the notes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from gipi.core.errors import ConfigError, DataError
from gipi.core.seed import derive, uniform
from gipi.data.source import TEST, TRAIN, VAL

if TYPE_CHECKING:
    from collections.abc import Sequence

SMALL = 5_000  # below this many rows a fifth is tested on: a tenth would measure too coarsely
LARGEST = 10_000  # rows held back at most where no share was asked for: enough to tell 0.5 % apart
CHOOSING = 3_000  # validation rows at most beside test rows: they choose weights, others judge them
FEWEST = 10  # distinct rows below which nothing is held back unless asked for
NAMES = ("train", "val", "test")
BY_CLASS = "stratified by class"


@dataclass(frozen=True)
class Split:
    """Row ids (sorted int64) of each part, the rule in words, and what happened on the way."""

    ids: dict[str, np.ndarray]
    reason: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class SplitRows:
    """What is known of the rows that are split; arrays have one entry per row.

    usable   False for rows that take no part (no target value)
    keys     int64 codes, equal for rows whose inputs are equal
    alike    how equal they are, in words
    labels   int64 class codes, or None for a number to predict
    classes  names of the codes
    groups   int64 codes of rows that must stay together, or None
    bound    int64 codes of rows that stay together where a part is cut, or None; other than
             for groups, no training row is dropped because a given row has its code
    bound_by what those rows have in common, in words
    times    sortable values (latest last), or None
    given    int8 of TRAIN, VAL, TEST, or None
    rule     how labels are used, in words
    """

    usable: np.ndarray
    keys: np.ndarray
    labels: np.ndarray | None = None
    classes: tuple[str, ...] = ()
    groups: np.ndarray | None = None
    bound: np.ndarray | None = None
    bound_by: str = ""
    times: np.ndarray | None = None
    given: np.ndarray | None = None
    rule: str = BY_CLASS
    alike: str = "exactly"


def split_rows(
    rows: SplitRows, *, seed: int = 0, val: float | None = None, test: float | None = None
) -> Split:
    """Return the split of these rows.

    val, test   share of the usable rows, exactly; None: a tenth (test: a fifth below 5,000 rows),
                at most 10,000 rows (val: 3,000 where test rows judge), nothing below 10 distinct
                rows. 0 holds nothing back.
                Ignored for a part that was given, but for test=0: given test rows are then left
                out, so that nothing is ever scored on them.

    Raises `ConfigError` for shares that cannot be, `DataError` where no training row is left.
    """
    for name, share in (("val", val), ("test", test)):
        if share is not None and not 0 <= share < 1:
            raise ConfigError(f"{name}={share}", "a share from 0 up to (not) 1", f"{name}=0.1")
    if (val or 0) + (test or 0) >= 1:
        raise ConfigError(
            f"val={val} and test={test} leave nothing to train on", "a sum below 1", "lower them"
        )
    pool = np.flatnonzero(rows.usable)
    if len(pool) == 0:
        raise DataError(
            "no row has a target value", "rows with a known target", "check the target column"
        )
    if rows.given is not None:
        return _around_given(rows, pool, seed=seed, val=val, test=test)
    counts = _counts(rows, pool, val=val, test=test)
    parts, reason, notes = _cut(rows, pool, counts, seed=seed)
    return _finish(parts, reason, [*notes, *_left_out(parts, counts)])


def _around_given(
    rows: SplitRows, pool: np.ndarray, *, seed: int, val: float | None, test: float | None
) -> Split:
    assert rows.given is not None
    part = rows.given[pool]
    train, held = pool[part == TRAIN], pool[part != TRAIN]
    has = {"val": bool((part == VAL).any()), "test": bool((part == TEST).any())}
    notes: list[str] = []
    copies = np.isin(rows.keys[train], rows.keys[held])
    if copies.any():
        train = train[~copies]
        one = int(copies.sum()) == 1
        notes.append(
            f"{int(copies.sum())} training {'row repeats' if one else 'rows repeat'} a given "
            f"validation or test row and {'was' if one else 'were'} dropped from training"
        )
    if rows.groups is not None:
        shared = np.isin(rows.groups[train], rows.groups[held])
        if shared.any():
            train = train[~shared]
            notes.append(
                f"{int(shared.sum())} training rows share a group with given rows: dropped"
            )
    if len(train) == 0:
        raise DataError(
            "the given split has no training rows", "rows to train on", "check the split"
        )
    used = {"train": True, **has, "test": has["test"] and test != 0}
    given = [name for name in ("train", "val", "test") if used[name]]
    reason = f"{' and '.join(n for n in given if n != 'train') or 'training'} rows were given"
    keep_val = val if not has["val"] else 0.0
    keep_test = 0.0 if has["test"] or (has["val"] and test is None) else test
    counts = _counts(rows, train, val=keep_val, test=keep_test, judged=used["test"])
    parts, how, more = _cut(rows, train, counts, seed=seed)
    more += _left_out(parts, counts)
    if counts["val"] or counts["test"]:
        held_back = " and ".join(n for n in ("val", "test") if counts[n])
        reason += f"; {held_back} cut from the training rows: {how}"
    unseen = has["test"] and test == 0
    for name, share in (("val", val), ("test", test)):
        if has[name] and share is not None and not (unseen and name == "test"):
            notes.append(f"{name}={share:g} has no effect: {name} rows were given")
    if has["val"] and not has["test"] and not counts["test"]:
        notes.append("no test rows were given: the score is measured on validation rows")
    parts["val"] = pool[part == VAL] if has["val"] else parts["val"]
    if unseen:
        n = int((part == TEST).sum())
        more.append(f"test=0: the {n} given test rows are left out, nothing is scored on them")
    elif has["test"]:
        parts["test"] = pool[part == TEST]
    return _finish(parts, reason, [*notes, *more])


def _left_out(parts: dict[str, np.ndarray], counts: dict[str, int]) -> list[str]:
    """Say which parts were wanted and got no rows, for instance because there are two groups."""
    return [
        f"no {name} rows: too few rows or groups that can be told apart for every part"
        for name in ("val", "test")
        if counts[name] and not len(parts[name])
    ]


def _finish(parts: dict[str, np.ndarray], reason: str, notes: Sequence[str]) -> Split:
    if len(parts["train"]) == 0:
        raise DataError(
            "the split leaves no training rows", "at least one training row",
            "give more rows, or smaller val and test shares",
        )  # fmt: skip
    ids = {name: np.sort(parts[name]).astype(np.int64) for name in NAMES if len(parts[name])}
    return Split(ids, reason, tuple(notes))


def _counts(
    rows: SplitRows,
    pool: np.ndarray,
    *,
    val: float | None,
    test: float | None,
    judged: bool = False,
) -> dict[str, int]:
    """Return how many rows of `pool` to hold back for validation and for test.

    judged  test rows were given: the score will not be that of validation rows
    """
    n = len(pool)
    few = len(np.unique(rows.keys[pool])) < FEWEST
    usual = {"val": 0.1, "test": 0.2 if n < SMALL else 0.1}
    found = {}
    for name, share in (("val", val), ("test", test)):
        if share is not None:
            found[name] = max(1, round(n * share)) if share > 0 else 0
        else:
            found[name] = 0 if few else min(LARGEST, max(1, round(n * usual[name])))
    if val is None and (judged or found["test"]):
        found["val"] = min(found["val"], CHOOSING)
    return found


def _cut(
    rows: SplitRows, pool: np.ndarray, counts: dict[str, int], *, seed: int
) -> tuple[dict[str, np.ndarray], str, list[str]]:
    """Deal `pool` out; return the parts, the rule in words and notes."""
    if not counts["val"] and not counts["test"]:
        few = len(pool) < FEWEST or len(np.unique(rows.keys[pool])) < FEWEST
        distinct = len(np.unique(rows.keys[pool]))
        notes = [f"only {distinct} different rows: none were held back"] if few else []
        none = np.empty(0, dtype=np.int64)
        return {"train": pool, "val": none, "test": none}, "all rows train", notes
    if rows.times is not None:
        return _by_time(rows, pool, counts)
    units = _units(rows, pool)
    if rows.labels is None:
        parts = _deal(pool, units, np.zeros(len(pool), dtype=np.int64), counts, seed=seed)
        return parts, _words("at random", rows), _duplicate_note(rows, pool)
    labels = rows.labels[pool]
    notes = _duplicate_note(rows, pool)
    present, per_class = np.unique(labels, return_counts=True)
    wanted = 1 + (counts["val"] > 0) + (counts["test"] > 0)
    for code, count in zip(present.tolist(), per_class.tolist(), strict=True):
        if count < wanted:
            name = rows.classes[code] if code < len(rows.classes) else str(code)
            has = f"{count} row{'s' * (count != 1)}"
            if rows.rule != BY_CLASS:  # a row shows several classes, and stands for one of them
                has += " in which no other class is rarer"
            notes.append(f"class '{name}' has {has}: too few for every part of the split")
    parts = _deal(pool, units, labels, counts, seed=seed)
    return parts, _words(rows.rule, rows), notes


def _words(rule: str, rows: SplitRows) -> str:
    kept = [] if rows.groups is None else ["whole groups together"]
    kept += [] if rows.bound is None else [f"rows of one {rows.bound_by or 'kind'} together"]
    return ", ".join([rule, *kept])


def _duplicate_note(rows: SplitRows, pool: np.ndarray) -> list[str]:
    repeated = len(pool) - len(np.unique(rows.keys[pool]))
    if not repeated:
        return []
    found = "1 row repeats" if repeated == 1 else f"{repeated} rows repeat"
    return [
        f"{found} the inputs of another row {rows.alike}; copies are kept on one side of the split"
    ]


def _units(rows: SplitRows, pool: np.ndarray) -> np.ndarray:
    """Return a code per row of `pool`; rows bound by a key or a group have the same code."""
    ties = [
        np.unique(codes[pool], return_inverse=True)[1].reshape(-1)
        for codes in (rows.keys, rows.groups, rows.bound)
        if codes is not None
    ]
    code = ties[-1]
    if len(ties) == 1:
        return code
    while True:  # the smallest code spreads along shared keys and groups until nothing changes
        lower = code
        for tie in ties:
            low = np.full(tie.max() + 1, len(code))
            np.minimum.at(low, tie, lower)
            lower = low[tie]
        if (lower == code).all():
            return np.unique(code, return_inverse=True)[1].reshape(-1)
        code = lower


def _deal(
    pool: np.ndarray, units: np.ndarray, labels: np.ndarray, counts: dict[str, int], *, seed: int
) -> dict[str, np.ndarray]:
    """Deal whole units to test, val and train, each class in proportion.

    A unit counts for the class that most of its rows have. Within a class the units come in
    shuffled order and a part takes them while they fit its quota; it gets at least one unit of
    every class that has enough of them for all parts.
    """
    n = len(pool)
    order = np.argsort(units, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(units[order]) != 0])
    sizes = np.diff(np.r_[starts, n])
    names = torch.from_numpy(pool[order[starts]].astype(np.int64))  # a unit's lowest row id
    draw = uniform(derive(seed, "split"), names).numpy()
    side = np.full(len(sizes), TRAIN, dtype=np.int8)
    asked = [(part, counts[name]) for part, name in ((TEST, "test"), (VAL, "val")) if counts[name]]
    debt = dict.fromkeys((part for part, _ in asked), 0.0)  # owed to a part by earlier classes
    unit_class = _majority(units, labels)
    for code in np.unique(unit_class):
        mine = np.flatnonzero(unit_class == code)
        mine = mine[np.argsort(draw[mine], kind="stable")]
        share = sizes[mine].sum() / n
        for at, (part, count) in enumerate(asked):
            quota = count * share + debt[part]
            chosen = _fill(mine, sizes[mine], quota, leave=len(asked) - at)
            side[chosen] = part
            debt[part] = quota - float(sizes[chosen].sum())
            mine = mine[~np.isin(mine, chosen)]
    row_side = side[units]
    return {
        "train": pool[row_side == TRAIN], "val": pool[row_side == VAL],
        "test": pool[row_side == TEST],
    }  # fmt: skip


def _fill(units: np.ndarray, sizes: np.ndarray, quota: float, *, leave: int) -> np.ndarray:
    """Return the first units that fit `quota` rows, at least one, leaving `leave` units over."""
    spare = len(units) - leave
    if spare <= 0:
        return units[:0]
    small = np.flatnonzero(sizes <= quota + 0.5)
    taken = int(np.searchsorted(np.cumsum(sizes[small]), quota + 0.5, side="right"))
    if taken == 0:
        return units[[int(sizes.argmin())]]
    return units[small[: min(taken, spare)]]


def _majority(units: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the most frequent label of each unit (the lowest of equally frequent ones)."""
    pairs, counts = np.unique(np.stack([units, labels], axis=1), axis=0, return_counts=True)
    best = np.lexsort((pairs[:, 1], -counts, pairs[:, 0]))
    first = np.flatnonzero(np.r_[True, np.diff(pairs[best, 0]) != 0])
    return np.asarray(pairs[best[first], 1])


def _by_time(
    rows: SplitRows, pool: np.ndarray, counts: dict[str, int]
) -> tuple[dict[str, np.ndarray], str, list[str]]:
    """Cut at two moments: the earliest rows train, the latest test; equal times stay together.

    A copy of a row that lies on two sides is dropped from the earlier one.
    """
    assert rows.times is not None
    order = pool[np.argsort(rows.times[pool], kind="stable")]
    times = rows.times[order]
    ends = len(order)
    parts: dict[str, np.ndarray] = {}
    for name in ("test", "val"):
        begin = ends - counts[name]
        while 0 < begin < ends and times[begin] == times[begin - 1]:
            begin -= 1
        parts[name] = order[begin:ends]
        ends = begin
    parts["train"] = order[:ends]
    notes = []
    late = np.isin(rows.keys[parts["val"]], rows.keys[parts["test"]])
    parts["val"] = parts["val"][~late]
    held = np.concatenate([parts["val"], parts["test"]])
    copies = np.isin(rows.keys[parts["train"]], rows.keys[held])
    parts["train"] = parts["train"][~copies]
    dropped = int(copies.sum()) + int(late.sum())
    if dropped:
        found = "1 earlier row repeats" if dropped == 1 else f"{dropped} earlier rows repeat"
        notes.append(f"{found} a later validation or test row: dropped")
    if rows.groups is not None:
        notes.append("the split by time does not keep groups together")
    return parts, "by time: the latest rows are held back", notes
