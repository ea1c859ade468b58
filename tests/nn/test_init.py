"""Initial weights: their spreads, the rule, and that they are a function of the seed alone."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from gipi.core.errors import ModelError
from gipi.nn import ACTIVATIONS, INITS, activation, init_for, initialise, why

SPREAD = {  # standard deviation for a weight of 60 in and 20 out
    "zeros": 0.0,
    "normal": 0.01,
    "xavier": math.sqrt(2 / 80),
    "he": math.sqrt(2 / 60),
    "lecun": math.sqrt(1 / 60),
    "lecun-uniform": 2.4 / 60 / math.sqrt(3),
}


@pytest.mark.parametrize("record", list(INITS), ids=lambda r: r.name)
def test_every_record_says_what_it_is_and_has_its_spread(record):
    assert record.summary
    assert record.citation
    weight = torch.empty(20, 60)
    for shape in ((20, 60), (20, 15, 2, 2)):
        weight = torch.empty(shape)
        record.build(weight, torch.Generator().manual_seed(0), record.facts.get("gain", 1.0))
        if record.name == "orthogonal":
            flat = weight.flatten(1)
            torch.testing.assert_close(flat @ flat.T, torch.eye(20))
        elif len(shape) == 2:
            assert weight.std().item() == pytest.approx(SPREAD[record.name], rel=0.06)
        elif record.name == "xavier":  # the field counts in both fans
            assert weight.std().item() == pytest.approx(math.sqrt(2 / 140), rel=0.06)
        else:
            assert weight.std().item() == pytest.approx(SPREAD[record.name], rel=0.06)


def test_the_rule():
    assert {n: init_for(n) for n in ("relu", "leaky-relu", "gelu", "silu")} == dict.fromkeys(
        ("relu", "leaky-relu", "gelu", "silu"), "he"
    )
    assert {init_for(n) for n in ("tanh", "sigmoid", "scaled-tanh")} == {"xavier"}
    assert init_for("selu") == "lecun"
    assert all(init_for(n) in INITS for n in ACTIVATIONS.names())


@pytest.mark.parametrize(("name", "low", "high"), [("relu", 0.5, 2.0), ("selu", 0.7, 1.4),
                                                   ("tanh", 0.05, 1.5)])  # fmt: skip
def test_the_rule_carries_a_signal_through_twenty_layers(name, low, high):
    generator = torch.Generator().manual_seed(0)
    layers = nn.Sequential()
    for _ in range(20):
        layers.extend([nn.Linear(64, 64), activation(name)])
    initialise(layers, generator, activation=name)
    x = torch.randn(256, 64, generator=generator)
    ratio = layers(x).detach().square().mean().sqrt().item()
    assert low < ratio < high


def test_weights_are_a_function_of_the_generator_alone():
    def weights(seed, disturb):
        torch.manual_seed(disturb)
        net = nn.Sequential(nn.Linear(4, 3), nn.Conv2d(2, 3, 3))
        before = torch.random.get_rng_state()
        initialise(net, torch.Generator().manual_seed(seed), activation="relu")
        assert torch.equal(before, torch.random.get_rng_state())
        return [p.detach().clone() for p in net.parameters()]

    a, b, c = weights(1, 0), weights(1, 99), weights(2, 0)
    assert all(torch.equal(p, q) for p, q in zip(a, b, strict=True))
    assert not torch.equal(a[0], c[0])
    assert not a[1].any()  # biases


@pytest.mark.parametrize("name", ACTIVATIONS.names())
def test_why_names_the_choice(name):
    assert init_for(name) in why(name, "auto")
    assert "as asked" in why(name, "orthogonal")


def test_a_vector_has_no_fans():
    with pytest.raises(ModelError, match="no fans"):
        INITS.get("he").build(torch.empty(3), torch.Generator(), 1.0)
