"""Weight averages."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from gipi import optim
from gipi.core.errors import CheckpointError, ConfigError


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))


def walk(model: nn.Module, t: int) -> None:
    with torch.no_grad():
        for p in model.parameters():
            p.fill_(float(t))
        model[1].running_mean.fill_(float(t))
        model[1].num_batches_tracked.fill_(t)


def test_ema_follows_its_formula_with_the_ramp():
    model = net()
    walk(model, 0)
    average, expected = optim.ema(model, decay=0.5), 0.0
    for n in range(10):
        walk(model, n)
        average.update()
        decay = min(0.5, (1 + n) / (10 + n))
        expected = decay * expected + (1 - decay) * n
    state = average.state()
    assert float(state["0.weight"][0, 0]) == pytest.approx(expected, rel=1e-6)
    assert float(state["1.running_mean"][0]) == pytest.approx(expected, rel=1e-6)
    assert int(state["1.num_batches_tracked"]) == 9


def test_swa_is_the_mean_from_its_start_on():
    model = net()
    average = optim.swa(model, start=0.5)
    for t in range(10):
        walk(model, t)
        average.update(t / 10)
    assert float(average.state()["0.bias"][0]) == pytest.approx(7.0)  # of 5, 6, 7, 8, 9
    assert float(average.state()["1.running_mean"][0]) == pytest.approx(7.0)


def test_swapped_shows_the_average_and_gives_the_weights_back():
    model = net()
    average = optim.swa(model, start=0.0)
    for t in (2, 4):
        walk(model, t)
        average.update()
    pointers = [p.data_ptr() for p in model.parameters()]
    with average.swapped():
        assert float(model[0].weight[0, 0].detach()) == 3.0
        assert pointers == [p.data_ptr() for p in model.parameters()]
    assert float(model[0].weight[0, 0].detach()) == 4.0
    assert float(average.state()["0.weight"][0, 0]) == 3.0
    with pytest.raises(RuntimeError, match="inside"), average.swapped():
        raise RuntimeError("inside")
    assert float(model[0].weight[0, 0].detach()) == 4.0


def test_before_anything_was_averaged_the_model_stays_as_it_is():
    model = net()
    walk(model, 1)
    average = optim.swa(model, start=0.9)
    walk(model, 2)
    average.update(0.5)
    with average.swapped():
        assert float(model[0].weight[0, 0].detach()) == 2.0


def test_state_round_trip_goes_on_bit_identically():
    def run(model, average, steps):
        for t in steps:
            walk(model, t)
            average.update(t / 10)

    model, other = net(), net()
    average, resumed = optim.ema(model, decay=0.9), optim.ema(other, decay=0.9)
    run(model, average, range(5))
    resumed.load_state({k: v.clone() for k, v in average.state().items()})
    run(model, average, range(5, 9))
    run(other, resumed, range(5, 9))
    for key, value in average.state().items():
        assert torch.equal(value, resumed.state()[key]), key


def test_a_state_of_another_model_is_refused():
    average = optim.ema(net(), decay=0.9)
    with pytest.raises(CheckpointError, match=r"0\.weight"):
        average.load_state(optim.ema(nn.Sequential(nn.Linear(2, 2)), decay=0.9).state())


@pytest.mark.parametrize("make", [
    lambda: optim.ema(net(), decay=1.0),
    lambda: optim.swa(net(), start=1.0),
])  # fmt: skip
def test_wrong_values_are_named(make):
    with pytest.raises(ConfigError, match=r"ema=1\.0|swa=1\.0"):
        make()
