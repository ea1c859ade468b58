"""Initial weights: their spreads, the rule, and that they are a function of the seed alone."""

from __future__ import annotations

import math

import pytest
import torch
from tests.nn.formula import value
from torch import nn

from gipi.core.batch import Batch
from gipi.core.errors import ModelError
from gipi.nn import ACTIVATIONS, INITS, activation, init_for, initialise, lsuv, why
from gipi.nn.init import fans, gain_for

MATRIX_ONLY = ("orthogonal", "lsuv")  # of a kernel (O, I, h, w) they see the matrix (O, I·h·w)


@pytest.mark.parametrize("record", list(INITS), ids=lambda r: r.name)
def test_every_record_explains_itself(record):
    for fact in ("formula", "variance", "use", "failure", "family"):
        assert record.facts[fact], fact
    assert record.summary
    assert record.citation


def drawn(record, shape):
    weight = torch.empty(shape, dtype=torch.float64)
    gain = record.facts.get("gain", 1.0)
    record.build(weight, torch.Generator().manual_seed(0), gain)
    return weight


@pytest.mark.parametrize("shape", [(120, 200), (300, 100), (40, 20, 5, 5)])
@pytest.mark.parametrize("record", list(INITS), ids=lambda r: r.name)
def test_the_variance_is_what_the_record_says(record, shape):
    weight = drawn(record, shape)
    if record.name == "dirac" and len(shape) > 2:  # one tap of each kernel
        weight = weight[:, :, 2, 2]
    fan_in, fan_out = fans(weight)
    if record.name in MATRIX_ONLY:
        fan_out = shape[0]
    said = value(record.facts["variance"], in_=fan_in, out=fan_out)
    got = weight.square().mean().item()
    exact = record.name in (*MATRIX_ONLY, "dirac", "zeros")
    assert got == pytest.approx(said, rel=1e-9 if exact else 0.04)


@pytest.mark.parametrize("record", [r for r in INITS if r.facts["formula"].startswith("U")],
                         ids=lambda r: r.name)  # fmt: skip
def test_uniform_weights_fill_their_interval(record):
    weight = drawn(record, (120, 200))
    a = value(record.facts["where"].removeprefix("a = "), in_=200, out=120)
    assert 0.999 * a < weight.max().item() <= a
    assert -a <= weight.min().item() < -0.999 * a
    assert a * a / 3 == pytest.approx(value(record.facts["variance"], in_=200, out=120))


@pytest.mark.parametrize("record", [r for r in INITS if r.facts["formula"].startswith("N")],
                         ids=lambda r: r.name)  # fmt: skip
def test_normal_weights_have_the_tails_of_a_normal(record):
    weight = drawn(record, (120, 200))
    s = value(record.facts["where"].removeprefix("s = "), in_=200, out=120)
    assert s * s == pytest.approx(value(record.facts["variance"], in_=200, out=120))
    assert (weight.abs() < s).double().mean().item() == pytest.approx(0.6827, abs=0.01)
    assert (weight.abs() > 2 * s).double().mean().item() == pytest.approx(0.0455, abs=0.006)


