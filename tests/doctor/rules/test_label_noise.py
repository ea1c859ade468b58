"""Wrong labels are told from classes that meet."""

from __future__ import annotations

import torch
from tests.doctor.patients import blobs, experiment, findings, mlp, seen

from gipi.doctor.rules.label_noise import RULE, leave_out, smooth


def wrong(data, share: float, classes: int = 4, seed: int = 0):
    g = torch.Generator().manual_seed(seed)
    y = data[1].clone()
    hit = torch.rand(len(y), generator=g) < share
    y[hit] = (y[hit] + torch.randint(1, classes, (int(hit.sum()),), generator=g)) % classes
    return data[0], y


def test_wrong_labels_in_both_splits_are_named_and_left_to_a_person() -> None:
    train, val = blobs(1200)
    noisy = wrong(train, 0.25)
    exp = experiment(mlp(), (noisy, wrong(val, 0.25, seed=1)), epochs=6)
    diagnosis = seen(exp, RULE, train=True)
    first = diagnosis.findings[0]
    assert (first.code, first.severity) == ("label_noise", "problem")
    changed = noisy[1] != train[1]
    assert float(changed[list(first.rows)].double().mean()) > 0.9
    assert 0.15 < first.evidence["share"] < 0.35
    assert diagnosis.repair() is None
    assert smooth(exp) == "labels are smoothed by 0.1"
    leave_out(exp)
    assert len(exp.train[0]) < 720


def test_wrong_labels_of_training_rows_alone_are_named() -> None:
    train, val = blobs(1000)
    exp = experiment(mlp(), (wrong(train, 0.2), val), epochs=4)
    assert findings(exp, RULE, train=True) == ["label_noise"]


def test_classes_that_meet_and_clean_ones_are_left_alone() -> None:
    for apart in (0.4, 0.8, 2.0, 6.0):
        exp = experiment(mlp(), blobs(1000, apart=apart), epochs=4)
        assert findings(exp, RULE, train=True) == []
