"""A column that is the target is found and, after a yes, held; a good feature is left alone."""

from __future__ import annotations

import torch
from tests.doctor.patients import (
    Recurrent,
    blobs,
    cnn,
    experiment,
    findings,
    halves,
    images,
    mlp,
    regression,
    seen,
    waves,
)

from gipi.doctor.rules.target_leak import RULE


def leaking(data, scale: float = 1.0, seed: int = 0):
    X = data[0].clone()
    noise = torch.randn(len(X), generator=torch.Generator().manual_seed(seed))
    X[:, 3] = scale * data[1].reshape(len(X)) + 0.02 * noise
    return X, data[1]


def test_a_column_made_of_the_target_is_named_held_and_undone() -> None:
    exp = experiment(mlp(), tuple(map(leaking, blobs(apart=0.7))), epochs=4)
    diagnosis = seen(exp, RULE)
    first = diagnosis.findings[0]
    assert (first.code, first.severity, first.where) == ("target_leak", "problem", ("column 3",))
    assert diagnosis.repair() is None
    treatment = diagnosis.repair(apply=["target_leak"])
    assert treatment is not None
    assert treatment.undo() is exp


def flagged(data, wrong: float, seed: int = 0):
    X, y = data[0].clone(), data[1]
    other = torch.rand(len(y), generator=torch.Generator().manual_seed(seed)) < wrong
    X[:, 3] = torch.where(other, 1 - y, y).float()
    return X, y


def test_a_flag_that_is_wrong_now_and_then_is_found_and_a_good_feature_is_not() -> None:
    splits = blobs(classes=2, apart=0.4)
    exp = experiment(mlp(out=2), tuple(flagged(d, 0.005) for d in splits))
    assert seen(exp, RULE).findings[0].where == ("column 3",)
    exp = experiment(mlp(out=2), tuple(flagged(d, 0.05) for d in splits))
    assert findings(exp, RULE) == []


def test_numbers_and_the_target_itself_are_found() -> None:
    noisy = tuple(leaking(d, 3.0) for d in regression(noise=1.0))
    assert findings(experiment(mlp(out=1), noisy), RULE) == ["target_leak"]
    X = torch.randn(300, 12, 1, generator=torch.Generator().manual_seed(0))
    exp = experiment(Recurrent(1, 1), halves(X, X[:, 11]))
    assert seen(exp, RULE).findings[0].where == ("column 0 at place 11",)


def test_a_pixel_and_a_last_place_are_found() -> None:
    spotted = []
    for X, y in images():
        marked = X.clone()
        marked[:, 0, 0, 0] = y / 4
        spotted.append((marked, y))
    exp = experiment(cnn(), tuple(spotted))
    assert seen(exp, RULE).findings[0].where == ("pixel 0 of channel 0",)
    ended = []
    for X, y in waves():
        marked = X.clone()
        marked[:, -1, 0] = y.float()
        ended.append((marked, y))
    exp = experiment(Recurrent(), tuple(ended))
    assert seen(exp, RULE).findings[0].where == ("column 0 at place 19",)


def test_what_is_to_be_remembered_is_no_leak() -> None:
    X = torch.randn(300, 12, 1, generator=torch.Generator().manual_seed(0))
    assert findings(experiment(Recurrent(1, 1), halves(X, X[:, 0])), RULE) == []


def test_easy_data_are_left_alone() -> None:
    for classes in (2, 4):
        assert findings(experiment(mlp(), blobs(classes=classes, apart=6.0)), RULE) == []
    assert findings(experiment(mlp(out=1), regression(noise=0.0)), RULE) == []
    walk = torch.randn(400, generator=torch.Generator().manual_seed(1)).cumsum(0)
    rows = halves(walk[:-1].unfold(0, 8, 1), walk[8:][:, None])
    assert findings(experiment(mlp(out=1), rows), RULE) == []
