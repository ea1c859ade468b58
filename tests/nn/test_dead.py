"""Dead units are found, and the rule that they call up brings them back."""

from __future__ import annotations

import torch
from torch import nn

from gipi.core.batch import Batch
from gipi.nn import Situation, advise, dead_units


def test_channels_that_never_answer_are_counted():
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(10), nn.ReLU())
    x = torch.randn(8, 1, 5, 5, generator=torch.Generator().manual_seed(0))
    net(x)
    with torch.no_grad():
        net[0].bias[:3] = -1e6
        net[3].weight.zero_()
        net[3].bias.copy_(torch.tensor([1.0] * 9 + [0.0]))
    net.train()
    found = dead_units(net, Batch({"image": x}, None))
    assert found["1"] == 0.75
    assert abs(found["4"] - 0.1) < 1e-6
    assert net.training
    assert not any(m._forward_hooks for m in net.modules())


def test_one_row_is_enough_to_be_alive():
    net = nn.Sequential(nn.Identity(), nn.ReLU())
    x = -torch.ones(5, 2)
    x[3, 1] = 1
    assert dead_units(net, x) == {"1": 0.5}
    assert dead_units(nn.Sequential(nn.Tanh()), x) == {}


def test_dead_relus_do_not_learn_and_the_advised_ones_do():
    def learned(activation):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(2, 8), activation, nn.Linear(8, 1))
        with torch.no_grad():
            net[0].bias.fill_(-20.0)
        start = net[0].weight.clone()
        x = torch.randn(64, 2)
        dead = dead_units(net, x)
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        for _ in range(10):
            optimizer.zero_grad()
            (net(x)[:, 0] - x[:, 0]).square().mean().backward()
            optimizer.step()
        return not torch.equal(start, net[0].weight), dead

    moved, dead = learned(nn.ReLU())
    assert not moved
    assert dead == {"1": 1.0}
    share = sum(dead.values()) / len(dead)
    assert (
        advise("activation", Situation("dense", dead_units=share)).facts["advice"] == "leaky-relu"
    )
    assert learned(nn.LeakyReLU())[0]