@pytest.mark.parametrize("record", [r for r in INITS if "torch" in r.facts], ids=lambda r: r.name)
def test_torch_has_the_function_that_the_record_names(record):
    function = getattr(nn.init, record.facts["torch"].rsplit(".", maxsplit=1)[-1])
    if record.facts["family"] not in ("xavier", "he"):
        assert callable(function)
        return
    theirs = torch.empty(120, 200, dtype=torch.float64)
    arguments = {"nonlinearity": "relu"} if record.facts["family"] == "he" else {}
    function(theirs, generator=torch.Generator().manual_seed(0), **arguments)
    torch.testing.assert_close(drawn(record, (120, 200)), theirs, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("shape", [(20, 60), (60, 20), (20, 15, 2, 2)])
def test_orthogonal_rows_or_columns_are_orthonormal(shape):
    flat = drawn(INITS.get("orthogonal"), shape).flatten(1)
    small = flat @ flat.T if shape[0] <= flat.shape[1] else flat.T @ flat
    torch.testing.assert_close(small, torch.eye(len(small), dtype=torch.float64))


@pytest.mark.parametrize(("inputs", "outputs"), [(3, 3), (3, 5), (5, 3)])
def test_dirac_passes_its_input_on(inputs, outputs):
    generator = torch.Generator().manual_seed(0)
    both = min(inputs, outputs)
    layers = nn.Conv2d(inputs, outputs, 3, padding=1), nn.Linear(inputs, outputs)
    for layer, shape in zip(layers, ((2, inputs, 4, 4), (2, inputs)), strict=True):
        initialise(layer, generator, init="dirac")
        x = torch.randn(shape, generator=generator)
        torch.testing.assert_close(layer(x)[:, :both], x[:, :both])
        assert not layer(x)[:, both:].any()


def test_hidden_layers_of_zeros_never_learn():
    def step(init):
        net = nn.Sequential(nn.Linear(3, 4), nn.Sigmoid(), nn.Linear(4, 2))
        initialise(net, torch.Generator().manual_seed(0), init=init)
        generator = torch.Generator().manual_seed(1)
        x, y = torch.randn(32, 3, generator=generator), torch.arange(32) % 2
        optimizer = torch.optim.SGD(net.parameters(), lr=0.5)
        for _ in range(20):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(x), y).backward()
            optimizer.step()
        return net[0].weight.detach()

    alike = step("zeros")
    assert torch.equal(alike, alike[:1].expand(4, 3))  # every unit is the same one
    apart = step("xavier")
    assert (apart[0] - apart[1]).abs().max() > 0.1


# ------------------------------------------------------------------------ the rule


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


@pytest.mark.parametrize(("name", "init"), [("leaky-relu", "he"), ("prelu", "he-uniform")])
def test_the_gain_of_a_leaky_rectifier_follows_its_slope(name, init):
    slope = 0.01 if name == "leaky-relu" else 0.25
    assert gain_for(name, init) == pytest.approx(math.sqrt(2 / (1 + slope**2)))
    assert gain_for(name, "xavier") == 1.0
    assert gain_for("relu", "kaiming-normal") == pytest.approx(math.sqrt(2))


# ------------------------------------------------------------------------ kernels in groups


def through(layer, init="lecun"):
    """Return the spread of what a layer makes of a picture of noise, its margin cut off."""
    generator = torch.Generator().manual_seed(0)
    initialise(layer, generator, init=init)
    x = torch.randn(8, layer.in_channels, 24, 24, generator=generator)
    return layer(x).detach()[:, :, 6:-6, 6:-6].std().item()


@pytest.mark.parametrize("groups", [1, 4, 16])
@pytest.mark.parametrize("init", ["lecun", "xavier"])
def test_a_grouped_convolution_keeps_the_spread(groups, init):
    layer = nn.Conv2d(16, 16, 3, padding=1, groups=groups)
    assert through(layer, init) == pytest.approx(1, rel=0.2)


@pytest.mark.parametrize(("kernel", "stride", "groups"), [(3, 1, 1), (2, 2, 1), (4, 2, 1),
                                                          (4, 2, 4), (6, 3, 2)])  # fmt: skip
@pytest.mark.parametrize("init", ["lecun", "orthogonal"])
def test_a_transposed_convolution_keeps_the_spread(kernel, stride, groups, init):
    # (O, I·k²) of orthogonal has orthonormal rows: each as long as 1, as lecun's are.
    layer = nn.ConvTranspose2d(32, 8 if init == "lecun" else 32, kernel, stride, groups=groups)
    assert through(layer, init) == pytest.approx(1, rel=0.2)


# ------------------------------------------------------------------------ LSUV


def deep(activation_name, width=32, layers=12):
    net = nn.Sequential()
    for _ in range(layers):
        net.extend([nn.Linear(width, width), activation(activation_name)])
    return net.append(nn.Linear(width, 5))


def variances(net, x):
    found = {}
    for name, layer in net.named_children():
        x = layer(x)
        if isinstance(layer, nn.Linear | nn.Conv2d):
            found[name] = x.var(correction=0).item()
    return found


