"""Gradients that are sparse or complex, targets by name, a split without rows: no rule breaks."""

from __future__ import annotations

import math

import pytest
import torch
from tests.doctor.patients import blobs, experiment
from torch import nn
from torch.nn.functional import cross_entropy, mse_loss
from torch.utils.data import DataLoader, TensorDataset

import gipi
from gipi.doctor.copies import duplicate
from gipi.doctor.gradients import norms_of, total_of
from gipi.doctor.guard import finite_steps
from gipi.doctor.play import play


def test_the_norm_of_a_sparse_gradient_counts_rows_that_come_twice_as_their_sum() -> None:
    table = nn.Embedding(9, 4, sparse=True)
    table(torch.tensor([1, 1, 5])).sum().backward()
    assert table.weight.grad is not None
    (norm,) = norms_of([table.weight.grad])
    assert torch.equal(norm, table.weight.grad.to_dense().norm())


@pytest.mark.parametrize("size", [1.0, 1e-30, 1e19, 1e20, math.inf, math.nan])
def test_the_norm_of_all_is_that_of_single_precision(size: float) -> None:
    norms = norms_of([torch.tensor([3.0, 4.0]) * size, torch.full((2, 3), 0.5)])
    single = float(torch.linalg.vector_norm(torch.stack(list(norms))))
    assert total_of(norms) == pytest.approx(single, rel=1e-6, nan_ok=True)


def words():
    g = torch.Generator().manual_seed(0)
    X = torch.randint(0, 50, (400, 6), generator=g)
    y = (X < 9).any(1).long()
    return (X[:300], y[:300]), (X[300:], y[300:])


def test_sparse_gradients_are_looked_at_and_guarded() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.EmbeddingBag(50, 2, mode="sum", sparse=True))
    train, val = words()
    exp = gipi.Experiment(net, train=train, val=val, loss=nn.CrossEntropyLoss(), epochs=2,
                          optimizer=torch.optim.SparseAdam(net.parameters(), 0.05))  # fmt: skip
    assert gipi.diagnose(exp).broken == {}
    finite_steps(exp)
    twin = duplicate(exp)
    play(twin, quiet=True)
    assert (twin.step.taken, twin.step.left_out) == (20, 0)
    assert exp.step.taken == 0  # every run counts its own steps


class Waves(nn.Module):
    """The length of complex outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 16, dtype=torch.complex64)
        self.head = nn.Linear(16, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.first(x).abs())


def test_complex_inputs_break_no_rule() -> None:
    torch.manual_seed(0)
    X = torch.randn(300, 6, dtype=torch.complex64)
    pairs = (X[:200], X[:200, :1].real), (X[200:], X[200:, :1].real)
    exp = experiment(Waves(), pairs, loss=lambda o, y: (o - y).square().mean(), epochs=2)
    assert gipi.diagnose(exp).broken == {}
    line, pairs = nn.Linear(6, 6, dtype=torch.complex64), ((X[:200], X[:200]), (X[200:], X[200:]))
    exp = experiment(line, pairs, loss=lambda o, y: (o - y).abs().square().mean(), epochs=2)
    assert gipi.diagnose(exp).broken == {}


def test_a_validation_loader_without_rows_breaks_no_rule() -> None:
    (X, y), _ = blobs()
    none = DataLoader(TensorDataset(X[:0], y[:0]), 32)
    exp = experiment(nn.Linear(8, 4), ((X, y), none), epochs=1)
    assert gipi.diagnose(exp).broken == {}


class Two(nn.Module):
    """Two answers by name."""

    def __init__(self) -> None:
        super().__init__()
        self.kind, self.size = nn.Linear(8, 4), nn.Linear(8, 1)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"kind": self.kind(x), "size": self.size(x)[:, 0]}


def test_targets_by_name_are_taken() -> None:
    (X, y), (V, v) = blobs()
    both = [[(a, {"kind": b, "size": a.mean(1)}) for a, b in zip(X.split(32), y.split(32),
             strict=True)] for X, y in ((X, y), (V, v))]  # fmt: skip
    exp = experiment(
        Two(), tuple(both), epochs=1,
        loss=lambda o, t: cross_entropy(o["kind"], t["kind"]) + mse_loss(o["size"], t["size"]),
    )  # fmt: skip
    assert gipi.diagnose(exp).broken == {}


class Codes(nn.Module):
    """A table of codes: large ones share vectors, each column has its own."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = (nn.Embedding(n, 4) for n in (1000, 40, 7))
        self.head = nn.Linear(12, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(torch.cat([self.a(x[:, 0] % 1000), self.b(x[:, 1]), self.c(x[:, 2])], 1))


def test_a_table_of_several_columns_of_ids_breaks_no_rule() -> None:
    torch.manual_seed(0)
    g = torch.Generator().manual_seed(3)
    X = torch.stack([torch.randint(n, (2000,), generator=g) for n in (50_000, 40, 7)], 1)
    y = (X[:, 1] > 20).long()
    exp = experiment(Codes(), ((X[:1600], y[:1600]), (X[1600:], y[1600:])), epochs=1)
    diagnosis = gipi.diagnose(exp)
    assert diagnosis.broken == {}
    assert "tokenizer_mismatch" not in [f.code for f in diagnosis.findings]
