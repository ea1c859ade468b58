"""Targets that do not belong to their inputs are found; noise and hard data are left alone."""

from __future__ import annotations

import pytest
import torch
from tests.doctor.patients import (
    Reader,
    blobs,
    cnn,
    experiment,
    findings,
    halves,
    mlp,
    regression,
    seen,
    token_rows,
)
from torch import nn

from gipi.doctor.facts import Facts
from gipi.doctor.rules.labels_misaligned import RULE, _of_patches


def mixed(data, seed: int = 0):
    order = torch.randperm(len(data[1]), generator=torch.Generator().manual_seed(seed))
    return data[0], data[1][order]


@pytest.mark.parametrize(("rows", "severity"), [(600, "hint"), (1800, "problem")])
def test_targets_in_random_order_are_named(rows: int, severity: str) -> None:
    torch.manual_seed(0)
    exp = experiment(mlp(16, hidden=256), tuple(map(mixed, blobs(rows, width=16))), epochs=20)
    diagnosis = seen(exp, RULE, train=True)
    first = diagnosis.findings[0]
    assert (first.code, first.severity) == ("labels_misaligned", severity)
    assert first.confirmed == (severity == "problem")  # of few rows weak inputs look the same
    assert f"(z = {first.evidence['net_z']:.1f})" in first.message
    if severity == "hint":
        return
    assert diagnosis.repair() is None
    assert "needs a person" in diagnosis.why_not


def test_one_split_is_named_before_the_first_step() -> None:
    train, val = blobs()
    found = seen(experiment(mlp(), (mixed(train), val)), RULE).findings[0]
    assert found.where == ("training",)
    assert f"(z = {found.evidence['z_other']:.0f})" in found.message
    assert seen(experiment(mlp(), (train, mixed(val))), RULE).findings[0].where == ("validation",)


def test_targets_of_more_rows_than_are_looked_at_that_slipped_are_named() -> None:
    slipped = tuple((X, y.roll(2)) for X, y in blobs(6000))
    (found,) = seen(experiment(mlp(), slipped), RULE).findings
    assert (found.evidence["shift"], found.confirmed) == (-2, True)
    assert findings(experiment(mlp(), blobs(6000)), RULE) == []


def test_targets_that_slipped_are_moved_back_after_a_yes() -> None:
    slipped = tuple((X, y.roll(1)) for X, y in blobs())
    exp = experiment(mlp(), slipped, epochs=4)
    diagnosis = seen(exp, RULE)
    assert diagnosis.findings[0].evidence["shift"] == -1
    assert diagnosis.repair() is None
    treatment = diagnosis.repair(apply=["labels_misaligned"])
    assert treatment is not None
    assert findings(treatment.experiment, RULE) == []
    assert treatment.undo() is exp


def test_noise_is_left_alone() -> None:
    exp = experiment(mlp(out=1), regression(noise=3.0), epochs=6)
    assert findings(exp, RULE, train=True) == []
    assert findings(experiment(Reader(), token_rows()), RULE, train=True) == []


def placed(rows: int = 600, seed: int = 0):
    """Return images of a bar, upright or lying, anywhere on noise."""
    g = torch.Generator().manual_seed(seed)
    y = torch.randint(2, (rows,), generator=g)
    X = 0.5 * torch.randn(rows, 1, 12, 12, generator=g)
    for i, kind in enumerate(y.tolist()):
        a, b = torch.randint(0, 7, (2,), generator=g).tolist()
        bar = X[i, 0] if kind else X[i, 0].T
        bar[a : a + 5, b] += 2
    return halves(X, y)


def test_of_images_what_patches_tell_is_asked_as_well() -> None:
    start = Facts(experiment(cnn(), placed()))
    told = _of_patches(start)
    assert told is not None
    assert told > 10
    other = _of_patches(Facts(experiment(cnn(), tuple(map(mixed, placed())))))
    assert other is not None
    assert abs(other) < 3
    assert _of_patches(Facts(experiment(mlp(), blobs()))) is None
    shuffled = experiment(cnn(), tuple(map(mixed, placed())), epochs=12)
    assert findings(shuffled, RULE, train=True) == [RULE.code]
    assert findings(experiment(cnn(), placed(), epochs=2), RULE, train=True) == []


def test_what_only_the_net_finds_is_left_alone() -> None:
    ids = torch.randint(0, 2, (800, 6), generator=torch.Generator().manual_seed(0))
    parity = ids[:, :3].sum(1) % 2
    model = nn.Sequential(
        nn.Embedding(2, 8), nn.Flatten(), nn.Linear(48, 64), nn.ReLU(), nn.Linear(64, 2)
    )
    exp = experiment(model, halves(ids, parity), epochs=12)
    assert findings(exp, RULE, train=True) == []


def test_classes_that_are_numbered_otherwise_in_one_split_are_named() -> None:
    train, (V, v) = blobs(1000, apart=1.0)
    for to in ([1, 2, 3, 0], [0, 3, 2, 1]):
        exp = experiment(mlp(), (train, (V, torch.tensor(to)[v])))
        (found,) = seen(exp, RULE).findings
        assert (found.severity, found.confirmed) == ("problem", True)
        assert found.message.count(" is ") == sum(i != k for i, k in enumerate(to))
    assert findings(experiment(mlp(), (train, (V, v))), RULE) == []
    overlapping = blobs(1000, apart=0.3)
    assert findings(experiment(mlp(), overlapping), RULE) == []


def test_pictures_beside_masks_of_others_are_asked_about() -> None:
    torch.manual_seed(0)
    g = torch.Generator().manual_seed(0)
    at = torch.rand(500, 2, 1, 1, generator=g) * 8
    y, x = torch.meshgrid(torch.arange(12.0), torch.arange(12.0), indexing="ij")
    masks = (((y - at[:, 0] - 2) ** 2 + (x - at[:, 1] - 2) ** 2) < 6).float()[:, None]
    pictures = masks + 0.5 * torch.randn(masks.shape, generator=g)

    def told(masks):
        model = nn.Sequential(nn.Conv2d(1, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 1, 1))
        exp = experiment(model, halves(pictures, masks), epochs=3)
        exp.loss = nn.BCEWithLogitsLoss()
        return [(f.code, f.severity) for f in seen(exp, RULE, train=True).findings]

    assert told(masks) == []
    assert told(masks[torch.randperm(500, generator=g)]) == [("labels_misaligned", "hint")]
