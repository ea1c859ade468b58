"""Kinds of data, from scikit-learn's bundled sets and generators, cut into train, val and test.

Everything is standardised or scaled as a careful person would; faults undo it. Sizes are chosen so
that a run takes a second on one thread.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np
import torch
from sklearn import datasets
from torch import Tensor

Cut = tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor], tuple[Tensor, Tensor]]
TRAIN, VAL, TEST = 512, 256, 512


def cut(X: Tensor, y: Tensor, seed: int, *, train: int = TRAIN, val: int = VAL) -> Cut:
    """Return train, val and test, shuffled by the seed; at most `TEST` test rows."""
    order = torch.randperm(len(X), generator=torch.Generator().manual_seed(seed + 1000))
    X, y = X[order], y[order]
    a, b = train, train + val
    return (X[:a], y[:a]), (X[a:b], y[a:b]), (X[b : b + TEST], y[b : b + TEST])


def scaled(parts: Cut, *, target: bool = False) -> Cut:
    """Return the splits with columns (and targets) standardised by the training rows."""
    X, y = parts[0]
    mean, std = X.mean(0), X.std(0) + 1e-6
    y_mean, y_std = (y.mean(0), y.std(0)) if target else (0.0, 1.0)
    return tuple(((X - mean) / std, (y - y_mean) / y_std if target else y) for X, y in parts)  # type: ignore[return-value]


def floats(values: Any) -> Tensor:
    return torch.as_tensor(np.asarray(values), dtype=torch.float32)


@cache
def _bundled(name: str) -> tuple[Tensor, Tensor]:
    X, y = getattr(datasets, f"load_{name}")(return_X_y=True)
    return floats(X), torch.as_tensor(np.asarray(y))


# ---------------------------------------------------------------------- tables


def digits(seed: int) -> Cut:
    """Handwritten digits as 64 numbers in 0..1, ten classes."""
    X, y = _bundled("digits")
    return cut(X / 16, y.long(), seed, train=700, val=300)


def cancer(seed: int) -> Cut:
    """Breast cancer, 30 standardised columns, yes or no as (N, 1) floats."""
    X, y = _bundled("breast_cancer")
    return scaled(cut(X, y.float()[:, None], seed, train=300, val=120))


def clouds(seed: int) -> Cut:
    """Five classes in 16 columns, 8 of them informative, 4 combinations of these."""
    X, y = datasets.make_classification(
        1600, 16, n_informative=8, n_redundant=4, n_classes=5, n_clusters_per_class=1,
        class_sep=1.4, flip_y=0.01, random_state=seed + 11,
    )  # fmt: skip
    return scaled(cut(floats(X), torch.as_tensor(y).long(), seed, train=800))


def moons(seed: int) -> Cut:
    """Two interleaved half circles: two columns, two classes."""
    X, y = datasets.make_moons(1200, noise=0.15, random_state=seed + 12)
    return scaled(cut(floats(X), torch.as_tensor(y).long(), seed, train=400, val=200))


def friedman(seed: int) -> Cut:
    """Friedman's first function: ten columns, five of them in use, little noise."""
    X, y = datasets.make_friedman1(1400, noise=0.5, random_state=seed + 13)
    return scaled(cut(floats(X), floats(y)[:, None], seed), target=True)


def diabetes(seed: int) -> Cut:
    """Diabetes progression: ten columns, half of the variance is noise."""
    X, y = _bundled("diabetes")
    return scaled(cut(X, y.float()[:, None], seed, train=220, val=100), target=True)


def three_numbers(seed: int) -> Cut:
    """Three smooth functions of eight columns."""
    g = torch.Generator().manual_seed(seed + 14)
    X = torch.randn(1400, 8, generator=g)
    W = torch.randn(8, 3, generator=torch.Generator().manual_seed(14)) / 2
    y = torch.tanh(X @ W) + 0.5 * torch.sin(2 * X[:, :3]) + 0.1 * torch.randn(1400, 3, generator=g)
    return scaled(cut(X, y, seed), target=True)


# ---------------------------------------------------------------------- images


def digit_images(seed: int) -> Cut:
    """Handwritten digits as images (N, 1, 8, 8) in -1..1."""
    return tuple((X.reshape(-1, 1, 8, 8) * 2 - 1, y) for X, y in digits(seed))  # type: ignore[return-value]


