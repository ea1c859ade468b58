"""Small trainings for the tests of the doctor: data, nets, experiments. Nothing here is sick."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from gipi.doctor import Experiment, diagnose
from gipi.doctor.diagnose import Diagnosis

Split = tuple[Tensor, Tensor]


def halves(X: Tensor, y: Tensor, share: float = 0.6) -> tuple[Split, Split]:
    """Return training and validation rows."""
    n = int(share * len(X))
    return (X[:n], y[:n]), (X[n:], y[n:])


def blobs(rows=600, classes=4, width=8, *, apart=2.0, seed=0, weights=None) -> tuple[Split, Split]:
    """Return classes as clouds around random centres."""
    g = torch.Generator().manual_seed(seed)
    centres = apart * torch.randn(classes, width, generator=g)
    chances = torch.ones(classes) if weights is None else torch.tensor(weights)
    y = torch.multinomial(chances, rows, replacement=True, generator=g)
    return halves(centres[y] + torch.randn(rows, width, generator=g), y)


def regression(rows=600, width=8, *, noise=0.1, seed=0) -> tuple[Split, Split]:
    """Return a smooth curved function of a table, (N, 1), with mean 0 and deviation about 1."""
    g = torch.Generator().manual_seed(seed)
    X = torch.randn(rows, width, generator=g)
    W = torch.randn(width, 3, generator=g) / width**0.5
    y = (X @ W).mul(1.5).sin().sum(1, keepdim=True)
    return halves(X, y / y.std() + noise * torch.randn(rows, 1, generator=g))


def images(rows=400, side=10, *, seed=0) -> tuple[Split, Split]:
    """Return pictures (N, 1, side, side) of a bright bar in one of four places, in 0..1."""
    g = torch.Generator().manual_seed(seed)
    y = torch.randint(4, (rows,), generator=g)
    X = 0.3 * torch.rand(rows, 1, side, side, generator=g)
    for i, kind in enumerate(y.tolist()):
        at = 2 + 3 * (kind % 2)
        if kind < 2:
            X[i, 0, at : at + 2] += 0.6
        else:
            X[i, 0, :, at : at + 2] += 0.6
    return halves(X, y)


def shapes(rows=500, side=14, *, share=0.6, seed=0) -> tuple[Split, Split]:
    """Return an upright or lying bar, a square or a cross, anywhere on noise: (N, 1, side, side).

    Pixel by pixel they tell next to nothing.
    """
    g = torch.Generator().manual_seed(seed)
    y = torch.randint(4, (rows,), generator=g)
    X = 0.4 * torch.randn(rows, 1, side, side, generator=g)
    for i, kind in enumerate(y.tolist()):
        a, b = torch.randint(2, side - 2, (2,), generator=g).tolist()
        X[i, 0, a - 2 : a + 3, b] += 1.5 * (kind in (0, 3))
        X[i, 0, a, b - 2 : b + 3] += 1.5 * (kind in (1, 3))
        X[i, 0, a - 1 : a + 2, b - 1 : b + 2] += 1.5 * (kind == 2)
    return halves(X, y, share)


def token_rows(rows=600, length=12, vocabulary=40, *, seed=0) -> tuple[Split, Split]:
    """Return rows of ids from 2 on, of two kinds that prefer different words; 0 pads the end."""
    g = torch.Generator().manual_seed(seed)
    y = torch.randint(2, (rows,), generator=g)
    base = 1.0 / torch.arange(1, vocabulary - 1).float()
    tilt = torch.linspace(-1, 1, vocabulary - 2)[torch.randperm(vocabulary - 2, generator=g)]
    chances = torch.stack([base * (1.5 * tilt).exp(), base * (-1.5 * tilt).exp()])
    X = 2 + torch.multinomial(chances[y], length, replacement=True, generator=g)
    ends = torch.randint(length // 2, length + 1, (rows, 1), generator=g)
    X[torch.arange(length)[None] >= ends] = 0
    return halves(X, y)


def waves(rows=500, length=20, width=2, *, seed=0) -> tuple[Split, Split]:
    """Return noisy waves (N, T, D) that are slow or fast."""
    g = torch.Generator().manual_seed(seed)
    y = torch.randint(2, (rows,), generator=g)
    speed = torch.where(y == 0, 0.3, 0.9)[:, None, None]
    phase = 6.3 * torch.rand(rows, 1, width, generator=g)
    t = torch.arange(length)[None, :, None]
    X = (speed * t + phase).sin() + 0.3 * torch.randn(rows, length, width, generator=g)
    return halves(X, y)


def mlp(width=8, out=4, hidden=32) -> nn.Module:
    """Return two layers with a rectifier between."""
    return nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, out))


def cnn(channels=1, out=4, *, norm=False) -> nn.Module:
    """Return two convolutions and a mean over places."""
    return nn.Sequential(
        *([nn.BatchNorm2d(channels)] if norm else []),
        nn.Conv2d(channels, 8, 3, padding=1), nn.ReLU(),
        nn.Conv2d(8, 16, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.LazyLinear(out),
    )  # fmt: skip


class Reader(nn.Module):
    """Embedding, mean over real tokens, a linear head."""

    def __init__(self, vocabulary=40, out=2, width=16) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        self.head = nn.Linear(width, out)

    def forward(self, ids: Tensor) -> Tensor:
        real = (ids != 0).unsqueeze(-1).float()
        return self.head((self.embedding(ids) * real).sum(1) / real.sum(1).clamp_min(1))


class Recurrent(nn.Module):
    """A GRU and a linear head on its last state."""

    def __init__(self, width=2, out=2, hidden=16) -> None:
        super().__init__()
        self.body = nn.GRU(width, hidden, batch_first=True)
        self.head = nn.Linear(hidden, out)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x)[0][:, -1])


def experiment(
    model: nn.Module,
    splits: tuple[Any, Any],
    *,
    loss: Callable[[Any, Any], Tensor] | None = None,
    lr: float = 0.01,
    epochs: float = 10,
    optimizer: str = "adam",
    **more: Any,
) -> Experiment:
    """Return a training; Adam and, for whole numbers as targets, cross-entropy by default."""
    train, val = splits
    if isinstance(train, tuple) and any(
        isinstance(p, nn.UninitializedParameter) for p in model.parameters()
    ):
        model(train[0][:2])
    if loss is None:
        y = train[1] if isinstance(train, tuple) else next(iter(train))[1]
        loss = nn.MSELoss() if y.is_floating_point() else nn.CrossEntropyLoss()
    made = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD}[optimizer](model.parameters(), lr=lr)
    return Experiment(model, train=train, val=val, loss=loss, optimizer=made, epochs=epochs, **more)


def seen(exp: Experiment, rule: Any, *, train: bool = False) -> Diagnosis:
    """Return the diagnosis of one rule alone, which must not fail by an error of its own."""
    diagnosis = diagnose(exp, train=train, rules=(rule,))
    assert not diagnosis.broken, diagnosis.broken
    return diagnosis


def problems(exp: Experiment, rule: Any, *, train: bool = False) -> list[str]:
    """Return the codes of the problems that a rule finds."""
    return [f.code for f in seen(exp, rule, train=train).problems]


def findings(exp: Experiment, rule: Any, *, train: bool = False) -> list[str]:
    """Return the codes of all that a rule finds, hints too."""
    return [f.code for f in seen(exp, rule, train=train).findings]
