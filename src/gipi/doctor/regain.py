"""Validation inputs in another order, sign or unit: the change that gives back what they tell.

Where a shallow learner of the training rows says nothing of validation, validation may lie
elsewhere, its targets may be those of other rows, or its columns other ones. Only the last is
mended by columns in another order, and then rows are like those of training. The change is found on
every second row of validation and judged on the others.

Shapes: n rows, t places, d columns, k columns of targets.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from gipi.doctor.drift import LEAST, TURNS, stats, told_apart
from gipi.doctor.shallow import predict
from gipi.doctor.sheet import channels_first, cpu, linear_answer, noted, sheet
from gipi.doctor.told import told_of_val

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from gipi.doctor.facts import Facts
    from gipi.doctor.sheet import Sheet

TOLD, LOST, BACK, GAIN = 0.1, 0.6, 0.75, 0.25
"""Share of targets that training rows must tell; of that, the share up to which validation tells
little, the one from which on a change gives it back, and what that must gain on the same rows."""
COLUMNS, APART = 40, 0.7
"""Columns that are matched at most; area under the curve of who tells the two splits apart."""
BEYOND, FEW = 5.0, 0.5
"""Standard errors from which on a column is on another scale; share of the columns that are."""
STAY = 10.0
"""What must speak for a column being another one, in squared standard errors."""
AT = (0.05, 0.25, 0.5, 0.75, 0.95)


@dataclass(frozen=True)
class Change:
    """What was done to validation inputs, in which columns, and what undoes it.

    told, back  share of the targets that training rows tell as they are, and after it
    """

    what: str
    columns: list[int]
    undo: Callable[[Tensor], Tensor]
    told: float
    back: float


def regained(facts: Facts) -> Change | None:
    """Return the change of validation inputs that gives back what they tell; None for none."""
    return noted(facts, "regained", _regained)


def _regained(facts: Facts) -> Change | None:
    X, V = facts.X, facts.val[0] if facts.val is not None else None
    if X is None or not isinstance(V, Tensor) or X.shape[1:] != V.shape[1:] or X.ndim < 2:
        return None
    if not (X.is_floating_point() and V.is_floating_point()) or len(V) < 2 * LEAST:
        return None
    train, val = sheet(facts), sheet(facts, "val")
    if train is None or val is None or len(val.F) < 2 * LEAST:
        return None
    best = linear_answer(facts)
    before = _explains(told_of_val(facts), train, val, slice(None))
    if best.score < TOLD or before > LOST * best.score:
        return None
    own, other = cpu(X)[train.rows], cpu(V)[val.rows]
    judged = slice(1, None, 2)
    as_is = _explains(told_of_val(facts), train, val, judged)
    least = max(BACK * best.score, as_is + GAIN * best.score)
    found = None
    for what, columns, undo in _changes(facts, (own, train.Y), (other[::2], val.Y[::2])):
        if found is not None and found.what.startswith("columns"):
            break
        F = val.lens(undo(other))
        told = predict(train.ridge, train.Y, F, penalty=best.penalty)
        back = _explains(told, train, val, judged)
        if back > (least if found is None else found.back) and _like_training(train, F):
            found = Change(what, columns, undo, before, back)
    return found


def _explains(told: Tensor, train: Sheet, val: Sheet, rows: slice) -> float:
    Y, base = val.Y.double()[rows], train.Y.double().mean(0)
    left = (Y - told.double()[rows]).square().sum()
    return float(1 - left / (Y - base).square().sum().clamp_min(1e-12))


def _like_training(train: Sheet, F_mp: Tensor) -> bool:
    """Whether rows are told from those of training no longer: else they lie elsewhere."""
    k = min(len(train.F), len(F_mp))
    ours, theirs = (Z[torch.arange(k) * len(Z) // k] for Z in (train.F, F_mp))
    area, found = told_apart(ours, theirs)
    return area < APART or not found


def _changes(
    facts: Facts, ours: tuple[Tensor, Tensor], theirs: tuple[Tensor, Tensor]
) -> Iterator[tuple[str, list[int], Callable[[Tensor], Tensor]]]:
    """Yield what may have been done, in which columns, and what undoes it."""
    X, second = ours[0], _channels_second(facts, ours[0])
    yield from _units(facts, second=second)
    if X.ndim == 4:
        for name, turn in TURNS.items():
            yield f"images are {name}", [], turn
        yield "images are turned round", [], lambda x: x.flip(2, 3)
    elif X.ndim == 3 and facts.inputs == "sequence":
        along = 2 if second else 1
        yield "series run backwards", [], lambda x: x.flip(along)
    a, b = (_profile(Z.movedim(1, -1) if second else Z, Y) for Z, Y in (ours, theirs))
    if not 2 <= len(a.mean) <= COLUMNS:
        return
    number, sign = _matched(a, b)
    moved = (number != torch.arange(len(number))) | (sign < 0)
    if not bool(moved.any()):
        return

    def undo(x: Tensor) -> Tensor:
        at, by = (1, [1, -1] + [1] * (x.ndim - 2)) if second else (x.ndim - 1, [-1])
        return x.index_select(at, number.to(x.device)) * sign.to(x).view(by)

    which = moved.nonzero().flatten().tolist()
    other = bool((number != torch.arange(len(number))).any())
    yield f"columns {'are in another order' if other else 'have another sign'}", which, undo


def _units(
    facts: Facts, *, second: bool
) -> Iterator[tuple[str, list[int], Callable[[Tensor], Tensor]]]:
    """Yield a few columns that alone are on another scale, and what brings them back."""
    s = stats(facts)
    if s is None or facts.inputs not in ("table", "sequence"):
        return
    live = (s.std > 0) & (s.val_std > 0)
    error = BEYOND / s.rows**0.5
    factor = torch.where(live, s.std / s.val_std.clamp_min(1e-300), torch.ones_like(s.std))
    off = live & ((factor.log().abs() > error) | ((s.mean - s.val_mean).abs() > error * s.std))
    if not bool(off.any()) or float(off.double().mean()) > FEW:
        return
    factor = torch.where(off, factor, torch.ones_like(factor))
    shift = torch.where(off, s.mean - factor * s.val_mean, torch.zeros_like(factor))

    def undo(x: Tensor) -> Tensor:
        by = [1, -1] + [1] * (x.ndim - 2) if second else [-1]
        return x * factor.to(x).view(by) + shift.to(x).view(by)

    yield "a column is in another unit", off.nonzero().flatten().tolist()[:8], undo


def _channels_second(facts: Facts, X: Tensor) -> bool:
    return X.ndim == 4 or (X.ndim == 3 and channels_first(facts))


@dataclass(frozen=True)
class _Profile:
    """What columns are known by: values, what they tell of targets, and of each other."""

    mean: Tensor
    std: Tensor
    at_qd: Tensor
    tells_kd: Tensor
    spread_kd: Tensor
    each_dd: Tensor
    rows: int


def _profile(Z: Tensor, Y_nk: Tensor) -> _Profile:
    rows = Z.reshape(len(Z), -1, Z.shape[-1]).double()
    flat = rows.flatten(0, 1)
    flat = flat[:: max(1, len(flat) // 20_000)]
    mean, std = flat.mean(0), flat.std(0)
    at = torch.quantile(flat, torch.tensor(AT, dtype=flat.dtype), dim=0)
    wide = rows.std(1) if rows.shape[1] > 1 else (rows[:, 0] - mean).abs()
    Y = Y_nk.double()
    told, spread, each = _related(rows.mean(1), Y), _related(wide, Y), _related(flat, flat).T
    return _Profile(mean, std, at, told, spread, each, len(Z))


def _related(A_nd: Tensor, B_nk: Tensor) -> Tensor:
    """Return correlations, (k, d); 0 for what does not vary."""
    a, b = (t - t.mean(0) for t in (A_nd, B_nk))
    a, b = (t / t.norm(dim=0).clamp_min(1e-9) for t in (a, b))
    told: Tensor = b.T @ a
    return told


def _matched(a: _Profile, b: _Profile) -> tuple[Tensor, Tensor]:
    """Return which column of theirs is each of ours, and with which sign.

    The likest first; then two are exchanged, or a sign is turned, as long as that brings values,
    what they tell and what they have to do with each other nearer.
    """
    d = len(a.mean)
    scale = a.std.clamp_min(1e-9)
    far = torch.stack([
        ((a.at_qd[:, :, None] - at[:, None]) / scale[:, None]).clamp(-3, 3).square().mean(0)
        + (a.tells_kd[:, :, None] - sign * b.tells_kd[:, None]).square().sum(0)
        + (a.spread_kd[:, :, None] - b.spread_kd[:, None]).square().sum(0)
        for sign, at in ((1, b.at_qd), (-1, -b.at_qd.flip(0)))
    ])  # fmt: skip
    far[0].diagonal().sub_(STAY / b.rows)  # unless more than chance speaks
    left, turned = far.min(0)
    number = torch.zeros(d, dtype=torch.int64)
    left = left.clone()
    for _ in range(d):
        i, j = divmod(int(left.argmin()), d)
        number[i] = j
        left[i, :], left[:, j] = torch.inf, torch.inf
    ours = torch.arange(d)
    starts = [(number, 1.0 - 2 * turned[ours, number]), (ours, torch.ones(d))]
    found = [_nearer(far, a, b, number.clone(), sign.double()) for number, sign in starts]
    _, number, sign = min(found, key=lambda f: f[0])
    return number, sign


def _nearer(
    far: Tensor, a: _Profile, b: _Profile, number: Tensor, sign: Tensor
) -> tuple[float, Tensor, Tensor]:
    """Return how far columns are apart at last, and which stands for which with which sign."""
    ours = torch.arange(len(number))

    def apart(number: Tensor, sign: Tensor) -> float:
        each = sign[:, None] * b.each_dd[number][:, number] * sign
        alone = far[(sign < 0).long(), ours, number].sum()
        return float(alone + (a.each_dd - each).square().sum() / len(ours))

    best, before = apart(number, sign), torch.inf
    while best < before - 1e-9:
        before = best
        for i, j in combinations(range(len(number)), 2):
            tried, signs = number.clone(), sign.clone()
            tried[[i, j]], signs[[i, j]] = number[[j, i]], sign[[j, i]]
            if (now := apart(tried, signs)) < best:
                number, sign, best = tried, signs, now
        for i in range(len(number)):
            signs = sign.clone()
            signs[i] = -signs[i]
            if (now := apart(number, signs)) < best:
                sign, best = signs, now
    return best, number, sign