def gratings(seed: int) -> Cut:
    """Stripes of four directions with any phase, under noise: (N, 1, 12, 12)."""
    g = torch.Generator().manual_seed(seed + 15)
    n, size = 1400, 12
    y = torch.randint(4, (n,), generator=g)
    phase = 2 * math.pi * torch.rand(n, 1, 1, generator=g)
    angle = (y.float() * math.pi / 4)[:, None, None]
    rows, columns = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    X = torch.sin(1.3 * (rows * torch.cos(angle) + columns * torch.sin(angle)) + phase)
    X = X + 0.8 * torch.randn(n, size, size, generator=g)
    return scaled_images(cut(X[:, None], y, seed))


def scaled_images(parts: Cut) -> Cut:
    mean, std = parts[0][0].mean(), parts[0][0].std()
    return tuple(((X - mean) / std, y) for X, y in parts)  # type: ignore[return-value]


def spots(seed: int) -> Cut:
    """Where a bright spot lies: (N, 1, 12, 12) -> row and column, standardised."""
    g = torch.Generator().manual_seed(seed + 16)
    n, size = 1400, 12
    at = 2 + (size - 5) * torch.rand(n, 2, generator=g)
    rows, columns = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    far = (rows - at[:, :1, None]) ** 2 + (columns - at[:, 1:, None]) ** 2
    X = torch.exp(-far / 3) + 0.1 * torch.randn(n, size, size, generator=g)
    parts = scaled_images(cut(X[:, None], at, seed))
    mean, std = parts[0][1].mean(0), parts[0][1].std(0)
    return tuple((X, (y - mean) / std) for X, y in parts)  # type: ignore[return-value]


# ---------------------------------------------------------------------- text

PAD, UNKNOWN = 0, 1


