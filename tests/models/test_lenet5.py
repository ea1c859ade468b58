"""LeNet-5: the numbers of the paper."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from gipi import losses, models
from gipi.core.errors import ConfigError
from gipi.core.schema import Signature
from gipi.models.lenet5 import C3_INPUTS

MNIST = Signature(image=(1, 28, 28), outputs=10)


def counts(model: torch.nn.Module) -> dict[str, int]:
    sums = {n: sum(p.numel() for p in m.parameters()) for n, m in model.net.named_children()}
    return {n: c for n, c in sums.items() if c}


@pytest.mark.parametrize("side", [28, 32])
def test_parameters_of_1998_are_those_of_the_paper(side):
    signature = Signature(image=(1, side, side), outputs=10)
    model = models.build("lenet5", signature, options={"variant": "1998"})
    assert counts(model) == {
        "c1": 156, "s2": 12, "c3": 1516, "s4": 32, "c5": 48120, "f6": 10164,
    }  # fmt: skip
    assert sum(p.numel() for p in model.parameters()) == 60_000


@pytest.mark.parametrize("side", [8, 28, 32, 64])
def test_the_modern_variant_has_61706_parameters(side):
    model = models.build("lenet5", Signature(image=(1, side, side), outputs=10))
    assert sum(p.numel() for p in model.parameters()) == 61_706
    assert counts(model) == {"c1": 156, "c3": 2416, "c5": 48120, "f6": 10164, "output": 850}


def test_map_sizes_are_those_of_the_paper():
    model = models.build("lenet5", MNIST, options={"variant": "1998"})
    x, sizes = torch.zeros(1, 1, 28, 28), {}
    for name, layer in model.net.named_children():
        x = layer(x)
        sizes[name] = tuple(x.shape[1:])
    assert [sizes[n] for n in ("c1", "s2", "c3", "s4", "c5", "f6", "rbf")] == [
        (6, 28, 28), (6, 14, 14), (16, 10, 10), (16, 5, 5), (120, 1, 1), (84,), (10,),
    ]  # fmt: skip


def test_padding_28_to_32_in_the_convolution_equals_padding_the_picture():
    inside = models.build("lenet5", MNIST, seed=1)
    outside = models.build("lenet5", Signature(image=(1, 32, 32), outputs=10), seed=1)
    x = torch.randn(3, 1, 28, 28)
    torch.testing.assert_close(inside(x), outside(F.pad(x, (2, 2, 2, 2))))


def test_c3_sees_only_the_maps_of_table_one():
    assert [len(seen) for seen in C3_INPUTS] == [3] * 6 + [4] * 9 + [6]
    assert len(set(C3_INPUTS)) == 16
    # Each map of S2 feeds ten maps of C3.
    assert [sum(i in seen for seen in C3_INPUTS) for i in range(6)] == [10] * 6
    c3 = models.build("lenet5", MNIST, options={"variant": "1998"}).net.get_submodule("c3")
    base = c3(torch.zeros(1, 6, 14, 14))
    for i in range(6):
        x = torch.zeros(1, 6, 14, 14)
        x[:, i] = 1.0
        moved = (c3(x) != base).flatten(2).any(2)[0]
        assert [o for o in range(16) if moved[o]] == [
            o for o, seen in enumerate(C3_INPUTS) if i in seen
        ]


def test_subsampling_is_a_scaled_sum_with_a_bias():
    s2 = models.build("lenet5", MNIST, options={"variant": "1998"}).net.get_submodule("s2")
    with torch.no_grad():
        s2.coefficient.copy_(torch.arange(6.0))
        s2.bias.fill_(0.5)
    x = torch.randn(2, 6, 28, 28)
    sums = sum(x[:, :, i::2, j::2] for i in (0, 1) for j in (0, 1))
    torch.testing.assert_close(s2(x), torch.arange(6.0)[:, None, None] * sums + 0.5)


def test_the_output_is_minus_the_squared_distance_to_the_codes():
    rbf = models.build("lenet5", MNIST, options={"variant": "1998"}).net.get_submodule("rbf")
    assert set(rbf.codes.unique().tolist()) == {-1.0, 1.0}
    assert len(rbf.codes.unique(dim=0)) == 10
    x = torch.randn(3, 84)
    distance = (x[:, None] - rbf.codes).square().sum(2)
    torch.testing.assert_close(rbf(x), -distance, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("variant", ["modern", "1998"])
def test_it_learns_bars(variant):
    """Eight classes of pictures: a bar at one of four places, upright or flat, with noise."""
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(128) % 8
    x = 0.3 * torch.randn(128, 1, 28, 28, generator=generator)
    for i, c in enumerate(y.tolist()):
        place = 4 + 6 * (c // 2)
        if c % 2:
            x[i, 0, place : place + 2] += 1
        else:
            x[i, 0, :, place : place + 2] += 1
    model = models.build(
        "lenet5", Signature(image=(1, 28, 28), outputs=8), options={"variant": variant}
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(25):
        for part in torch.randperm(128, generator=generator).split(32):
            optimizer.zero_grad()
            total, count = losses.cross_entropy(model(x[part]), y[part])
            (total / count).backward()
            optimizer.step()
    assert (model(x).argmax(1) == y).float().mean().item() > 0.95


@pytest.mark.parametrize("activation", ["tanh", "gelu", "maxout", "prelu"])
def test_the_modern_net_takes_any_activation(activation):
    model = models.build("lenet5", MNIST, options={"activation": activation})
    assert model(torch.zeros(2, 1, 28, 28)).shape == (2, 10)
    assert model.config.activation == activation
    assert f"activation {activation}, as asked" in model.choices[0]
    assert model.config.init in model.choices[1]


def test_the_net_of_1998_is_as_published():
    model = models.build("lenet5", MNIST, options={"variant": "1998"})
    assert (model.config.activation, model.config.init) == ("scaled-tanh", "lecun-uniform")
    with pytest.raises(ConfigError, match="activation='relu' with the variant 1998"):
        models.build("lenet5", MNIST, options={"variant": "1998", "activation": "relu"})
