"""What torch warns of in passes of the doctor reaches nobody; what it warns of in a loop does."""

from __future__ import annotations

import warnings

import pytest
import torch
from tests.doctor.patients import experiment, mlp
from torch import nn

import gipi
from gipi.core.errors import GipiError
from gipi.doctor.hushed import hushed


def numbers():
    generator = torch.Generator().manual_seed(0)
    X = torch.randn(200, 8, generator=generator)
    return X, X.sum(1)


def test_a_diagnosis_and_a_treatment_warn_nobody() -> None:
    X, y = numbers()
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 1))
    exp = experiment(net, ((X, y), (X, y)), epochs=3)
    exp.loss = nn.MSELoss()
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        diagnosis = gipi.diagnose(exp)
        assert diagnosis.problems[0].code == "loss_broadcast"
        diagnosis.repair()
    assert seen == []
    with pytest.warns(UserWarning, match="Using a target size"):
        exp.loss(net(X), y)


def test_a_watched_loop_warns_as_it_would_and_its_findings_do_not() -> None:
    X, y = numbers()
    torch.manual_seed(0)
    net, loss = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 1)), nn.MSELoss()
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        with gipi.watch(net, optimizer, loss) as doctor:
            for chosen in torch.arange(200).split(20):
                optimizer.zero_grad()
                loss(net(X[chosen]), y[chosen]).backward()
                optimizer.step()
    assert len(seen) == 10
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        assert "loss_broadcast" in {f.code for f in doctor.findings}
    assert seen == []


def test_what_is_said_once_a_process_is_not_used_up() -> None:
    with hushed():
        assert torch.is_warn_always_enabled()
        warnings.warn("nobody hears", stacklevel=1)
    assert not torch.is_warn_always_enabled()
    with pytest.warns(UserWarning, match="heard"):
        warnings.warn("this is heard", stacklevel=1)


def test_an_error_of_the_user_is_raised_as_it_is() -> None:
    rows = torch.zeros(4, 8), torch.full((4,), 99)
    exp = experiment(mlp(), (rows, rows))
    with pytest.raises(GipiError):
        gipi.diagnose(exp)
    assert not torch.is_warn_always_enabled()


def test_what_python_says_once_of_a_place_is_said_once() -> None:
    def place() -> None:
        warnings.warn("once", stacklevel=1)

    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("default")
        for _ in range(3):
            with hushed():
                place()
        assert seen == []
        for _ in range(3):
            place()
            with hushed():
                place()
        assert len(seen) == 1


def test_filters_that_a_model_sets_do_not_outlast_a_pass_of_the_doctor() -> None:
    with warnings.catch_warnings():
        before = list(warnings.filters)
        for change in (warnings.resetwarnings, lambda: warnings.simplefilter("once")):
            with hushed():
                change()
            assert list(warnings.filters) == before