def reviews(seed: int, *, vocabulary: int = 60, length: int = 16) -> Cut:
    """Rows of words, padded with 0: most are filler, a few are good (2..9) or bad (10..17).

    The class is which of the two are more; lengths differ; word frequencies fall as in text.
    """
    g = torch.Generator().manual_seed(seed + 17)
    n = 2000
    y = torch.randint(2, (n,), generator=g)
    filler = 1 / torch.arange(1, vocabulary - 17, dtype=torch.float32)
    X = 18 + torch.multinomial(filler, n * length, replacement=True, generator=g).reshape(n, length)
    told = torch.rand(n, length, generator=g) < 0.35
    good = torch.rand(n, length, generator=g) < torch.where(y == 1, 0.85, 0.15)[:, None]
    word = torch.randint(8, (n, length), generator=g)
    X = torch.where(told, torch.where(good, 2 + word, 10 + word), X)
    lengths = torch.randint(length // 2, length + 1, (n, 1), generator=g)
    X = torch.where(torch.arange(length) < lengths, X, PAD)
    votes = ((X >= 2) & (X < 10)).sum(1) - ((X >= 10) & (X < 18)).sum(1)
    return cut(X, torch.where(votes == 0, y, (votes > 0).long()), seed, train=1000)


def first_of_two(seed: int, *, length: int = 12) -> Cut:
    """Two markers (1 and 2) among other words (3..19): class 1 where marker 1 comes first."""
    g = torch.Generator().manual_seed(seed + 18)
    n = 1800
    X = 3 + torch.randint(17, (n, length), generator=g)
    where = torch.stack([torch.randperm(length, generator=g)[:2] for _ in range(n)])
    X.scatter_(1, where[:, :1], 1).scatter_(1, where[:, 1:], 2)
    return cut(X, (where[:, 0] < where[:, 1]).long(), seed, train=900)


def marked_place(seed: int, *, length: int = 12) -> Cut:
    """One marker (1) among other words (2..19): the class is the quarter of the row it stands in."""
    g = torch.Generator().manual_seed(seed + 25)
    n = 1500
    X = 2 + torch.randint(18, (n, length), generator=g)
    where = torch.randint(length, (n, 1), generator=g)
    return cut(X.scatter_(1, where, 1), where[:, 0] * 4 // length, seed)


def markov(seed: int, *, words: int = 12, length: int = 20) -> Cut:
    """Text of a Markov chain: the next word at every place; its entropy is all that can be had."""
    chain = torch.Generator().manual_seed(19)
    table = torch.softmax(2.5 * torch.randn(words, words, generator=chain), -1)
    g = torch.Generator().manual_seed(seed + 19)
    n = 900
    rows = [torch.randint(words, (n,), generator=g)]
    for _ in range(length):
        rows.append(torch.multinomial(table[rows[-1]], 1, generator=g)[:, 0])
    text = torch.stack(rows, 1)
    return cut(text[:, :-1], text[:, 1:], seed, train=400, val=150)


@cache
def _prose() -> tuple[Tensor, int]:
    names = ("iris", "digits", "wine", "breast_cancer", "diabetes")
    text = "\n".join(getattr(datasets, f"load_{n}")().DESCR for n in names).lower()
    letters = sorted(set(text))
    return torch.tensor([letters.index(c) for c in text]), len(letters)


def prose_vocabulary() -> int:
    return _prose()[1]


def prose(seed: int, *, length: int = 24, block: int = 150) -> Cut:
    """Letters of the descriptions of scikit-learn's bundled sets: the next letter at every place.

    The text is cut into blocks, each of which belongs to one split, and windows lie within a block.
    """
    ids, _ = _prose()
    g = torch.Generator().manual_seed(seed + 20)
    blocks = ids[: len(ids) // block * block].reshape(-1, block)
    blocks = blocks[torch.randperm(len(blocks), generator=g)]
    a, b = int(0.7 * len(blocks)), int(0.85 * len(blocks))
    found = []
    for part, n in ((blocks[:a], 700), (blocks[a:b], 100), (blocks[b:], 200)):
        which = torch.randint(len(part), (n,), generator=g)
        start = torch.randint(block - length, (n,), generator=g)
        text = part[which[:, None], start[:, None] + torch.arange(length + 1)]
        found.append((text[:, :-1], text[:, 1:]))
    return tuple(found)  # type: ignore[return-value]


# ---------------------------------------------------------------------- sequences


def waves(seed: int, *, length: int = 24) -> Cut:
    """Which of four frequencies a noisy wave has: (N, 24, 2), sine and its shifted copy."""
    g = torch.Generator().manual_seed(seed + 21)
    n = 1400
    y = torch.randint(4, (n,), generator=g)
    speed = torch.tensor([0.25, 0.45, 0.7, 1.0])[y][:, None]
    phase = 2 * math.pi * torch.rand(n, 1, generator=g)
    angle = speed * torch.arange(length) + phase
    X = torch.stack([torch.sin(angle), torch.cos(angle)], -1)
    return cut(X + 0.3 * torch.randn(n, length, 2, generator=g), y, seed)


def recall(seed: int, *, length: int = 10) -> Cut:
    """The class is told by the first place and must be kept to the end: (N, T, 6)."""
    g = torch.Generator().manual_seed(seed + 22)
    n = 1400
    y = torch.randint(4, (n,), generator=g)
    X = 0.5 * torch.randn(n, length, 6, generator=g)
    X[torch.arange(n), 0, y] += 3.0
    return cut(X, y, seed)


def forecast(seed: int, *, length: int = 16) -> Cut:
    """The next value of a damped oscillation that noise keeps going: (N, 16, 1) -> (N, 1)."""
    g = torch.Generator().manual_seed(seed + 23)
    n = 1400
    noise = 0.3 * torch.randn(n, length + 9, generator=g)
    rows = [noise[:, 0], noise[:, 1]]
    for t in range(2, length + 9):
        rows.append(1.6 * rows[-1] - 0.9 * rows[-2] + noise[:, t])
    X = torch.stack(rows[8:], 1)
    X = X / X.std()
    return cut(X[:, :length, None], X[:, length:], seed)


def digit_rows(seed: int) -> Cut:
    """Handwritten digits read row by row: (N, 8, 8)."""
    return tuple((X.reshape(-1, 8, 8), y) for X, y in digits(seed))  # type: ignore[return-value]


# ---------------------------------------------------------------------- reconstruction


def pictures(seed: int) -> Cut:
    """Handwritten digits to be rebuilt, 0..1."""
    return tuple((X, X) for X, _ in digits(seed))  # type: ignore[return-value]


def factors(seed: int) -> Cut:
    """Twenty columns made of four factors and a little noise, to be rebuilt; standardised."""
    g = torch.Generator().manual_seed(seed + 24)
    mix = torch.randn(4, 20, generator=torch.Generator().manual_seed(24))
    X = torch.tanh(torch.randn(1400, 4, generator=g) @ mix) + 0.1 * torch.randn(
        1400, 20, generator=g
    )
    return tuple((X, X) for X, _ in scaled(cut(X, X, seed)))  # type: ignore[return-value]
