"""How validation inputs differ from training inputs: by their preparation, or by where they lie."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from gipi.doctor.experiment import rows_of
from gipi.doctor.order import quantiles
from gipi.doctor.seeded import seeded
from gipi.doctor.shallow import ask_ridge, auc, ridge, told
from gipi.doctor.sheet import classes_of, columns, cpu, is_tokens, noted, origin, take, the_lens

if TYPE_CHECKING:
    from gipi.doctor.facts import Facts

EVERY = "every column"
"""How what is said of all columns begins."""
REFUTED = "validation is prepared as training is"
"""Where it is noted that rows told no better when they were brought in line: they lie elsewhere."""
KINDS = ("table", "sequence", "image")
LEAST = 30
HALF = 600
TURNS = {
    "upside down": lambda x: x.flip(2),
    "left and right exchanged": lambda x: x.flip(3),
    "rows and columns exchanged": lambda x: x.transpose(2, 3),
    "channels in reverse order": lambda x: x.flip(1),
    "light and dark exchanged": lambda x: -x,
}
ALIKE, UNLIKE = 0.8, 0.5
NEARER, BEYOND = 3.0, 2.0
"""Times as near a turned mean image must be where even the other one is alike, as channels of one
picture are; and sampling variances that lie between the means as they are."""
DRAWS = 7
"""Times that a transform must make the same again of the same rows to be none that draws."""
LOW = 0.6
"""Area under the curve below which nobody asks whether it is chance."""


@dataclass(frozen=True)
class Stats:
    """Columns of both splits: means and spreads, as training batches bring them and validation.

    scale    distance of the 10th and 90th percentile where that is not 0, else 0
    """

    mean: Tensor
    std: Tensor
    scale: Tensor
    val_mean: Tensor
    val_std: Tensor
    val_scale: Tensor
    rows: int


def stats(facts: Facts) -> Stats | None:
    """Return the statistics of columns in both splits; None for what has no columns in common."""
    return noted(facts, "statistics of columns", _stats)


def _stats(facts: Facts) -> Stats | None:
    both = both_columns(facts)
    if both is None:
        return None
    a, b = both
    rows = rows_of(facts.val[0]) if facts.val is not None else 0
    return Stats(a.mean(0), a.std(0), _scale(a), b.mean(0), b.std(0), _scale(b), rows)


def both_columns(facts: Facts) -> tuple[Tensor, Tensor] | None:
    """Return the columns of both splits, as training batches bring them and validation."""
    X, V = facts.X, facts.val[0] if facts.val is not None else None
    if X is None or not isinstance(V, Tensor) or facts.inputs not in KINDS:
        return None
    if not V.is_floating_point() or X.shape[1:] != V.shape[1:] or len(V) < LEAST:
        return None
    if facts.exp.transform is not None and _prepares(facts, X):
        X = as_trained(facts, X)
    if X is None or X.ndim != V.ndim:
        return None
    a, b = columns(facts, X), columns(facts, V)
    a, b = a[a.isfinite().all(1)], b[b.isfinite().all(1)]
    if a.shape[1] != b.shape[1] or len(a) < LEAST or len(b) < LEAST:
        return None
    return a, b


def as_trained(facts: Facts, X: Tensor, *, rows: int = 512) -> Tensor | None:
    """Return inputs as the training step gives them to the model: through the transform."""
    transform = facts.exp.transform
    if transform is None:
        return X
    chosen = torch.arange(min(rows, len(X)), device=X.device) * len(X) // min(rows, len(X))
    given = X[chosen]
    try:
        with seeded(facts.exp), torch.no_grad():
            made = [transform(part) for part in given.clone().split(facts.exp.batch_size)]
    except (RuntimeError, ValueError, TypeError, IndexError):
        return None
    if not all(isinstance(m, Tensor) and m.shape[1:] == made[0].shape[1:] for m in made):
        return None
    return torch.cat(made)


def _prepares(facts: Facts, X: Tensor) -> bool:
    """Whether the transform leaves rows alike but for their scale: noise and masks do not."""
    made = as_trained(facts, X, rows=128)
    if made is None or made.shape[1:] != X.shape[1:] or not made.is_floating_point():
        return False
    chosen = torch.arange(len(made), device=X.device) * len(X) // len(made)
    a, b = X[chosen].flatten(1).float(), made.flatten(1).float()
    a, b = a - a.mean(1, keepdim=True), b - b.mean(1, keepdim=True)
    norm = (a.norm(dim=1) * b.norm(dim=1)).clamp_min(1e-12)
    return float(((a * b).sum(1) / norm).median()) > ALIKE


def is_repeatable(facts: Facts, X: Tensor) -> bool:
    """Whether the transform makes the same of the same rows: it prepares and does not augment."""
    transform = facts.exp.transform
    if transform is None:
        return False
    with seeded(facts.exp), torch.no_grad():
        first = transform(X[:16].clone())
        if not isinstance(first, Tensor):
            return False
        # One that draws once a batch, whether to mirror it say, is often the same twice in a row.
        return all(
            again.shape == first.shape and bool(torch.equal(again, first))
            for again in (transform(X[:16].clone()) for _ in range(DRAWS))
        )


def mismatch(facts: Facts) -> tuple[str, list[int], float] | None:
    """Return what differs in the preparation, the columns where, and by how much; or None."""
    return noted(facts, "mismatch", _mismatch)


def _mismatch(facts: Facts) -> tuple[str, list[int], float] | None:
    s = stats(facts)
    if s is None:
        return None
    wide = s.scale > 1e-9 * (1 + s.mean.abs())
    if bool(wide.any()):
        ratio = (s.val_scale / s.scale.clamp_min(1e-300)).clamp(1e-12, 1e12)
        factor = torch.maximum(ratio, 1 / ratio)
        factor = torch.where(wide & (s.val_scale > 0), factor, torch.ones_like(factor))
        factor = torch.where(_confirmed_by_spread(s, ratio), factor, torch.ones_like(factor))
        off = torch.where(wide, (s.val_mean - s.mean).abs() / s.std.clamp_min(1e-300), 0.0)
        lost = wide & (s.val_std <= 1e-9 * (1 + s.val_mean.abs())) & (s.rows >= 50)
        usual = float(factor[wide].median())
        if _standard(s.mean, s.std, wide) != _standard(s.val_mean, s.val_std, wide) and (
            usual > 1.5 or float(off[wide].median()) > 1
        ):
            return (
                f"{EVERY} is standardised in one split alone",
                _worst(off + factor, 1.0),
                usual,
            )
        if usual > 3:
            return f"{EVERY} is on another scale", _worst(factor, 3.0), usual
        if float(factor.max()) > 5:
            return "a column is on another scale", _worst(factor, 5.0), float(factor.max())
        if float(off[wide].median()) > 5:
            return f"{EVERY} lies elsewhere", _worst(off, 5.0), float(off[wide].median())
        if bool(lost.any()):
            return "a column is constant in validation", _worst(lost.double(), 0.5), 5.0
    turned = turn(facts)
    return (f"images are {turned}", [], 5.0) if turned else None


def _confirmed_by_spread(s: Stats, ratio: Tensor) -> Tensor:
    """Whether the deviation of a column changes as its percentiles do, by half of it at least.

    Of a column that is mostly one number, as one that marks a class of a tenth of the rows, a few
    rows more or less decide on which side of a jump the 90th percentile lies.
    """
    spread = (s.val_std / s.std.clamp_min(1e-300)).clamp(1e-12, 1e12)
    return spread.log() * ratio.log().sign() >= 0.5 * ratio.log().abs()


def _standard(mean: Tensor, std: Tensor, live: Tensor) -> bool:
    """Whether columns have mean 0 and deviation 1 as exactly as only computing makes them."""
    return bool((mean[live].abs() < 0.01).all() and ((std[live] - 1).abs() < 0.01).all())


def turn(facts: Facts) -> str | None:
    """Return how the mean image of validation is turned against that of training, None for not."""
    facts = origin(facts)
    X, V = facts.X, facts.val[0] if facts.val is not None else None
    if facts.inputs != "image" or X is None or not isinstance(V, Tensor) or len(V) < LEAST:
        return None
    X = as_trained(facts, X)
    if X is None or X.ndim != 4 or X.shape[1:] != V.shape[1:] or len(X) < 2 * LEAST:
        return None
    one, two, mean, other = X[::2].mean(0), X[1::2].mean(0), X.mean(0), V.mean(0)
    if _like(one, two) < ALIKE:
        return None
    noise = float(X.var(0).sum()) / len(X) + float(V.var(0).sum()) / len(V)
    apart = float((mean - other).square().sum())
    unlike = _like(mean, other) <= UNLIKE
    for name, made in TURNS.items():
        turned = made(other[None])[0]
        if turned.shape != one.shape or _like(mean, turned) <= ALIKE:
            continue
        left = float((mean - turned).square().sum())
        if unlike or apart > max(NEARER * left, BEYOND * noise):
            return name
    return None


def domain(facts: Facts) -> tuple[float, bool] | None:
    """Return how well a ridge regression tells validation rows from training rows.

    The area under its curve, 0.5 for not at all, and whether that is beyond chance (asked where it
    is not far below); the same number of rows of each split.
    """
    return noted(facts, "domain", _domain)


def _domain(facts: Facts) -> tuple[float, bool] | None:
    lens = the_lens(facts)
    if lens is None or facts.train is None or facts.val is None:
        return None
    X, V = cpu(facts.train[0]), cpu(facts.val[0])
    n, m = rows_of(X), rows_of(V)
    if min(n, m) < LEAST or is_tokens(X) != is_tokens(V):
        return None
    if isinstance(X, Tensor) and (not isinstance(V, Tensor) or X.shape[1:] != V.shape[1:]):
        return None
    chosen = _alike(facts, n, m)
    if min(len(c) for c in chosen) < LEAST:
        return None
    return told_apart(*(lens(take(Z, c)) for Z, c in zip((X, V), chosen, strict=True)))


def domain_within(facts: Facts) -> tuple[float, bool] | None:
    """Return the same of the second half of the training rows, in their order, and the first.

    Rows of one source that changes as it goes on are told apart within training as well. Of rows
    that were shuffled it says nothing: their halves are alike.
    """
    facts = origin(facts)
    lens = the_lens(facts)
    if lens is None or facts.train is None:
        return None
    X = cpu(facts.train[0])
    half = rows_of(X) // 2
    if half < LEAST:
        return None
    k = min(half, HALF)
    chosen = torch.arange(k) * half // k
    return told_apart(*(lens(take(X, chosen + begin)) for begin in (0, half)))


def told_apart(one: Tensor, other: Tensor) -> tuple[float, bool]:
    """Return the area under the curve of who tells features of two sets of rows apart.

    And whether it is beyond chance, asked where it is not far below.
    """
    side = torch.cat([torch.zeros(len(one)), torch.ones(len(other))])
    factors = ridge(torch.cat([one, other]))
    area = auc(told(factors, side[:, None])[:, 0], side > 0.5)
    return area, area > LOW and ask_ridge(factors, side[:, None])[0].found


def _alike(facts: Facts, n: int, m: int) -> tuple[Tensor, Tensor]:
    """Return equally many rows of training and of validation, of every class where there are any.

    Splits whose classes have other shares may still come from one place.
    """
    assert facts.train is not None
    assert facts.val is not None
    y, v = facts.train[1], facts.val[1]
    a = classes_of(facts, cpu(y)) if isinstance(y, Tensor) else None
    b = classes_of(facts, cpu(v)) if isinstance(v, Tensor) else None
    if a is None or b is None or len(a) != n or len(b) != m or len(torch.unique(a)) > 50:
        k = min(n, m, HALF)
        return torch.arange(k) * n // k, torch.arange(k) * m // k
    share = min(1.0, HALF / min(n, m))
    ones, others = [], []
    for kind in torch.unique(a):
        i, j = (a == kind).nonzero().flatten(), (b == kind).nonzero().flatten()
        k = int(share * min(len(i), len(j)))
        if k:
            ones.append(i[torch.arange(k) * len(i) // k])
            others.append(j[torch.arange(k) * len(j) // k])
    if not ones:
        return torch.arange(0), torch.arange(0)
    return torch.cat(ones), torch.cat(others)


def _scale(flat: Tensor) -> Tensor:
    rows = flat[:: max(1, len(flat) // 20_000)]
    at = torch.tensor([0.1, 0.9], dtype=rows.dtype)
    low, high = quantiles(rows.T.contiguous(), at).unbind()
    return torch.where(rows.isnan().any(0), torch.nan, high - low)


def _worst(value: Tensor, least: float) -> list[int]:
    order: list[int] = value.argsort(descending=True)[:8].tolist()
    return [i for i in order if float(value[i]) >= least]


def _like(a: Tensor, b: Tensor) -> float:
    a, b = a - a.mean(), b - b.mean()
    norm = float(a.norm() * b.norm())
    return float((a * b).sum()) / norm if norm > 0 else 1.0
