"""A loss that stands still though it need not is named; one at its floor is not."""

from __future__ import annotations

import torch
from tests.doctor.patients import blobs, experiment, mlp, regression, seen
from torch.optim import lr_scheduler

from gipi.doctor.rules.plateau import RULE


def test_a_loss_that_stands_still_for_want_of_a_rate_is_named_and_cured() -> None:
    torch.manual_seed(0)
    exp = experiment(mlp(), blobs(), lr=3e-3)
    exp.scheduler = lr_scheduler.MultiStepLR(exp.optimizer, [1], 0.01)
    diagnosis = seen(exp, RULE, train=True)
    first = diagnosis.findings[0]
    assert (first.code, first.severity, first.confirmed) == ("plateau", "problem", True)
    treatment = diagnosis.repair()
    assert treatment is not None
    assert treatment.after["loss"] < treatment.before["loss"]
    assert treatment.undo() is exp


def test_a_floor_of_noise_is_healthy() -> None:
    torch.manual_seed(0)
    exp = experiment(mlp(out=1, hidden=8), regression(noise=1.5), lr=0.01, epochs=15)
    assert seen(exp, RULE, train=True).problems == []
    (X, _), (Xv, _) = blobs()
    coins = (X, torch.randint(2, (len(X),))), (Xv, torch.randint(2, (len(Xv),)))
    assert seen(experiment(mlp(out=2, hidden=4), coins, lr=0.01), RULE, train=True).problems == []
    assert seen(experiment(mlp(), blobs(), lr=0.01), RULE, train=True).findings == []
