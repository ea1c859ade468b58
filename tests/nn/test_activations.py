"""Activations against the texts of their records, and those texts against autograd."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.nn.formula import bounds, value
from torch import nn

from gipi.core.errors import ConfigError, ModelError, UnknownName
from gipi.nn import ACTIVATIONS, Maxout, Step, activation, widening

GRID = torch.linspace(-8, 8, 1601, dtype=torch.float64) + 1e-4  # no corner is hit exactly
FAR = torch.tensor([-5000.0, -100.0, -30.0, 30.0, 100.0, 5000.0], dtype=torch.float64)
ELEMENTWISE = [r for r in ACTIVATIONS if "elementwise" in r.tags]
NAME = {"ids": lambda r: r.name}
STEPS = ("step", "straight-through")  # no gradient, and one that is pretended


def outputs(name: str, x: torch.Tensor) -> torch.Tensor:
    return activation(name).double()(x).detach()


def slopes(name: str, x: torch.Tensor) -> torch.Tensor:
    x = x.clone().requires_grad_()
    y = activation(name).double()(x)
    return torch.autograd.grad(y.sum(), x)[0] if y.requires_grad else torch.zeros_like(x)


def stated(text: str, where: str, x: torch.Tensor) -> torch.Tensor:
    return torch.tensor([float(value(text, where, x=v)) for v in x.tolist()], dtype=torch.float64)


@pytest.mark.parametrize("record", list(ACTIVATIONS), **NAME)
def test_every_record_explains_itself(record):
    for fact in ("formula", "range", "derivative", "use", "failure", "init"):
        assert record.facts[fact], fact
    assert record.summary
    assert record.citation


@pytest.mark.parametrize("record", ELEMENTWISE, **NAME)
def test_the_formula_and_the_derivative_are_true(record):
    facts = record.facts
    where = facts.get("where", "")
    torch.testing.assert_close(
        outputs(record.name, GRID), stated(facts["formula"], where, GRID), rtol=1e-9, atol=1e-9
    )
    torch.testing.assert_close(
        slopes(record.name, GRID), stated(facts["derivative"], where, GRID), rtol=1e-6, atol=1e-7
    )


@pytest.mark.parametrize("record", ELEMENTWISE, **NAME)
def test_the_range_is_true_and_no_larger_than_needed(record):
    y = outputs(record.name, torch.cat([GRID, FAR]))
    text = record.facts["range"]
    if text.startswith("{"):
        assert set(y.tolist()) == {float(v) for v in text[1:-1].split(", ")}
        return
    low, high, _, _ = bounds(text)
    assert y.min() >= low - 1e-4  # stated to four places
    assert y.max() <= high + 1e-4
    assert y.min() <= (-1 if low == -math.inf else low + 1e-3)  # and it is reached
    assert y.max() >= (20 if high == math.inf else high - 1e-3)


@given(x=st.floats(-30, 30), record=st.sampled_from(ELEMENTWISE))
def test_formula_and_range_hold_at_any_number(x, record):
    y = outputs(record.name, torch.tensor([x], dtype=torch.float64)).item()
    said = value(record.facts["formula"], record.facts.get("where", ""), x=x)
    assert y == pytest.approx(said, rel=1e-7, abs=1e-9)
    if not record.facts["range"].startswith("{"):
        low, high, low_in, _ = bounds(record.facts["range"])
        assert low - 1e-4 <= y <= high + 1e-4
        if not low_in and math.isfinite(low) and abs(x) < 10:
            assert y > low - 1e-4


@pytest.mark.parametrize("name", [n for n in ACTIVATIONS.names() if n not in STEPS])
def test_gradients_flow(name):
    points = torch.tensor([[-1.3, -0.4, 0.7, 2.1]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(activation(name).double(), (points,))


# ------------------------------------------------------------------------ one by one


def test_the_step_has_no_gradient_unless_it_is_straight_through():
    assert not activation("step")(torch.ones(2, requires_grad=True)).requires_grad
    x = torch.tensor([-2.0, -0.5, 0.0, 0.5, 2.0], requires_grad=True)
    for unit in (
        Step(straight_through=True),
        activation("straight-through"),
        activation("step", options={"straight_through": True}),
    ):
        y = unit(x)
        assert y.tolist() == [0, 0, 1, 1, 1]
        (grad,) = torch.autograd.grad((3 * y).sum(), x)
        assert grad.tolist() == [0, 3, 3, 3, 0]


def test_a_net_of_straight_through_steps_learns_xor():
    x = torch.tensor([[-1.0, -1.0], [-1.0, 1.0], [1.0, -1.0], [1.0, 1.0]])
    y = torch.tensor([0.0, 1.0, 1.0, 0.0])
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(2, 16), activation("straight-through"), nn.Linear(16, 1))
    optimizer = torch.optim.Adam(net.parameters(), lr=0.03)
    for _ in range(300):
        optimizer.zero_grad()
        nn.functional.binary_cross_entropy_with_logits(net(x)[:, 0], y).backward()
        optimizer.step()
    assert torch.equal((net(x)[:, 0] > 0).float(), y)


def test_scaled_tanh_maps_one_to_one():
    f = activation("scaled-tanh")
    assert f(torch.tensor(1.0)).item() == pytest.approx(1.0, abs=1e-4)
    assert f(torch.tensor(-1.0)).item() == pytest.approx(-1.0, abs=1e-4)


def test_selu_keeps_mean_and_variance():
    y = activation("selu")(torch.randn(200_000, generator=torch.Generator().manual_seed(0)))
    assert y.mean().item() == pytest.approx(0, abs=0.01)
    assert y.var().item() == pytest.approx(1, abs=0.02)


def test_gelu_by_tanh_is_within_what_its_record_says():
    gap = (outputs("gelu", GRID) - outputs("gelu-tanh", GRID)).abs().max()
    assert 1e-4 < gap < 0.0005


def test_prelu_learns_its_slope():
    unit = activation("prelu")
    unit(torch.tensor([-2.0, 3.0])).sum().backward()
    assert unit.weight.grad.tolist() == [-2.0]


@pytest.mark.parametrize("pieces", [1, 2, 3])
def test_maxout_takes_the_largest_of_its_pieces(pieces):
    x = torch.randn(4, 6, 5, generator=torch.Generator().manual_seed(0))
    y = Maxout(pieces=pieces)(x)
    assert y.shape == (4, 6 // pieces, 5)
    for i in range(6 // pieces):
        assert torch.equal(y[:, i], x[:, i * pieces : (i + 1) * pieces].amax(1))
    slope = torch.autograd.functional.jacobian(Maxout(pieces=pieces), x[:1, :, 0])[0, :, 0]
    assert torch.equal(slope.sum(1), torch.ones(6 // pieces))
    assert set(slope.flatten().tolist()) <= {0.0, 1.0}


def test_maxout_keeps_the_second_moment_as_its_initial_weights_assume():
    x = torch.randn(100_000, 2, generator=torch.Generator().manual_seed(0))
    assert Maxout()(x).square().mean().item() == pytest.approx(1, abs=0.02)
    assert widening("maxout") == 2
    assert widening("relu") == 1
    assert widening("maxout", options={"pieces": 4}) == 4


def test_softmax_is_its_formula_and_its_derivative():
    x = torch.randn(2, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    y = activation("softmax")(x)
    torch.testing.assert_close(y, x.exp() / x.exp().sum(1, keepdim=True))
    torch.testing.assert_close(y.sum(1), torch.ones(2, dtype=torch.float64))
    slope = torch.autograd.functional.jacobian(activation("softmax"), x[:1])[0, :, 0]
    torch.testing.assert_close(slope, y[0, :, None] * (torch.eye(5) - y[0]))


# ------------------------------------------------------------------------ names


def test_other_names_of_the_same_thing():
    for alias, name in (("linear", "identity"), ("swish", "silu"), ("binary-step", "step")):
        assert alias in ACTIVATIONS
        assert ACTIVATIONS.get(alias).name == name
        assert alias not in ACTIVATIONS.names()


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: activation("leaky_relu_"), UnknownName, "'leaky-relu'"),
        (lambda: activation("elu", options={"alpa": 2}), ConfigError, "'alpha'"),
        (lambda: activation("tanh", options={"alpha": 2}), ConfigError, "no options"),
        (lambda: Maxout(pieces=0), ConfigError, "pieces=0"),
        (lambda: Maxout(pieces=2)(torch.zeros(1, 3)), ModelError, "3 units before a maxout of 2"),
    ],
)
def test_wrong_requests_are_named(call, error, words):
    with pytest.raises(error, match=words):
        call()