@pytest.mark.parametrize("name", ["relu", "tanh", "sigmoid", "selu", "silu", "gelu", "softplus"])
def test_lsuv_reaches_unit_variance_in_every_layer(name):
    generator = torch.Generator().manual_seed(0)
    net, x = deep(name), torch.randn(64, 32, generator=generator)
    found = lsuv(net, x, generator=generator)
    again = variances(net, x)
    assert len(found) == 13
    assert found == pytest.approx(again, rel=1e-4)
    assert all(abs(v - 1) < 0.01 for v in again.values())
    initialise(net, generator, init="uniform")
    assert min(variances(net, x).values()) < 0.9  # without it they are not


def test_lsuv_takes_convolutions_batches_and_weights_as_they_are():
    generator = torch.Generator().manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.ConvTranspose2d(8, 4, 2, 2), nn.Dropout(0.9),
        nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4 * 12 * 12, 3),
    ).train()  # fmt: skip
    initialise(net, generator, init="orthogonal")
    with torch.no_grad():
        net[0].bias.fill_(3.0)  # a bias has no variance
        net[0].weight.mul_(7.0)
    start = net[0].weight.clone()
    x = 3 * torch.randn(16, 3, 8, 8, generator=generator) + 1
    found = lsuv(net, Batch({"image": x}, None))
    assert list(found) == ["0", "2", "6"]
    assert all(abs(v - 1) < 0.01 for v in found.values())
    ratio = net[0].weight / start
    torch.testing.assert_close(ratio, ratio.mean().expand_as(ratio))  # scaled, nothing else
    assert net[4].num_batches_tracked == 0
    assert all(m.training for m in net.modules())
    assert not any(m._forward_hooks for m in net.modules())


def test_lsuv_is_a_function_of_the_generator_and_the_batch():
    def weights():
        net = deep("relu", layers=3)
        lsuv(net, torch.ones(8, 32).cumsum(0).sin(), generator=torch.Generator().manual_seed(3))
        return [p.detach() for p in net.parameters()]

    assert all(torch.equal(a, b) for a, b in zip(weights(), weights(), strict=True))


@pytest.mark.parametrize("x", [torch.ones(4, 32), torch.full((4, 32), torch.nan)])
def test_lsuv_names_a_layer_that_does_not_vary(x):
    net = deep("relu", layers=2)
    if not x.isnan().any():
        initialise(net, torch.Generator().manual_seed(0), init="zeros")
    with pytest.raises(ModelError, match="layer '0' has variance"):
        lsuv(net, x)
    assert not any(m._forward_hooks for m in net.modules())


# ------------------------------------------------------------------------ what the records claim


def spread(init, name, *, width=256, layers=20):
    """Return the spread of a signal of spread 1 after some layers, in float64."""
    generator = torch.Generator().manual_seed(0)
    net = nn.Sequential()
    for _ in range(layers):
        net.extend([nn.Linear(width, width), activation(name)])
    net = net.double()
    fill = INITS.get(init)
    for layer in net[::2]:
        fill.build(layer.weight, generator, fill.facts.get("gain", 1.0))
        nn.init.zeros_(layer.bias)
    x = torch.randn(256, width, generator=generator, dtype=torch.float64)
    return net(x).detach().square().mean().sqrt().item()


@pytest.mark.parametrize(
    ("init", "name", "expected"),
    [
        ("uniform", "identity", 3**-10),  # a third of the variance in every layer
        ("standard-normal", "identity", 16.0**20),  # √in in every layer
        ("xavier", "relu", 2**-10),  # half of the signal in every layer
        ("lecun", "relu", 2**-10),
        ("he", "relu", 1.0),
        ("he-uniform", "relu", 1.0),
        ("lecun", "identity", 1.0),
        ("orthogonal", "identity", 1.0),
    ],
)
def test_twenty_layers_do_to_a_signal_what_the_record_says(init, name, expected):
    assert math.log2(spread(init, name)) == pytest.approx(math.log2(expected), abs=0.8)
