"""Validation rows that are training rows too: the score tells what was learned by heart."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from gipi.doctor.edits import every_row, kept, stored
from gipi.doctor.finding import CannotRepair, Finding, Repair
from gipi.doctor.rule import Rule
from gipi.doctor.sheet import SIDE, is_tokens, origin, the_lens
from gipi.doctor.twins import (
    Copies,
    bits_of,
    enough,
    first_of,
    inputs_of,
    keys_of,
    training_copies,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gipi.doctor.experiment import Experiment
    from gipi.doctor.facts import Facts

SHARE = 0.01
LEAST = 3
TIMES, WINDOWS = 3.0, 1.5
MOST = 0.5
"""Share of equal windows that no text explains."""
NEAR = 0.1
NEAR_SHARE = 0.1
"""Share of validation rows that must be nearly a training row before that is called an overlap."""
WIDTH = 4
LEAST_LEFT, FEW = 8, 30
"""Validation rows that must be left, for of fewer no comparison tells its own noise (`proof`); and
from which on a score is worth something by itself."""
HELD = 0.1
"""Share of the validation rows that are held back from training where hardly one is new."""


def before(facts: Facts) -> Iterator[Finding]:
    """Yield the finding where validation rows are among the training rows, beyond chance."""
    facts = origin(facts)
    if facts.val is None or facts.train is None or facts.exp.declared.get("duplicates"):
        return
    there, V = training_copies(facts), inputs_of(facts.exp.val, facts.val)
    X = there.X
    if isinstance(X, Tensor) != isinstance(V, Tensor):
        return
    if isinstance(X, Tensor) and (X.shape[1:] != V.shape[1:] or X.dtype != V.dtype):
        return
    keys = keys_of(V)
    if not len(keys) or not len(there.keys):
        return
    both = torch.cat([there.keys, keys])
    first = first_of(both)
    found = torch.isin(keys, there.keys)
    n, new = len(there.keys), int((~found).sum())
    # What rows say is counted where it decides: where none is equal and none near it does not.
    near = None if bool(found.any()) else _near(facts, X, V)
    if near is None and not bool(found.any()):
        return
    telling = _bits(X, V, first) >= enough(n)
    seen = found & telling
    # What is as frequent within the training rows as across the splits comes of the data.
    share = float(seen.double().mean())
    if int(seen.sum()) >= LEAST and share > max(SHARE, _usual(there, telling)):
        yield _finding(share, seen, exact=True, count=int(seen.sum()), new=new)
        return
    if not bool(telling.all()):
        if float(found.double().mean()) > max(0.5, TIMES * there.in_company) and len(found) >= 20:
            yield _finding(float(found.double().mean()), found, exact=True,
                           count=int(found.sum()), new=new)  # fmt: skip
        return
    near = near or _near(facts, X, V)
    if near is not None:
        yield _finding(near[0], near[1], exact=False, count=int(near[1].sum()))


def _usual(there: Copies, telling: Tensor) -> float:
    """Return the share of rows that may be equal across the splits and prove nothing.

    Of windows of a text that is as usual as two training windows that begin at one place.
    """
    if not bool(telling.all()):
        return TIMES * there.in_company
    return min(MOST, WINDOWS * there.in_company) if there.windows else 0.0


def _finding(share: float, seen: Tensor, *, exact: bool, count: int, new: int = 0) -> Finding:
    what = "are" if exact else "are nearly"
    advice = "take these rows out of the validation rows, and divide by groups of equal rows"
    repair = Repair(
        "divide anew", None, mode="advise",
        edit="GroupShuffleSplit: rows that are nearly equal belong to one split",
    )  # fmt: skip
    if exact and new >= LEAST_LEFT:
        repair = Repair(
            "take them out of validation", part, proof="exact",
            edit="keep = ~isin(hash(X_val), hash(X_train)); X_val, y_val = X_val[keep], "
            "y_val[keep]",
        )  # fmt: skip
        advice += f"; {_of_few(new)}: hold more rows back" if new < FEW else ""
    elif exact:
        repair = Repair(
            "hold rows back from training", hold_back, mode="ask", proof="exact",
            edit="keep = ~isin(hash(X_train), hash(X_val)); X_train, y_train = X_train[keep], "
            "y_train[keep]",
        )  # fmt: skip
        advice = (
            f"hold rows back that the net is not trained on: only {new} of {len(seen)} validation "
            "rows are new to it, too few to judge by"
        )
    return Finding(
        "train_val_overlap",
        f"{count} validation rows ({share:.1%}) {what} training rows: their score tells what was "
        "learned by heart",
        advice,
        where=("validation",),
        rows=tuple(seen.nonzero().flatten()[:50].tolist()),
        evidence={"share": share, "rows": count, "exact": exact},
        confirmed=True,
        strength=share / SHARE,
        repairs=(repair,),
    )


def _of_few(left: int) -> str:
    """Return how little a few rows tell: their mean's error is their spread over root n."""
    return (f"{left} are left, so few that their mean score errs by about "
            f"{1 / math.sqrt(left):.0%} of the spread from row to row")  # fmt: skip


