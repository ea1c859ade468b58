"""Parts of a model at rates of their own."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from gipi import optim
from gipi.core.errors import ConfigError
from gipi.optim.groups import parameter_groups


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 2))


def test_each_rate_has_groups_of_its_own_and_the_last_pattern_counts() -> None:
    groups = parameter_groups(net(), rates={"0": 0.5, "1": 0.1, "0.bias": 0.2})
    found = {name: g.get("lr_scale", 1.0) for g in groups for name, _ in g["params"]}
    assert found == {"0.weight": 0.5, "0.bias": 0.2, "1.weight": 0.1, "1.bias": 0.1,
                     "2.weight": 1.0, "2.bias": 1.0}  # fmt: skip
    plain = parameter_groups(net())
    assert [g["decay"] for g in plain] == [True, False]
    assert all("lr_scale" not in g for g in plain)


@pytest.mark.parametrize("name", ["adamw", "sgd", "rmsprop", "muon"])
def test_a_step_of_a_slow_part_is_a_step_at_the_lower_rate(name: str) -> None:
    """Also through the bound step, which calls torch's kernels itself."""
    slow, fast = net(), net()
    moved = []
    for model, rates, lr in ((slow, {"0": 0.1}, 0.1), (fast, None, 0.01)):
        before = model[0].weight.detach().clone()
        optimizer = optim.build_optimizer(name, model, lr=lr, rates=rates)
        model(torch.ones(5, 3)).square().sum().backward()
        optim.bind(optimizer)(lr)
        moved.append(model[0].weight.detach() - before)
    torch.testing.assert_close(moved[0], moved[1], rtol=1e-4, atol=1e-7)
    assert float(moved[0].abs().max()) > 0


def test_only_the_last_weight_of_the_model_is_not_muons_whatever_the_rates() -> None:
    model = nn.Sequential(net(), nn.Linear(2, 5), nn.Linear(5, 2))
    for rates in ({}, {"0": 0.1}, {"0": 0.1, "1": 0.5, "2": 0.1}):
        optimizer = optim.build_optimizer("muon", model, lr=0.1, rates=rates)
        own = [n for g in optimizer.param_groups if g["muon"] for n in g["param_names"]]
        assert sorted(own) == ["0.0.weight", "0.2.weight", "1.weight"]


def test_rates_that_cannot_be_are_refused() -> None:
    for rates, words in (
        ({"9": 0.1}, "rates='9' matches no parameter"),
        ({"0": 0.0}, "rates: 0.0"),
    ):
        with pytest.raises(ConfigError) as error:
            parameter_groups(net(), rates=rates)
        assert words in error.value.found
    with pytest.raises(ConfigError) as lbfgs:
        optim.build_optimizer("lbfgs", net(), lr=1.0, rates={"0": 0.1})
    assert lbfgs.value.found == "rates with lbfgs"
