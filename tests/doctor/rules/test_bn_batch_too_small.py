"""Batch norm over too few rows, or a last batch of one, is found; norms of a row are not."""

from __future__ import annotations

import torch
from tests.doctor.patients import blobs, cnn, experiment, findings, images, mlp, seen
from tests.doctor.wired import cured, named
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from gipi.doctor.rules.bn_batch_too_small import RULE


def normed(width=8, out=4):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(width, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, out))


def test_a_last_batch_of_one_row() -> None:
    train, val = blobs()
    train = (train[0][:65], train[1][:65])
    exp = experiment(normed(), (train, val), epochs=3, batch_size=32)
    assert "single row" in named(exp, RULE).findings[0].message
    treatment = cured(exp, RULE)
    assert treatment.experiment.batch_size != 32 or exp.batch_size == 32


def test_a_last_batch_of_one_row_in_a_loader() -> None:
    train, val = blobs()
    loader = DataLoader(TensorDataset(train[0][:65], train[1][:65]), batch_size=32, shuffle=True)
    treatment = cured(experiment(normed(), (loader, val), epochs=3), RULE)
    assert treatment.changes == ["drop_last=True"]
    dropped = DataLoader(TensorDataset(train[0][:65], train[1][:65]), batch_size=32, drop_last=True)
    assert findings(experiment(normed(), (dropped, val), epochs=3), RULE) == []


def test_batches_of_two_rows() -> None:
    found = seen(experiment(normed(), blobs(300), batch_size=2, epochs=2), RULE).findings
    assert [f.code for f in found] == [RULE.code]
    assert found[0].evidence["rows"] == 2


def test_batches_of_one_row() -> None:
    exp = experiment(normed(), blobs(100), batch_size=1, epochs=1)
    assert "single row" in named(exp, RULE).findings[0].message
    cured(exp, RULE)


def test_healthy_batches_and_nets_without_batch_norm_are_silent() -> None:
    assert findings(experiment(normed(), blobs()), RULE) == []
    assert findings(experiment(mlp(), blobs(), batch_size=2), RULE) == []
    layer = nn.Sequential(nn.Linear(8, 16), nn.LayerNorm(16), nn.ReLU(), nn.Linear(16, 4))
    assert findings(experiment(layer, blobs(), batch_size=1), RULE) == []
    train, val = images(130)
    one_over = ((train[0][:65], train[1][:65]), val)
    assert findings(experiment(cnn(norm=True), one_over), RULE) == []
