"""Single-column leaks: columns that alone predict the target almost perfectly.

Each column is cut into bins (its labels, or quantiles of its numbers; missing values are a bin of
their own) and the target is predicted by what the bin held in the other folds of a five-fold
cross-validation. A column that scores this high is rarely a feature: it is the answer under another
name, or something that is only known afterwards.

Of a text its length, its first and its last word are looked at in the same way: a label that was
left in the text stands there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from gipi.data.source import as_labels, is_missing

if TYPE_CHECKING:
    from gipi.core.schema import Field, Schema
    from gipi.data.source import Source

FOLDS = 5
BINS = 256
ROWS_A_BIN = 8
LABELS = 2_000  # different labels beyond which a column cannot be judged
FEWEST = 50  # rows below which nothing can be said
COLUMNS = 2_000  # columns looked at, in order
CLASSIFY_AT = 0.97  # share of the errors of guessing that the column removes in each class
REGRESS_AT = 0.99


@dataclass(frozen=True)
class Leak:
    """A column (or "x[17]", one number of a vector) and its cross-validated score in [0, 1]."""

    column: str
    score: float


def leaks_in(source: Source, schema: Schema) -> list[Leak]:
    """Return the columns of `source` that alone predict the target, best first."""
    if schema.target is None or source.rows < FEWEST:
        return []
    if schema.target.kind == "text" or schema.task in ("tag", "answer"):
        return []
    target = source.columns[schema.target.name]
    if not isinstance(target, np.ndarray) or target.ndim > 1 or target.dtype.kind in "mM":
        return []
    fold = np.random.default_rng(0).permutation(source.rows) % FOLDS
    classify = schema.task == "classify"
    if classify:
        _, y = np.unique(as_labels(target).astype(str), return_inverse=True)
        least = CLASSIFY_AT
    else:
        y, least = _ranks(target.astype(np.float64)), REGRESS_AT
    found = []
    candidates = [f for f in schema.fields if f.role in ("input", "ignored", "group", "time")]
    for name, column in _single(candidates, source)[:COLUMNS]:
        bins = _bins(column)
        if bins is None:
            continue
        score = _class_score(bins, y, fold) if classify else _rank_score(bins, y, fold)
        if score >= least:
            found.append(Leak(name, round(score, 4)))
    return sorted(found, key=lambda leak: -leak.score)


def _single(fields: list[Field], source: Source) -> list[tuple[str, np.ndarray]]:
    out: list[tuple[str, np.ndarray]] = []
    for f in fields:
        name, column = f.name, source.columns[f.name]
        if not isinstance(column, np.ndarray) or column.ndim > 2:
            continue
        if f.kind == "text" and column.dtype.kind == "O":
            out += _of_text(name, column)
        elif column.ndim == 2:
            out += [(f"{name}[{j}]", column[:, j]) for j in range(min(column.shape[1], COLUMNS))]
        else:
            out.append((name, column))
    return out


def _of_text(name: str, column: np.ndarray) -> list[tuple[str, np.ndarray]]:
    words = [str(v).split() if v is not None else [] for v in column.tolist()]
    first, last = (np.array([w[k] if w else "" for w in words], dtype=object) for k in (0, -1))
    length = np.array([sum(map(len, w)) for w in words], dtype=np.float64)
    return [(f"{name}: length", length), (f"{name}: first word", _common(first)),
            (f"{name}: last word", _common(last))]  # fmt: skip


def _common(words: np.ndarray) -> np.ndarray:
    """Return words with all that are rare as one: a word that occurs once predicts nothing."""
    found, inverse, counts = np.unique(words.astype(str), return_inverse=True, return_counts=True)
    often = np.argsort(-counts, kind="stable")[: max(1, min(LABELS, len(words) // 2) - 1)]
    names = np.full(len(found), "(rare)", dtype=object)
    names[often] = found[often]
    names[counts == 1] = "(rare)"
    return np.asarray(names[inverse.reshape(-1)], dtype=object)


def _bins(column: np.ndarray) -> np.ndarray | None:
    """Return (N,) bin numbers from 0, or None where the column has too many different labels."""
    lost = is_missing(column)
    if column.dtype.kind in "OUSb":
        _, bins = np.unique(np.where(lost, "", column.astype(str)), return_inverse=True)
        bins = np.where(lost, 0, bins.reshape(-1) + 1)
        return bins if bins.max() <= min(LABELS, len(column) // 2) else None
    values = column.astype(np.int64 if column.dtype.kind in "mM" else np.float64)
    present = values[~lost]
    if not len(present):
        return None
    count = max(2, min(BINS, len(present) // ROWS_A_BIN))
    edges = np.unique(np.quantile(present, np.linspace(0, 1, count + 1)[1:-1]))
    bins = np.searchsorted(edges, values, side="right") + 1
    return np.where(lost, 0, bins)


def _ranks(y: np.ndarray) -> np.ndarray:
    """Return mid-ranks scaled to [0, 1], so that a heavy tail cannot decide the score."""
    _, inverse, counts = np.unique(y, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    middle: np.ndarray = (ends - counts / 2)[inverse.reshape(-1)] / len(y)
    return middle


def _class_score(bins: np.ndarray, y: np.ndarray, fold: np.ndarray) -> float:
    """Return (b - 1/K) / (1 - 1/K), with b the cross-validated balanced accuracy over K classes."""
    size, classes = int(bins.max()) + 1, int(y.max()) + 1
    whole = np.bincount(bins * classes + y, minlength=size * classes).reshape(size, classes)
    prior = np.bincount(y, minlength=classes)
    right = np.zeros(classes)
    for k in range(FOLDS):
        held = fold == k
        part = np.bincount(bins[held] * classes + y[held], minlength=size * classes)
        table = whole - part.reshape(size, classes)
        guess = (table / np.maximum(prior, 1)).argmax(1)  # the class for which the bin is typical
        guess[table.sum(1) == 0] = int(prior.argmax())
        hit = guess[bins[held]] == y[held]
        right += np.bincount(y[held][hit], minlength=classes)
    balanced = float((right / np.maximum(prior, 1)).mean())
    return (balanced - 1 / classes) / (1 - 1 / classes)


def _rank_score(bins: np.ndarray, y: np.ndarray, fold: np.ndarray) -> float:
    """Return the cross-validated R² of predicting the target's rank by the mean of its bin."""
    size = int(bins.max()) + 1
    total, count = np.bincount(bins, y, size), np.bincount(bins, minlength=size)
    error = 0.0
    for k in range(FOLDS):
        held = fold == k
        rest = count - np.bincount(bins[held], minlength=size)
        sums = total - np.bincount(bins[held], y[held], size)
        mean = np.where(rest > 0, sums / np.maximum(rest, 1), y[~held].mean())
        error += float(((y[held] - mean[bins[held]]) ** 2).sum())
    spread = float(((y - y.mean()) ** 2).sum())
    return 1 - error / spread if spread else 0.0