def part(exp: Experiment) -> str:
    """Take validation rows that are training rows out: training goes on as it was.

    Raises `CannotRepair` where too few would be left.
    """
    val, there = stored(exp.val), _training_keys(exp)
    if val is None:
        message = "validation rows cannot be chosen by their number"
        raise CannotRepair(message)
    keep = ~torch.isin(keys_of(val[0]), there)
    left = int(keep.sum())
    if left < LEAST_LEFT:
        message = f"only {left} of {len(keep)} validation rows are no training rows"
        raise CannotRepair(message)
    exp.val = every_row(kept(exp.val, keep))
    took = f"took {len(keep) - left} of {len(keep)} validation rows out"
    return took if left >= FEW else f"{took}; {_of_few(left)}"


def hold_back(exp: Experiment) -> str:
    """Take training rows out that are validation rows, no more of them than validation needs.

    That costs training what these rows would have told it. Other copies leave validation.
    """
    train, val = stored(exp.train), stored(exp.val)
    if train is None or val is None:
        message = "rows of a stream cannot be chosen by their number"
        raise CannotRepair(message)
    keys, there = keys_of(val[0]), keys_of(train[0])
    keep = ~torch.isin(keys, there)
    needed = math.ceil(max(FEW, HELD * len(keep))) - int(keep.sum())
    stay = keys[~keep][: max(0, needed)]
    left = ~torch.isin(there, stay)
    if float(left.double().mean()) < 0.5:
        message = "the splits are nearly the same rows: divide anew"
        raise CannotRepair(message)
    keep |= torch.isin(keys, stay)  # the same row again, which is in training no more
    exp.train, exp.val = kept(exp.train, left), every_row(kept(exp.val, keep))
    took = f"took {int((~left).sum())} of {len(left)} training rows"
    out = int((~keep).sum())
    return took + (f" and {out} of {len(keep)} validation rows out" if out else " out")


def _training_keys(exp: Experiment) -> Tensor:
    train = stored(exp.train) or _collected(exp.train)
    if train is None:
        message = "training rows are not tensors"
        raise CannotRepair(message)
    return keys_of(train[0])


def _collected(data: Any) -> tuple[Tensor, Tensor] | None:
    xs, ys = [], []
    for xb, yb in data:
        if not isinstance(xb, Tensor) or not isinstance(yb, Tensor):
            return None
        xs.append(xb)
        ys.append(yb)
    if not xs or any(x.shape[1:] != xs[0].shape[1:] for x in xs):
        return None
    return torch.cat(xs), torch.cat(ys)


def _bits(X: Any, V: Any, first: Tensor) -> Tensor:
    """Return how much each validation row says, by the frequencies of both splits."""
    if isinstance(X, Tensor):
        both: Any = torch.cat([X, V])
        n = len(X)
    elif isinstance(X, dict):
        both = {k: torch.cat([X[k], V[k]]) for k in X if isinstance(X[k], Tensor)}
        n = next(len(v) for v in X.values() if isinstance(v, Tensor))
    else:
        both = [torch.cat([a, b]) for a, b in zip(X, V, strict=True) if isinstance(a, Tensor)]
        n = next(len(a) for a in X if isinstance(a, Tensor))
    return bits_of(both, first.nonzero().flatten(), since=n)


def _near(facts: Facts, X: Any, V: Any) -> tuple[float, Tensor] | None:
    """Return the share of validation rows that lie next to a training row, beyond chance."""
    lens = the_lens(facts)
    if lens is None or is_tokens(X) or not isinstance(X, Tensor) or not X.is_floating_point():
        return None
    if X[0].numel() < WIDTH or len(X) > 20_000 or len(X) < 50 or facts.inputs == "sequence":
        return None
    # Pixels share a scale: of one that hardly varies the noise of a copy would count in full.
    seen = _pixels if facts.inputs == "image" else lens.straight
    a = seen(X).float()
    chosen = torch.arange(min(len(V), 400)) * len(V) // min(len(V), 400)
    b = seen(V[chosen]).float()
    own = torch.arange(min(len(X), 400)) * len(X) // min(len(X), 400)
    within = torch.cdist(a[own], a)
    within[torch.arange(len(own)), own] = torch.inf
    usual = within.min(1).values
    scale = NEAR * float(usual.median())
    if scale <= 0:
        return None
    close = torch.cdist(b, a).min(1).values < scale
    share, chance = float(close.double().mean()), float((usual < scale).double().mean())
    if share <= max(NEAR_SHARE, TIMES * chance) or int(close.sum()) < LEAST:
        return None
    mask = torch.zeros(len(V), dtype=torch.bool)
    mask[chosen[close]] = True
    return share, mask


def _pixels(X: Tensor) -> Tensor:
    """Return images as they are, large ones pooled: (n, numbers)."""
    x = torch.nan_to_num(X.detach().cpu().float())
    return (F.adaptive_avg_pool2d(x, SIDE) if x[0, 0].numel() > SIDE * SIDE else x).flatten(1)


RULE = Rule(
    code="train_val_overlap",
    title="validation rows are training rows",
    looks="validation is as good as training, and use is worse than both",
    why="a row that was trained on says how well the net remembers, not how well it answers",
    do="take the rows out of validation; divide by groups of equal or nearly equal rows",
    source="Kapoor and Narayanan 2023, Leakage and the reproducibility crisis, arXiv:2207.07048",
    before=before,
)
