"""A run that goes hardly anywhere is named at its first tenth; one that is short is not."""

from __future__ import annotations

import pytest
import torch
from tests.doctor.patients import blobs, experiment, mlp, problems, regression, seen

from gipi.doctor.rules.lr_too_low import RULE


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_a_rate_far_too_low_is_named_and_cured(optimizer: str) -> None:
    torch.manual_seed(0)
    exp = experiment(mlp(), blobs(), lr=1e-5, optimizer=optimizer)
    diagnosis = seen(exp, RULE, train=True)
    first = diagnosis.findings[0]
    assert (first.code, first.severity, first.confirmed) == ("lr_too_low", "problem", True)
    assert first.step <= 0.1 * exp.total_steps + 1
    treatment = diagnosis.repair()
    assert treatment is not None
    assert treatment.after["loss"] < 0.3
    assert treatment.undo() is exp


@pytest.mark.parametrize("lr", [3e-3, 1e-2])
def test_rates_that_learn_are_left_alone(lr: float) -> None:
    torch.manual_seed(0)
    assert seen(experiment(mlp(), blobs(), lr=lr), RULE, train=True).findings == []
    assert seen(experiment(mlp(out=1), regression(), lr=lr), RULE, train=True).findings == []


def test_a_warm_up_from_zero_is_healthy() -> None:
    torch.manual_seed(0)
    exp = experiment(mlp(), blobs(), lr=0.01)
    warm = exp.total_steps // 4
    exp.scheduler = torch.optim.lr_scheduler.LambdaLR(exp.optimizer, lambda s: min(1.0, s / warm))
    exp.scheduler_every = "step"
    assert seen(exp, RULE, train=True).findings == []


def test_a_small_rate_for_what_is_learned_already_is_healthy() -> None:
    torch.manual_seed(0)
    model = mlp()
    first = experiment(model, blobs(), lr=0.01)
    for _ in range(150):
        loss = first.loss(model(first.train[0]), first.train[1])
        first.optimizer.zero_grad()
        loss.backward()
        first.optimizer.step()
    assert seen(experiment(model, blobs(), lr=1e-5), RULE, train=True).findings == []


@pytest.mark.parametrize(("lr", "found"), [(5e-4, ["lr_too_low"]), (0.01, [])])
def test_the_way_of_added_squares_grows_with_the_root_of_the_steps(
    lr: float, found: list[str]
) -> None:
    torch.manual_seed(0)
    # A stand-in for all steps that goes as many times further as there are steps would go too far.
    exp = experiment(mlp(), blobs(apart=1.0), lr=lr, epochs=60)
    exp.optimizer = torch.optim.Adagrad(exp.model.parameters(), lr)
    assert problems(exp, RULE, train=True) == found
