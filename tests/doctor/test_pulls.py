"""Decay that stands in a loss or in a step is measured, and taken away; other terms are none."""

from __future__ import annotations

import pytest
import torch
from tests.doctor.patients import blobs, experiment, mlp
from torch.nn import functional as F

from gipi.doctor.copies import duplicate
from gipi.doctor.experiment import take_step
from gipi.doctor.facts import Facts
from gipi.doctor.pulls import lighter, own_pull


def penalised(power: int, size: float = 0.05, *, within: str = "loss"):
    torch.manual_seed(0)
    model = mlp()

    def penalty(of):
        return size * sum(p.abs().pow(power).sum() for p in of.parameters())

    def step(exp, xb, yb):
        exp.optimizer.zero_grad()
        loss = exp.loss(exp.model(xb), yb)
        (loss + penalty(exp.model)).backward()
        torch.nn.utils.clip_grad_norm_(exp.model.parameters(), 1e6)
        exp.optimizer.step()
        return loss.detach()

    if within == "step":
        return experiment(model, blobs(), step=step)
    return experiment(model, blobs(), loss=lambda o, y: F.cross_entropy(o, y) + penalty(model))


@pytest.mark.parametrize("within", ["loss", "step"])
@pytest.mark.parametrize("power", [1, 2])
def test_a_penalty_is_measured_and_taken_away(within, power) -> None:
    exp = penalised(power, within=within)
    pull = own_pull(Facts(exp))
    assert pull is not None
    assert (pull.within, pull.degree) == (within, power)
    if power == 2:
        assert pull.decay == pytest.approx(0.1, rel=1e-3)
    twin = duplicate(exp)
    lighter(pull, 0.0)(twin)
    seen: list[dict[str, torch.Tensor]] = []
    plain = duplicate(exp)
    plain.loss, plain.step = F.cross_entropy, None
    xb, yb = exp.train[0][:32], exp.train[1][:32]
    for one in (twin, plain):
        one.model.train()
        take_step(one, xb, yb)
        seen.append({n: p.grad.clone() for n, p in one.model.named_parameters()})
    for name, grad in seen[1].items():
        assert torch.allclose(seen[0][name], grad, atol=1e-5)


def test_nothing_else_is_a_penalty() -> None:
    def clipped(exp, xb, yb):
        exp.optimizer.zero_grad()
        loss = exp.loss(exp.model(xb), yb)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(exp.model.parameters(), 0.1)
        exp.optimizer.step()
        return loss.detach()

    for exp in (experiment(mlp(), blobs()), experiment(mlp(), blobs(), step=clipped)):
        assert own_pull(Facts(exp)) is None
