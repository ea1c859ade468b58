"""Gradients that are left over are found; accumulation, clipping and L-BFGS are silent."""

from __future__ import annotations

import pytest
import torch
from tests.doctor.patients import blobs, experiment, findings, mlp
from tests.doctor.wired import cured, named
from torch import nn

from gipi.doctor import watch
from gipi.doctor.experiment import call
from gipi.doctor.rules.missing_zero_grad import RULE


def stepping(*, zero="", clip=0.0, noise=0.0, every=1):
    """Return a step that sets gradients to zero "before", "after" or never."""
    count = [0]

    def step(exp, xb, yb):
        if zero == "before":
            exp.optimizer.zero_grad()
        xb = xb + noise * torch.randn_like(xb)
        loss = exp.loss(call(exp.model, xb), yb)
        (loss / every).backward()
        count[0] += 1
        if clip:
            nn.utils.clip_grad_norm_(exp.model.parameters(), clip)
        if count[0] % every == 0:
            exp.optimizer.step()
            if zero == "after":
                exp.optimizer.zero_grad()
        return loss.detach()

    return step


def test_it_is_named_and_cured() -> None:
    cured(experiment(mlp(), blobs(), step=stepping(), lr=0.3, optimizer="sgd", epochs=3), RULE)


def test_at_a_rate_that_learns_nothing_it_is_gone_and_not_cured() -> None:
    torch.manual_seed(1)
    exp = experiment(mlp(), blobs(), step=stepping(), lr=1e-6, optimizer="sgd", epochs=3)
    treatment = named(exp, RULE).repair()
    assert treatment is not None
    assert (treatment.cured, list(treatment.partly)) == ([], [RULE.code])
    assert treatment.unlearnt
    assert findings(treatment.experiment, RULE) == []


@pytest.mark.parametrize("how", [
    {"zero": "before"}, {"zero": "after"}, {"zero": "before", "clip": 0.01},
    {"zero": "after", "every": 2}, {"zero": "after", "every": 3}, {"zero": "before", "noise": 2.0},
])  # fmt: skip
def test_steps_that_are_right_are_silent(how) -> None:
    assert findings(experiment(mlp(), blobs(), step=stepping(**how)), RULE) == []
    assert findings(experiment(mlp(), blobs(), transform=lambda x: x * 1.1), RULE) == []


@pytest.mark.parametrize("zero", ["before", ""])
def test_noise_of_ones_own_does_not_feign_it_and_torchs_dropout_does_not_hide_it(zero) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Dropout(0.5), nn.Linear(32, 4))
    found = findings(experiment(net, blobs(), step=stepping(zero=zero)), RULE)
    assert found == ([] if zero else [RULE.code])
    for noise in (0.3, 1.0):
        step = stepping(zero="before", noise=noise)
        assert findings(experiment(net, blobs(), step=step), RULE) == []


@pytest.mark.parametrize("zero", ["before", ""])
def test_a_plain_loop_with_dropout(zero) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Dropout(0.5), nn.Linear(32, 4))
    optimizer = torch.optim.Adam(net.parameters(), 0.01)
    (X, y), _ = blobs()
    with watch(net, optimizer, nn.functional.cross_entropy) as doctor:
        for rows in torch.randperm(len(X)).split(32):
            loss = nn.functional.cross_entropy(net(X[rows]), y[rows])
            if zero:
                optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    assert (RULE.code in [f.code for f in doctor.findings]) is not bool(zero)


def test_an_optimizer_that_evaluates_the_loss_itself_is_silent() -> None:
    exp = experiment(mlp(), blobs())
    exp.optimizer = torch.optim.LBFGS(exp.model.parameters(), max_iter=3)

    def step(exp, xb, yb):
        def closure():
            exp.optimizer.zero_grad()
            loss = exp.loss(call(exp.model, xb), yb)
            loss.backward()
            return loss

        return exp.optimizer.step(closure).detach()

    exp.step = step
    assert findings(exp, RULE) == []


def test_weights_that_the_optimizer_lacks_do_not_count() -> None:
    model = mlp()
    exp = experiment(model, blobs())
    exp.optimizer = torch.optim.SGD(model[0].parameters(), 0.1)
    assert findings(exp, RULE) == []
