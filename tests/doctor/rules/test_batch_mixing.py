"""Rows that see each other are found in every kind of net; norms and streams of columns are not."""

from __future__ import annotations

import pytest
import torch
from tests.doctor.patients import (
    Recurrent,
    blobs,
    cnn,
    experiment,
    findings,
    images,
    mlp,
    seen,
    waves,
)
from tests.doctor.wired import Attention, cured, named, next_words, words_loss
from torch import nn

from gipi.doctor.rules.batch_mixing import RULE, _apart


class Mixed(nn.Module):
    def __init__(self, how) -> None:
        super().__init__()
        self.how, self.one, self.two = how, nn.Linear(8, 16), nn.Linear(16, 4)

    def forward(self, x):
        h = self.one(x).relu()
        if self.how == "centre":
            h = h - h.mean(0)
        elif self.how == "softmax":
            h = h.softmax(0)
        elif self.how == "reshape":
            h = h.T.reshape(len(x), 16)
        return self.two(h)


def sideways() -> nn.Module:
    net = Recurrent()
    net.body = nn.GRU(2, 16)
    return net


@pytest.mark.parametrize("how", ["centre", "softmax", "reshape"])
def test_tables(how) -> None:
    diagnosis = named(experiment(Mixed(how), blobs()), RULE)
    assert diagnosis.findings[0].evidence["moves"] > 1e-3


def test_a_softmax_over_rows_is_turned() -> None:
    cured(experiment(Mixed("softmax"), blobs(), epochs=2), RULE)
    over = nn.Sequential(nn.Linear(8, 16), nn.Softmax(dim=0), nn.Linear(16, 4))
    cured(experiment(over, blobs(), epochs=2), RULE)


def test_layers_that_take_batch_for_time_are_turned() -> None:
    treatment = cured(experiment(sideways(), waves(300), epochs=16), RULE)
    assert treatment.changes == ["batch_first=True in body"]


def test_a_reshape_before_time_that_forgets_its_beginning() -> None:
    class Turned(Recurrent):
        def forward(self, x):
            x = x.reshape(x.shape[1], x.shape[0], x.shape[2])  # a transpose was meant
            return self.head(self.body(x)[0][-1])

    net = Turned()
    net.body = nn.GRU(2, 16)
    torch.manual_seed(0)
    first = named(experiment(net, waves(300, 60)), RULE).findings[0]
    assert first.where == ()  # the recurrent layer takes time first, and is given it


def test_a_reshape_before_attention_over_time_is_not_laid_on_the_attention() -> None:
    class Turned(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up, self.head = nn.Linear(2, 16), nn.Linear(16, 2)
            self.body = nn.TransformerEncoderLayer(16, 2, 32)

        def forward(self, x):
            x = x.reshape(x.shape[1], x.shape[0], x.shape[2])  # a transpose was meant
            return self.head(self.body(self.up(x)).mean(0))

    torch.manual_seed(0)
    first = named(experiment(Turned(), waves(300, 60)), RULE).findings[0]
    assert first.where == ()
    assert "batch_first=True" not in first.repairs[0].edit.replace("and batch_first", "")


def test_rows_that_only_the_last_one_changes_are_not_called_apart() -> None:
    class Last(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = mlp()

        def forward(self, x):
            return self.net(x + x[-1])

    exp = experiment(Last(), blobs())
    assert not _apart(exp, exp.model, like=_apart(exp, exp.model))
    exp = experiment(mlp(), blobs())
    assert _apart(exp, exp.model, like=_apart(exp, exp.model))


def test_attention_over_rows() -> None:
    exp = experiment(Attention(over=0), next_words(), loss=words_loss)
    named(exp, RULE)


NORMED = [nn.Linear(8, 16), nn.BatchNorm1d(16), nn.Dropout(0.5), nn.Linear(16, 4)]
OWN = [nn.BatchNorm1d(8, track_running_stats=False), nn.Linear(8, 4)]


@pytest.mark.parametrize("make", [
    lambda: experiment(mlp(), blobs()), lambda: experiment(cnn(norm=True), images()),
    lambda: experiment(Recurrent(), waves()), lambda: experiment(nn.Sequential(*NORMED), blobs()),
    lambda: experiment(nn.Sequential(*OWN), blobs()),
    lambda: experiment(Attention(), next_words(), loss=words_loss),
])  # fmt: skip
def test_healthy_nets_are_silent(make) -> None:
    assert findings(make(), RULE) == []


def test_inputs_as_a_tuple_with_lengths_are_silent() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = mlp()

        def forward(self, x, n):
            return self.net(x * n[:, None])

    (X, y), _ = blobs()
    n = torch.ones(len(X))
    parts = zip(X.split(30), n.split(30), y.split(30), strict=True)
    stream = [((a, b), c) for a, b, c in parts]
    exp = experiment(Two(), (stream, None), loss=nn.CrossEntropyLoss())
    assert findings(exp, RULE) == []


def test_a_stream_whose_first_dimension_is_time_is_silent() -> None:
    class TimeFirst(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.cell = nn.Embedding(12, 8), nn.GRU(8, 16)
            self.head = nn.Linear(16, 12)

        def forward(self, x):
            return self.head(self.cell(self.embed(x))[0])

    (X, y), _ = next_words()
    stream = [(a.T.contiguous(), b.T.contiguous())
              for a, b in zip(X.split(16), y.split(16), strict=True)]  # fmt: skip
    exp = experiment(TimeFirst(), (stream, None), loss=words_loss)
    assert findings(exp, RULE) == []
    torch.manual_seed(0)


@pytest.mark.parametrize("mixes", [False, True])
def test_codes_in_a_table_of_numbers_stay_codes(mixes: bool) -> None:
    class Coded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.codes, self.head = nn.Embedding(5, 4), mlp(12)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            said = self.head(torch.cat([x, self.codes(x[:, 0].long())], 1))
            return said - said.mean(0) if mixes else said

    (X, y), _ = blobs()
    X = X.clone()
    X[:, 0] = torch.randint(5, (len(X),), generator=torch.Generator().manual_seed(0))
    diagnosis = seen(experiment(Coded(), ((X, y), (X, y))), RULE)
    assert [f.code for f in diagnosis.findings] == ["batch_mixing"] * mixes
    assert not diagnosis.broken
