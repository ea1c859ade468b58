"""The classes that targets stand for and those that answers stand for, whatever their form.

One class a row, one at every place of a row, tags that a row has or has not, the two numbers that
stand for no and yes, or a column a class.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gipi.doctor.sheet import classes_of

if TYPE_CHECKING:
    from gipi.doctor.facts import Facts

MOST = 12
"""Classes at places, at most: more are words, which are unequal by nature."""
COPIED = 0.5
"""Share of targets at places that are inputs of the row from which on they are no classes of it."""

ALIKE = 0.3
"""Half the sum of differences of two frequencies below which they are of one kind."""


def labels_of(facts: Facts, y: Tensor) -> Tensor | None:
    """Return the class of every row (n,), or of every answer of every row (n, places).

    Negative where none is given. Tag c is class 2c where a row has it not and 2c + 1 where it has.
    """
    label = classes_of(facts, y)
    if label is not None:
        return label
    start = facts.start or facts
    if start.kind == "tokens" and not y.is_floating_point() and y.ndim > 1:
        return y.flatten(1).long() if _are_classes(start) else None
    if not y.is_floating_point():
        return None
    form = _form(start)
    if form == "tags":
        return _pairs(y > 0.5, tags_of(start))
    if form == "columns":
        return y.argmax(1)
    if form in ("signs", "shares"):
        return (y > (0.0 if form == "signs" else 0.5)).reshape(len(y)).long()
    return None


def tags_of(facts: Facts) -> int:
    """Return how many tags a row, or a place of it, has or has not; 0 where targets are no tags.

    Masks of an image, and yes or no at every step of a sequence, are one tag at every place.
    """
    start = facts.start or facts
    X, y = start.X, start.y
    if y is None or _form(start) != "tags":
        return 0
    if X is not None and X.ndim > 2 and y.shape[1:] in (X.shape[2:], X.shape[1:2]):
        return 1
    return int(y.shape[1]) if y.ndim in (2, 4) else 0


def _pairs(has: Tensor, tags: int) -> Tensor | None:
    """Return 2c + 1 where tag c is had and 2c elsewhere: (n, answers)."""
    if not tags:
        return None
    kinds = 2 * torch.arange(tags, device=has.device).view(1, -1, 1)
    return (kinds + has.reshape(len(has), tags, -1).long()).flatten(1)


def _form(start: Facts) -> str:
    """Return what numbers stand for: "tags", "columns" of classes, "signs", "shares"; else ""."""
    if "form of labels" not in start.notes:
        y = start.y
        start.notes["form of labels"] = "" if y is None else _told(start, y)
    form: str = start.notes["form of labels"]
    return form


def _told(start: Facts, y: Tensor) -> str:
    if not y.is_floating_point() or not bool(((y == 0) | (y == 1) | (y == -1)).all()):
        return ""
    if start.kind == "multilabel":
        return "tags" if y.ndim > 1 and not bool((y < 0).any()) else ""
    columns = math.prod(y.shape[1:])
    if columns == 1 and start.kind == "numbers":
        kinds = torch.unique(y).tolist()
        return {(-1.0, 1.0): "signs", (0.0, 1.0): "shares"}.get(tuple(kinds), "")
    one = y.ndim == 2 and columns > 1 and bool((y.sum(1) == 1).all() and (y >= 0).all())
    return "columns" if one else ""


def _are_classes(start: Facts) -> bool:
    """Whether targets at places are few classes, and not the inputs of other places."""
    X, y = start.X, start.y
    if y is None or y.is_complex() or int(y.max()) >= MOST:
        return False
    if X is None or X.is_floating_point() or X.shape != y.shape or X.ndim < 2:
        return True
    same = [y == X, X[:, 1:] == y[:, :-1], X[:, :-1] == y[:, 1:]]
    copied = max(float(s.double().mean()) for s in same) >= COPIED
    return not copied and not _of_one_kind(X, y[y >= 0])


def _of_one_kind(X: Tensor, y: Tensor) -> bool:
    """Whether inputs are mostly ids of classes, as frequent as these: words that were masked."""
    ids = int(y.max()) + 1
    known = X[(X >= 0) & (ids > X)]
    if known.numel() < COPIED * X.numel():
        return False
    p, q = (torch.bincount(v.flatten(), minlength=ids).double() / v.numel() for v in (known, y))
    return float((p - q).abs().sum()) / 2 < ALIKE


def answers_of(
    said: Any,
    y: Tensor,
    facts: Facts,
    counts: tuple[Tensor, Tensor] | None,
    *,
    cut: float | None = None,
) -> Tensor | None:
    """Return the classes that outputs stand for, in the shape of `labels_of`; None for no classes.

    The largest of several, or above even odds. The frequency of the classes is log p_c in logits.

    counts  classes and their answers, whose frequency is taken out; None: the answers as they are
    cut     what is yes of a single number; None: above even odds
    """
    label = labels_of(facts, y)
    if label is None or not isinstance(said, Tensor) or not said.is_floating_point():
        return None
    if label.ndim == 1 and said.numel() == len(said):
        middle = _middles(facts, said, counts, 1)[0] if cut is None else cut
        return (said.reshape(len(said)) > middle).long()
    tags = tags_of(facts)
    if tags and said.numel() == y.numel():
        middles = _middles(facts, said, counts, tags).to(said).view(1, -1, 1)
        return _pairs(said.reshape(len(said), tags, -1) > middles, tags)
    kinds = _last(said, y)
    if kinds is None:
        return None
    if counts is not None and int(counts[0].max()) < kinds.shape[-1]:
        shift = torch.full_like(kinds.reshape(-1, kinds.shape[-1])[0], torch.inf)
        shift[counts[0].to(kinds.device)] = counts[1].log().to(kinds)
        kinds = kinds - shift
    largest: Tensor = kinds.argmax(-1)
    return largest.flatten(1) if label.ndim > 1 else largest


def _middles(facts: Facts, said: Tensor, counts: tuple[Tensor, Tensor] | None, tags: int) -> Tensor:
    """Return what is even odds of every tag, or would be were yes as frequent as no: (tags,)."""
    shares = facts.loss.of_probabilities or (
        _form(facts.start or facts) == "shares" and bool(((said >= 0) & (said <= 1)).all())
    )
    if counts is None:
        return torch.full((tags,), 0.5 if shares else 0.0)
    number = torch.zeros(2 * tags, dtype=torch.double)
    number[counts[0]] = counts[1]
    share = number[1::2] / number.view(-1, 2).sum(1).clamp_min(1)
    share = share.clamp(1e-6, 1 - 1e-6)
    return share if shares else (share / (1 - share)).log()


def _last(said: Tensor, y: Tensor) -> Tensor | None:
    """Return scores with the classes last, or None where they are no scores of the targets."""
    if y.is_floating_point():
        return said if said.shape == y.shape and y.ndim == 2 else None
    if said.ndim != y.ndim + 1:
        return None
    if said.shape[:-1] == y.shape:
        return said
    return said.movedim(1, -1) if said.shape[2:] == y.shape[1:] else None
