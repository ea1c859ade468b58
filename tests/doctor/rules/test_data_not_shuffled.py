"""Sorted rows are found where they do harm, and shuffled; rows in random order are left alone."""

from __future__ import annotations

import torch
from tests.doctor.patients import blobs, cnn, experiment, findings, images, mlp, regression, seen
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from gipi.doctor.rules.data_not_shuffled import PASSES, RULE


def in_order(data):
    order = data[1].reshape(len(data[1]), -1)[:, 0].argsort()
    return data[0][order], data[1][order]


def test_sorted_rows_are_named_shuffled_and_undone() -> None:
    train, val = blobs(900)
    exp = experiment(mlp(), (in_order(train), val), shuffle=False, epochs=5)
    diagnosis = seen(exp, RULE)
    first = diagnosis.findings[0]
    assert (first.code, first.severity, first.confirmed) == ("data_not_shuffled", "problem", True)
    treatment = diagnosis.repair()
    assert treatment is not None
    assert treatment.experiment.shuffle
    assert findings(treatment.experiment, RULE) == []
    assert treatment.undo() is exp
    assert not exp.shuffle


def test_a_loader_is_shuffled_and_keeps_its_options() -> None:
    train, val = images()
    model = cnn()
    model(train[0][:2])
    loader = DataLoader(TensorDataset(*in_order(train)), 32, drop_last=True)
    exp = experiment(model, (loader, val))
    assert findings(exp, RULE) == ["data_not_shuffled"]
    diagnosis = seen(exp, RULE)
    diagnosis.findings[0].repairs[0].change(exp)
    assert isinstance(exp.train.sampler, torch.utils.data.RandomSampler)
    assert (exp.train.batch_size, exp.train.drop_last) == (32, True)


def test_a_net_that_learns_slowly_at_first_is_given_more_time() -> None:
    train, val = images(600)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(100, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(),
                          nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 4))  # fmt: skip
    exp = experiment(model, (in_order(train), val), shuffle=False, epochs=8, optimizer="sgd")
    exp.optimizer.param_groups[0]["momentum"] = 0.95
    diagnosis = seen(exp, RULE)
    first = diagnosis.findings[0]
    assert (first.severity, first.confirmed) == ("problem", True)
    assert diagnosis.passes > 3 * PASSES * 12


def test_healthy_twins_are_left_alone() -> None:
    train, val = blobs(900)
    assert findings(experiment(mlp(), (train, val), shuffle=False), RULE) == []
    assert findings(experiment(mlp(), (in_order(train), val)), RULE) == []
    when = experiment(mlp(), (in_order(train), val), shuffle=False, declared={"time_ordered": True})
    assert findings(when, RULE) == []
    assert findings(experiment(mlp(out=1), regression(), shuffle=False), RULE) == []
