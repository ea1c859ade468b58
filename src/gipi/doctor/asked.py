"""What a loss asks of outputs, whatever it is called: how it pulls at each row.

Outputs are drawn anew, of the kind that the net gives, so that the answer hangs on the loss and its
targets alone: a margin that is kept here is not kept there.

Shapes: n rows, k columns, C classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gipi.doctor.copies import peeking
from gipi.doctor.hushed import hushed

if TYPE_CHECKING:
    from gipi.doctor.facts import Facts

ROWS = 512
"""Rows that are asked."""
TRIALS = ((1.0, False), (0.1, False), (1.0, True), (0.1, True))
"""How outputs are drawn for them: their spread, and whether parts of a row are nearly alike. What
is far from its margin here is within it there."""
ALIKE = 0.1
LEAST, MOST = 8, 50
"""Rows of a class of which something can be said; values that may be classes."""
WIDE = 4096
"""Numbers of a row up to which it is asked."""
NONE = 1e-7
"""Part of the largest pull that is none."""
SAME = 1e-5
"""Part of a loss that is rounding."""
FAILS = (RuntimeError, ValueError, IndexError, TypeError, AttributeError)
"""What a loss may raise at outputs that it was not written for."""


@dataclass(frozen=True)
class Pulls:
    """Minus the slope of a loss at some outputs of n rows: which way it moves each of them.

    y    targets of the rows
    of   for every trial, the pull on each part of the outputs, (n, numbers of a row) each
    """

    y: Tensor
    of: list[list[Tensor]]

    @property
    def size_n(self) -> Tensor:
        """The largest pull on each row in any trial."""
        rows = [part.abs().amax(1) for trial in self.of for part in trial]
        return torch.stack(rows).amax(0)

    @property
    def alone(self) -> list[Tensor] | None:
        """The pulls of every trial where outputs have the shape of targets: (n, k) each."""
        k = self.y.numel() // len(self.y)
        first = self.of[0]
        if len(first) != 1 or first[0].shape[1] != k:
            return None
        return [trial[0] for trial in self.of]


def parts_of(said: Any) -> list[Tensor] | None:
    """Return the tensors of numbers that outputs consist of; None for anything else."""
    parts = list(said) if type(said) in (tuple, list) else [said]
    good = all(isinstance(p, Tensor) and p.ndim and p.is_floating_point() for p in parts)
    return parts if parts and good else None


def put_together(said: Any, parts: list[Tensor]) -> Any:
    """Return parts as the outputs that they were taken of."""
    return type(said)(parts) if type(said) in (tuple, list) else parts[0]


def drawn(
    part: Tensor, rows: int, generator: torch.Generator, *, at: Tensor | None = None
) -> Tensor:
    """Return random rows of the kind that outputs are: probabilities, their logarithms, numbers.

    at  the scores that they are made of; default: normal ones
    """
    if at is None:
        at = torch.randn(rows, *part.shape[1:], generator=generator).to(part)
    some = part[:ROWS]
    if some.ndim > 1 and some.shape[-1] > 1 and _is_one(some.sum(-1)) and bool((some >= 0).all()):
        return at.softmax(-1)
    if some.ndim > 1 and some.shape[-1] > 1 and _is_one(some.exp().sum(-1)):
        return at.log_softmax(-1)
    if bool(((some >= 0) & (some <= 1)).all()):
        return at.sigmoid()
    return at.abs() if bool((some >= 0).all()) else at


def pulls_of(facts: Facts) -> Pulls | None:
    """Return how the loss pulls at training rows; None where it cannot be asked."""
    parts, given = parts_of(facts.outputs), facts.batch[1]
    if parts is None or not isinstance(given, Tensor) or not given.ndim:
        return None
    if not all(len(p) == len(given) for p in parts):
        return None
    if given[:1].numel() > WIDE or sum(p[:1].numel() for p in parts) > WIDE:
        return None
    whole = facts.y if facts.y is not None else given
    whole = whole[torch.arange(0, len(whole), max(1, len(whole) // ROWS))[:ROWS]]
    for y in (whole, given):
        found = _asked(facts, parts, y)
        if found is not None:
            return found
    return None


def _asked(facts: Facts, parts: list[Tensor], y: Tensor) -> Pulls | None:
    generator = torch.Generator().manual_seed(0)
    found = []
    try:
        with hushed(), peeking(facts.exp, seed=True), torch.enable_grad():
            for spread, alike in TRIALS:
                scores = _scores(parts, len(y), generator, alike=alike)
                at = [drawn(p.detach(), len(y), generator, at=spread * s).requires_grad_()
                      for p, s in zip(parts, scores, strict=True)]  # fmt: skip
                loss = facts.exp.loss(put_together(facts.outputs, at), y)
                slopes = torch.autograd.grad(loss.sum(), at, allow_unused=True)
                pulls = [torch.zeros_like(a) if s is None else -s
                         for a, s in zip(at, slopes, strict=True)]  # fmt: skip
                found.append([p.reshape(len(y), -1) for p in pulls])
    except FAILS:
        return None
    good = all(bool(p.isfinite().all()) for trial in found for p in trial)
    return Pulls(y, found) if good else None


def _scores(
    parts: list[Tensor], rows: int, generator: torch.Generator, *, alike: bool
) -> list[Tensor]:
    found = [torch.randn(rows, *p.shape[1:], generator=generator).to(p) for p in parts]
    if not alike:
        return found
    return [found[0] + ALIKE * s if s.shape == found[0].shape else s for s in found]


def labels_of(facts: Facts, y: Tensor) -> Tensor | None:
    """Return one label a row where targets may be classes: numbers of outputs, or two values."""
    if y.numel() != len(y):
        return None
    y, said = y.reshape(-1), facts.outputs
    values = torch.unique(y)
    if len(values) == 2:
        return y if float(values[0]) in (-1.0, 0.0) and float(values[1]) == 1 else None
    classes = not y.is_floating_point() and 2 < len(values) <= MOST
    wide = said.shape[1] if isinstance(said, Tensor) and said.ndim == 2 else 0
    return y if classes and int(values[0]) >= 0 and int(values[-1]) < wide else None


def unasked(facts: Facts, pulls: Pulls) -> tuple[float, float] | None:
    """Return the class at whose rows a loss never pulls, and its share; None where it asks for all.

    One class alone, which validation rows have as well: what has no label is not judged.
    """
    label = labels_of(facts, pulls.y)
    if label is None or by_likeness(facts):
        return None
    size, dead = pulls.size_n, list[float]()
    for value in torch.unique(label).tolist():
        own = label == value
        if int(own.sum()) >= LEAST and float(size[own].max()) <= NONE * float(size.max()):
            dead.append(value)
    if len(dead) != 1 or float(size.max()) == 0:
        return None
    judged = facts.val[1] if facts.val is not None else label
    if not isinstance(judged, Tensor) or not bool((judged == dead[0]).any()):
        return None
    return dead[0], float((label == dead[0]).double().mean())


def ignored(pulls: Pulls) -> float | None:
    """Return the value, 0 or 1, at which answers of several columns are never pulled at."""
    y, found = pulls.y.reshape(len(pulls.y), -1), pulls.alone
    if found is None or y.shape[1] < 2 or not bool(((y == 0) | (y == 1)).all()):
        return None
    size = torch.stack([p.abs() for p in found]).amax(0)
    for value in (0.0, 1.0):
        own = y == value
        if int(own.sum()) >= LEAST and float(size[own].max()) <= NONE * float(size.max()):
            return value if float(size.max()) > 0 else None
    return None


def never_up(pulls: Pulls) -> list[int]:
    """Return the columns of zeros and ones in which no row is pulled up, while it is in others."""
    y, found = pulls.y.reshape(len(pulls.y), -1), pulls.alone
    if found is None or y.shape[1] < 2 or not bool(((y == 0) | (y == 1)).all()):
        return []
    own = y == 1
    up = torch.stack([torch.where(own, p, -torch.inf).amax(0) for p in found]).amax(0)
    many = own.sum(0) >= LEAST
    if not bool((up[many] > 0).any()):
        return []
    columns: list[int] = (many & (up <= 0)).nonzero().flatten().tolist()
    return columns


def by_likeness(facts: Facts) -> bool:
    """Whether a loss asks of labels only which rows have the same one: names may be exchanged."""
    said, y = facts.outputs, facts.batch[1]
    if not isinstance(said, Tensor) or said.ndim != 2 or not isinstance(y, Tensor):
        return False
    if y.is_floating_point() or y.ndim != 1 or len(y) != len(said):
        return False
    values, place = torch.unique(y, return_inverse=True)
    if len(values) < 2:
        return False
    for at in _places(facts, len(y)):
        first = value_of(facts, at, y)
        for names in (values.roll(1), values.flip(0)):
            if not _equal(first, value_of(facts, at, names[place])):
                return False
    return True


def blind_to_classes(facts: Facts) -> bool:
    """Whether a loss does not see what is added to the score of a class in all rows alike.

    A softmax over rows, not over classes, takes it out: which class is likelier is not learned.
    """
    said, y = facts.outputs, facts.batch[1]
    if facts.kind != "classes" or not isinstance(said, Tensor) or said.ndim != 2:
        return False
    if said.shape[1] < 2 or len(said) < 2 or len(y) != len(said) or by_likeness(facts):
        return False
    way = torch.randn(said.shape[1], generator=torch.Generator().manual_seed(1)).to(said)
    some = False
    for at in _places(facts, len(said)):
        here, there, other = (value_of(facts, a, y) for a in (at, at + way, at.flip(1)))
        if here is None or there is None or other is None or not _equal(here, there):
            return False
        some |= not _equal(here, other)
    return some


def value_of(facts: Facts, said: Any, y: Any) -> float | None:
    """Return the loss of any outputs and targets; None where it fails."""
    try:
        with hushed(), peeking(facts.exp, seed=True), torch.no_grad():
            return float(facts.exp.loss(said, y))
    except FAILS:
        return None


def _places(facts: Facts, rows: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [drawn(facts.outputs, rows, generator) for _ in range(2)]


def _equal(one: float | None, other: float | None) -> bool:
    return (one is not None and other is not None
            and abs(one - other) <= SAME * max(abs(one), abs(other), 1e-3))  # fmt: skip


def _is_one(sums: Tensor) -> bool:
    return float((sums - 1).abs().max()) < 1e-3
