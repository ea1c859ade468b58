"""Activations against their formulas."""

from __future__ import annotations

import math

import pytest
import torch

from gipi.core.errors import UnknownName
from gipi.nn import ACTIVATIONS, activation

X = torch.linspace(-3, 3, 41, dtype=torch.float64)
FORMULAS = {
    "identity": lambda x: x,
    "step": lambda x: (x >= 0).double(),
    "sigmoid": lambda x: 1 / (1 + (-x).exp()),
    "tanh": lambda x: (x.exp() - (-x).exp()) / (x.exp() + (-x).exp()),
    "scaled-tanh": lambda x: 1.7159 * (2 * x / 3).tanh(),
    "softsign": lambda x: x / (1 + x.abs()),
    "relu": lambda x: x.clamp(min=0),
    "leaky-relu": lambda x: torch.where(x > 0, x, 0.01 * x),
    "elu": lambda x: torch.where(x > 0, x, x.exp() - 1),
    "selu": lambda x: 1.0507009873554805 * torch.where(
        x > 0, x, 1.6732632423543772 * (x.exp() - 1)
    ),
    "softplus": lambda x: (1 + x.exp()).log(),
    "silu": lambda x: x / (1 + (-x).exp()),
    "gelu": lambda x: x * 0.5 * (1 + (x / math.sqrt(2)).erf()),
    "mish": lambda x: x * (1 + x.exp()).log().tanh(),
    "hard-swish": lambda x: x * (x + 3).clamp(0, 6) / 6,
}  # fmt: skip


@pytest.mark.parametrize("record", list(ACTIVATIONS), ids=lambda r: r.name)
def test_every_record_is_its_formula_and_says_what_it_is(record):
    assert record.summary
    assert record.citation
    torch.testing.assert_close(activation(record.name)(X), FORMULAS[record.name](X))


@pytest.mark.parametrize("name", [n for n in ACTIVATIONS.names() if n != "step"])
def test_gradients_flow(name):
    points = torch.tensor([-1.3, -0.4, 0.7, 2.1], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(activation(name), (points,))


def test_the_step_has_no_gradient():
    assert not activation("step")(torch.ones(2, requires_grad=True)).requires_grad


def test_scaled_tanh_maps_one_to_one():
    f = activation("scaled-tanh")
    assert f(torch.tensor(1.0)).item() == pytest.approx(1.0, abs=1e-4)
    assert f(torch.tensor(-1.0)).item() == pytest.approx(-1.0, abs=1e-4)


def test_selu_keeps_mean_and_variance():
    y = activation("selu")(torch.randn(200_000, generator=torch.Generator().manual_seed(0)))
    assert y.mean().item() == pytest.approx(0, abs=0.01)
    assert y.var().item() == pytest.approx(1, abs=0.02)


def test_a_wrong_name_gets_the_nearest():
    with pytest.raises(UnknownName, match="'leaky-relu'"):
        activation("leaky_relu_")
