"""A plain loop is watched: it computes what it computed before, and its bug is named."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import gipi
from gipi.core.errors import ConfigError, RequestError

if TYPE_CHECKING:
    from collections.abc import Callable


def data() -> tuple[torch.Tensor, torch.Tensor]:
    """Four clouds."""
    generator = torch.Generator().manual_seed(0)
    centres = 2.0 * torch.randn(4, 8, generator=generator)
    y = torch.randint(4, (320,), generator=generator)
    return centres[y] + torch.randn(320, 8, generator=generator), y


def net(*, softmax: bool = False) -> nn.Sequential:
    torch.manual_seed(0)
    last = [nn.Softmax(-1)] if softmax else []
    return nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 4), *last)


def loop(model: nn.Module, optimizer: torch.optim.Optimizer, loss: Callable, epochs: int = 4):
    X, y = data()
    for epoch in range(epochs):
        order = torch.randperm(len(X), generator=torch.Generator().manual_seed(epoch))
        for chosen in order.split(32):
            optimizer.zero_grad()
            loss(model(X[chosen]), y[chosen]).backward()
            optimizer.step()


@pytest.mark.parametrize("loss", [nn.CrossEntropyLoss(), F.cross_entropy])
def test_a_healthy_loop_computes_the_same_and_nothing_is_found(loss: Callable) -> None:
    alone, watched = net(), net()
    loop(alone, torch.optim.SGD(alone.parameters(), 0.1), loss)
    optimizer = torch.optim.SGD(watched.parameters(), 0.1)
    backward = torch.Tensor.backward
    with gipi.watch(watched, optimizer, loss) as doctor:
        loop(watched, optimizer, loss)
    assert doctor.findings == []
    assert not doctor.diagnosis.broken
    assert torch.Tensor.backward is backward
    for a, b in zip(alone.parameters(), watched.parameters(), strict=True):
        assert torch.equal(a, b)
    assert doctor.record.step == 40
    assert all(h.whole for h in doctor.record.heard.values())


def test_a_softmax_before_cross_entropy_is_named() -> None:
    model = net(softmax=True)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with gipi.watch(model, optimizer, F.cross_entropy) as doctor:
        loop(model, optimizer, F.cross_entropy)
    assert doctor.findings[0].code == "double_softmax"
    assert doctor.findings[0].confirmed


def test_what_the_loss_compares_is_heard_whatever_the_loss_is() -> None:
    """A loss written by hand, with the target moved and the outputs reshaped."""
    torch.manual_seed(0)
    model = nn.Linear(8, 1)
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    X, y = data()

    def loss(said: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
        return (said.squeeze(1) - truth).pow(2).mean()

    with gipi.watch(model, optimizer, loss) as doctor:
        for i in range(0, 320, 32):
            optimizer.zero_grad()
            loss(model(X[i : i + 32]), y[i : i + 32].float()).backward()
            optimizer.step()
    assert torch.equal(doctor.record.heard[0].target, y[:32].float())
    assert torch.equal(doctor.record.heard[0].inputs[0], X[:32])
    assert len(doctor.record.losses) == 10


def test_an_error_in_the_loop_passes_and_everything_is_undone() -> None:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    backward = torch.Tensor.backward
    with pytest.raises(RuntimeError, match="mat1"), gipi.watch(model, optimizer, F.cross_entropy):
        model(torch.zeros(3, 9))
    assert torch.Tensor.backward is backward
    assert not torch.overrides._get_current_function_mode_stack()
    assert not model._forward_pre_hooks


def test_a_watch_that_cannot_see_says_so_before_work_is_lost() -> None:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with pytest.raises(ConfigError, match=r"watch\(SGD, "):
        gipi.watch(optimizer, model, F.cross_entropy)
    with pytest.raises(ConfigError, match="frozen"):
        gipi.watch(model, optimizer, F.cross_entropy, declared={"frozne": True}).__enter__()
    with pytest.raises(RequestError, match="watched nothing"):
        _ = gipi.watch(model, optimizer, F.cross_entropy).findings
