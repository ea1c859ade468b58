"""What simple learners get out of the same rows: a bar that a net should reach at least.

The nearest neighbours, ridge regression on random ReLU features and, of images, on likeness to
patches; all take milliseconds on the few thousand rows that they are given, and are judged on rows
that they were not fitted on.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gipi.doctor.copies import peeking
from gipi.doctor.experiment import call, outputs, whole
from gipi.doctor.patches import patches
from gipi.doctor.probes import accuracy_on
from gipi.doctor.tape import Op, Tape, same_numbers

if TYPE_CHECKING:
    from collections.abc import Callable

    from gipi.doctor.experiment import Experiment
    from gipi.doctor.facts import Facts

ROWS, UNSEEN = 1000, 1000
WIDTH = 256
"""Random features."""
COLUMNS = 2000
"""Inputs of more columns are left alone."""
NEAR = 7
PENALTY = 3e-2
"""Of the ridge on features, times their mean square."""
LEAST = 20
"""New rows, at least."""
LEAST_COLUMNS = 16
"""Columns of what is given back, at least: of few a code says little less than all."""
LAYERS = frozenset(("linear", "conv", "lstm", "gru", "rnn"))
WIDER = 8
"""Times as many numbers as a net passes on that a linear code is asked with."""
BLIND = 1e-5
"""Share of a loss by which it must change when classes change their names."""
PAIRS, CLOSE = 32, 1e-3
"""Pairs of rows by which a net is seen to be linear, and how far it may be off."""


@dataclass(frozen=True)
class Bar:
    """What simple learners reach: accuracy, or the explained share of the variance.

    best    of the best of them, on rows unseen; se: its standard error
    linear  of the best linear function, on the rows that it was fitted on
    """

    best: float
    se: float
    linear: float


def bar(facts: Facts) -> Bar | None:
    """Return the bar for the training rows of `facts`; None where they are no plain numbers."""
    first = facts.start or facts
    if "bar" not in first.notes:
        first.notes["bar"] = _bar(first)
    found: Bar | None = first.notes["bar"]
    return found


def reached(exp: Experiment, facts: Facts) -> float:
    """Return what a net reaches, in the measure of the bar: on training or validation rows.

    The better of the two counts: rows of one split may be harder than those of the other.
    """
    found = [_reached(exp, facts, data) for data in (exp.train, exp.val) if data is not None]
    return max((f for f in found if f == f), default=float("nan"))  # noqa: PLR0124  NaN


@dataclass(frozen=True)
class Code:
    """What principal components of the training rows explain of unseen ones.

    width     numbers that the narrowest layer of the net passes on for a row
    own       explained by as many components; never by more than an eighth of the columns
    wide      components that are `WIDER` times as many, within the same bound
    explained by those; se: a bound of its standard error
    """

    width: int
    own: float
    wide: int
    explained: float
    se: float


def code(facts: Facts) -> Code | None:
    """Return what linear codes reach where a net gives back its input; None where none is fitted.

    The best linear code of m numbers is the first m principal components (Pearson 1901; Baldi and
    Hornik 1989).
    """
    first = facts.start or facts
    if "code" not in first.notes:
        first.notes["code"] = _code(first)
    found: Code | None = first.notes["code"]
    return found


def _code(facts: Facts) -> Code | None:
    exp = facts.exp
    seen, unseen = whole(exp.train, ROWS, exp.device), whole(exp.val, UNSEEN, exp.device)
    if seen is None or not isinstance(seen[0], Tensor) or not seen[0].is_floating_point():
        return None
    A = seen[0].reshape(len(seen[0]), -1).cpu().double()
    if unseen is None:
        order = torch.randperm(len(A), generator=torch.Generator().manual_seed(0))
        A, B = A[order[: len(A) * 3 // 4]], A[order[len(A) * 3 // 4 :]]
    else:
        B = unseen[0].reshape(len(unseen[0]), -1).cpu().double()
    most = A.shape[1] // 8
    if most < 1 or len(A) < 50 or len(B) < LEAST or not LEAST_COLUMNS <= A.shape[1] <= COLUMNS:
        return None
    if A.shape[1] != B.shape[1] or not bool(A.isfinite().all() and B.isfinite().all()):
        return None
    rows = len(facts.batch[1])
    widths = [op.output[0].numel() for op in passed(facts.tape, facts.exp.model)
              if op.kind in LAYERS and op.output.ndim > 1 and len(op.output) == rows]  # fmt: skip
    width = min(widths, default=A.shape[1])
    own, wide = min(width, most), min(WIDER * width, most)
    mean = A.mean(0)
    V = torch.linalg.eigh((A - mean).T @ (A - mean)).eigenvectors.flip(1)

    def told(m: int) -> float:
        return _explained((B - mean) @ V[:, :m] @ V[:, :m].T + mean, B)

    # No estimate from the rows: the largest that the error of a share of n rows can be.
    return Code(width, told(own), wide, told(wide), 0.5 / len(B) ** 0.5)


def passed(tape: Tape, model: nn.Module) -> list[Op]:
    """Return the calls that all ways from the inputs to the outputs lead through.

    A gate, or a branch beside another, is none of them: at a call the ways of its inputs meet.
    Numbers that no call on the tape made came from a call that it does not know, of the one before.
    """
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    ways: list[frozenset[int]] = []

    def ways_to(value: Tensor) -> frozenset[int]:
        for i in reversed(range(len(ways))):
            if same_numbers(tape.ops[i].output, value):
                return ways[i]
        if any(same_numbers(value, v) for v in tape.ops[0].inputs):
            return frozenset()  # the row itself
        return ways[-1] if ways else frozenset()

    for op in tape.ops:
        inputs = [v for v in op.inputs if v.untyped_storage().data_ptr() not in weights]
        met = frozenset.intersection(*map(ways_to, inputs)) if inputs else frozenset()
        ways.append(met | {len(ways)})
    said = tape.outputs
    return [tape.ops[i] for i in sorted(ways_to(said))] if isinstance(said, Tensor) else []


def _reached(exp: Experiment, facts: Facts, data: Any) -> float:
    rows = whole(data, ROWS, exp.device)
    if rows is None:
        return float("nan")
    if facts.kind not in ("numbers", "reconstruct"):
        return accuracy_on(exp, *rows) if scores_classes(facts) else float("nan")
    said = outputs(exp, rows[0])
    if not isinstance(said, Tensor) or said.numel() != rows[1].numel():
        return float("nan")
    if facts.kind == "reconstruct" and facts.loss.of_logits:
        said = said.sigmoid()
    return _explained(said.reshape(len(said), -1), rows[1].reshape(len(said), -1))


def _bar(facts: Facts) -> Bar | None:
    exp = facts.exp
    if facts.inputs not in ("table", "image", "sequence"):
        return None
    if facts.kind not in ("classes", "binary", "numbers"):
        return None
    if facts.kind == "numbers" and facts.loss.name not in ("mse", "mae", "huber"):
        return None  # outputs may be logarithms, quantiles or spreads
    rows = _splits(exp)
    if rows is None or rows[0][0][0].numel() > COLUMNS:
        return None
    seen, unseen = rows
    A, B = _columns(seen[0], unseen[0])
    if not (bool(torch.isfinite(A).all()) and bool(torch.isfinite(B).all())):
        return None
    far = torch.cdist(B, A)
    fresh = far.min(1).values > CLOSE  # a row that was seen is no new one
    if int(fresh.sum()) < LEAST:
        return None
    B, far = B[fresh], far[fresh]
    ya, yb = seen[1].cpu().reshape(len(A), -1), unseen[1].cpu()[fresh].reshape(len(B), -1)
    numbers = facts.kind == "numbers"
    T = _targets(ya, yb, numbers=numbers)
    if T is None:
        return None

    generator = torch.Generator().manual_seed(0)
    W = torch.randn(A.shape[1], WIDTH, generator=generator, dtype=torch.float64)
    W = W * (2 / A.shape[1]) ** 0.5
    b = torch.rand(WIDTH, generator=generator, dtype=torch.float64) - 0.5
    features = [torch.cat([M, (M @ W + b).relu()], 1) for M in (A, B)]
    wide = _told(_ridge(features[0], T, features[1], PENALTY), yb, numbers=numbers)
    near = far.topk(min(NEAR, len(A)), largest=False).indices
    close = _told(T[near].mean(1), yb, numbers=numbers)
    linear = _told(_ridge(A, T, A, 1e-4), ya, numbers=numbers)
    shapes = _told(_of_patches(seen[0], unseen[0][fresh], T), yb, numbers=numbers)
    best = max(wide, close, shapes)
    spread = (best * (1 - best)) ** 0.5 if not numbers and 0 < best < 1 else 0.5
    return Bar(best, spread / len(B) ** 0.5, linear)


def linear_of(facts: Facts, look: Callable[[Tensor], Tensor | None]) -> float:
    """Return what the best linear function of `look(rows)` tells of new rows; NaN for none.

    In the measure of the bar, by ridge regression.
    """
    rows = _splits(facts.exp)
    if rows is None:
        return float("nan")
    (X, y), (new, truth) = rows
    made, fresh = look(X), look(new)
    if made is None or fresh is None or made[0].numel() > COLUMNS:
        return float("nan")
    A, B = _columns(made, fresh)
    numbers = facts.kind == "numbers"
    ya, yb = y.cpu().reshape(len(A), -1), truth.cpu().reshape(len(B), -1)
    T = _targets(ya, yb, numbers=numbers)
    if T is None or not bool(A.isfinite().all() and B.isfinite().all()):
        return float("nan")
    return _told(_ridge(A, T, B, PENALTY), yb, numbers=numbers)


def _splits(exp: Experiment) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]] | None:
    """Return rows to fit on and new ones: of the training rows where there are no others."""
    seen = whole(exp.train, ROWS, exp.device)
    unseen = whole(exp.val, UNSEEN, exp.device)
    if seen is None or not isinstance(seen[0], Tensor) or not isinstance(seen[1], Tensor):
        return None
    if unseen is None:
        cut = len(seen[0]) * 3 // 4
        order = torch.randperm(len(seen[0]), generator=torch.Generator().manual_seed(0))
        X, y = seen[0][order], seen[1][order]
        seen, unseen = (X[:cut], y[:cut]), (X[cut:], y[cut:])
    return None if len(seen[0]) < 50 or len(unseen[0]) < LEAST else (seen, unseen)


def _targets(y: Tensor, new: Tensor, *, numbers: bool) -> Tensor | None:
    """Return what a linear function is fitted to: the numbers, or a column a class."""
    if numbers:
        return y.double()
    classes = int(max(y.max(), new.max())) + 1
    if y.shape[1] > 1 or classes > 100:
        return None
    return F.one_hot(y.long().clamp_min(0).flatten(), classes).double()


def _told(told: Tensor, y: Tensor, *, numbers: bool) -> float:
    if numbers:
        return _explained(told, y.double())
    return float((told.argmax(1) == y.flatten().long()).double().mean())


def _of_patches(seen: Tensor, unseen: Tensor, T: Tensor) -> Tensor:
    """Return what a ridge regression on likeness to patches says of images; else the mean."""
    likeness = patches(seen.cpu()) if seen.ndim == 4 else None
    if likeness is None:
        return T.mean(0).expand(len(unseen), -1)
    A, B = _columns(likeness(seen.cpu()), likeness(unseen.cpu()))
    return _ridge(A, T, B, PENALTY)


def _columns(A: Tensor, B: Tensor) -> tuple[Tensor, Tensor]:
    A, B = (M.reshape(len(M), -1).cpu().double() for M in (A, B))
    mean, std = A.mean(0), A.std(0)
    std = torch.where(std > 1e-12, std, torch.ones_like(std))
    return (A - mean) / std, ((B - mean) / std).clamp(-10, 10)


def _ridge(A: Tensor, T: Tensor, B: Tensor, penalty: float) -> Tensor:
    """Return what ridge regression of T on A says of B; penalty times the mean of the diagonal."""
    centre, mean = A.mean(0), T.mean(0)
    A, B = A - centre, B - centre
    G = A.T @ A
    G += penalty * G.diagonal().mean() * torch.eye(len(G), dtype=G.dtype) + 1e-9 * torch.eye(
        len(G), dtype=G.dtype
    )
    told: Tensor = B @ torch.linalg.solve(G, A.T @ (T - mean)) + mean
    return told


def _explained(told: Tensor, y: Tensor) -> float:
    y, told = y.cpu().double(), told.cpu().double()
    total = float((y - y.mean(0)).square().sum())
    return 1 - float((y - told).square().sum()) / total if total > 0 else float("nan")


def scores_classes(facts: Facts) -> bool:
    """Whether outputs are scores of classes: not where the loss is blind to their names.

    A loss of pairs or triplets, or of views of a row, reads outputs as places: it stays the same
    when every class is given the name of the next one.
    """
    said, y = facts.outputs, facts.batch[1]
    if facts.kind != "classes" or facts.loss.name != "other" or not isinstance(said, Tensor):
        return True
    generator = torch.Generator().manual_seed(0)
    every = facts.y  # a batch of sorted rows knows one class
    if every is not None and every.shape[1:] == y.shape[1:] and len(every) >= len(y):
        y = every[torch.randperm(len(every), generator=generator)[: len(y)].to(every.device)]
    ids, which = torch.unique(y, return_inverse=True)
    if len(ids) < 2:
        return True  # there is nothing to rename
    spread = torch.randn(said.shape, generator=generator).to(said)
    for start in (said, spread):
        found = []
        for names in (y, ids.roll(1)[which]):
            # A loss may draw its pairs, and may keep what it has seen.
            with peeking(facts.exp, seed=True), torch.no_grad():
                try:
                    found.append(float(facts.exp.loss(start, names)))
                except (RuntimeError, ValueError, IndexError, TypeError):
                    return True
        if not all(map(math.isfinite, found)) or abs(found[0] - found[1]) > BLIND * abs(found[0]):
            return True
    return False


def is_linear(facts: Facts, xb: Tensor) -> bool:
    """Whether f(a + b) - f(a) - f(b) + f(0) is zero for rows a, b: one pass in evaluation mode."""
    half = min(PAIRS, len(xb) // 2)
    a, b = xb[:half], xb[half : 2 * half]
    facts.passes += 1
    with peeking(facts.exp), torch.no_grad():
        facts.exp.model.eval()
        said = call(facts.exp.model, torch.cat([a, b, a + b, torch.zeros_like(a[:1])]))
    if not isinstance(said, Tensor) or len(said) != 3 * half + 1:
        return False
    said = said.double()
    fa, fb, fab, f0 = said[:half], said[half : 2 * half], said[2 * half : 3 * half], said[-1:]
    size = float((fa - f0).abs().max() + (fb - f0).abs().max())
    return size > 0 and float((fab - fa - fb + f0).abs().max()) < CLOSE * size
