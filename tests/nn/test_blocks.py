"""Blocks, branches and the records of layers: orders, sizes, counts, and how branches join."""

from __future__ import annotations

import itertools

import pytest
import torch
from tests.nn.formula import value
from torch import nn

from gipi.core.errors import ConfigError
from gipi.nn import (
    LAYERS,
    ORDERS,
    Branches,
    DenseConcat,
    DropPath,
    Residual,
    conv_block,
    dense_block,
    depthwise,
    drop_rates,
    grouped,
    inception,
    separable,
)


def generator():
    return torch.Generator().manual_seed(0)


def names(block):
    return [name for name, _ in block.named_children()]


def count(module):
    return sum(p.numel() for p in module.parameters())


# ------------------------------------------------------------------------ order


@pytest.mark.parametrize("norm", ["batch", "group", "layer"])
@pytest.mark.parametrize("activation", ["relu", "maxout"])
@pytest.mark.parametrize("order", ORDERS)
def test_the_norm_stands_where_the_order_says(order, activation, norm):
    words = {"conv": "conv", "norm": "norm", "act": "activation"}
    block = conv_block(4, 6, activation=activation, norm=norm, order=order)
    assert names(block) == [words[w] for w in order.split("-")]
    assert block(torch.randn(2, 4, 5, 5, generator=generator())).shape == (2, 6, 5, 5)
    dense = dense_block(4, 6, activation=activation, norm=norm, order=order)
    assert names(dense) == [words[w].replace("conv", "linear") for w in order.split("-")]
    assert dense(torch.randn(3, 4, generator=generator())).shape == (3, 6)
    kept = not (norm == "batch" and order == "conv-norm-act")
    assert (block.get_submodule("conv").bias is not None) is kept
    assert (dense.get_submodule("linear").bias is not None) is kept


def test_what_does_nothing_is_left_out():
    assert names(conv_block(3, 4, activation="identity")) == ["conv"]
    assert names(conv_block(3, 4, activation="linear", norm="none")) == ["conv"]


def test_a_bias_that_is_left_out_would_have_done_nothing():
    x = torch.randn(8, 3, 6, 6, generator=generator())
    for norm in ("batch", "instance"):
        block = conv_block(3, 4, norm=norm)
        assert block.get_submodule("conv").bias is None
        y = block(x)
        conv = block.get_submodule("conv")
        shifted = nn.functional.conv2d(x, conv.weight, torch.arange(4.0), padding=1)
        torch.testing.assert_close(
            block.get_submodule("activation")(block.get_submodule("norm")(shifted)), y,
            rtol=1e-3, atol=1e-4,
        )  # fmt: skip


@pytest.mark.parametrize(("kernel", "stride", "dilation"),
                         [(1, 1, 1), (3, 1, 1), (3, 2, 1), (5, 1, 2), (7, 2, 1)])  # fmt: skip
def test_sizes_of_convolutions(kernel, stride, dilation):
    x = torch.zeros(1, 2, 12, 13)
    y = conv_block(2, 4, kernel=kernel, stride=stride, dilation=dilation)(x)
    assert y.shape == (1, 4, -(-12 // stride), -(-13 // stride))


@pytest.mark.parametrize(("kernel", "stride"), [(1, 1), (2, 2), (3, 1), (3, 2), (4, 2), (4, 4),
                                                (5, 3), (1, 2), (2, 3)])  # fmt: skip
def test_transposed_convolutions_multiply_the_size_by_the_stride(kernel, stride):
    block = conv_block(2, 4, kernel=kernel, stride=stride, transposed=True, groups=2)
    assert block(torch.zeros(1, 2, 5, 6)).shape == (1, 4, 5 * stride, 6 * stride)


def test_groups_do_not_see_each_other():
    layer = grouped(4, 6, groups=2)
    x = torch.randn(1, 4, 5, 5, generator=generator())
    y = layer(x)
    x[:, :2] = 0
    assert torch.equal(layer(x)[:, 3:], y[:, 3:])
    alone = depthwise(4)
    moved = (alone(x) != alone(torch.zeros_like(x))).flatten(2).any(2)[0]
    assert moved.tolist() == [False, False, True, True]


def test_separable_is_depthwise_then_pointwise():
    block = separable(4, 6, stride=2)
    assert block(torch.zeros(1, 4, 8, 8)).shape == (1, 6, 4, 4)
    assert count(block) == (9 * 4 + 4) + (4 * 6 + 6)


# ------------------------------------------------------------------------ branches


def test_inception_3a_has_the_weights_of_the_paper():
    block = inception(192, 64, three=(96, 128), five=(16, 32), pool=32)
    weights = sum(p.numel() for p in block.parameters() if p.ndim > 1)
    assert weights == 192 * (64 + 96 + 16 + 32) + 9 * 96 * 128 + 25 * 16 * 32
    assert weights // 1024 == 159  # table 1 of the paper: 159K
    x = torch.randn(1, 192, 6, 6, generator=generator())
    torch.testing.assert_close(block(x), torch.cat([b(x) for b in block.branches], 1))
    assert block(x).shape == (1, 256, 6, 6)


def test_joins():
    x = torch.randn(3, 4, generator=generator())
    f = nn.Linear(4, 4)
    torch.testing.assert_close(Residual(f)(x), x + f(x))
    short = nn.Linear(4, 2)
    g = nn.Linear(4, 2)
    torch.testing.assert_close(Residual(g, shortcut=short)(x), short(x) + g(x))
    torch.testing.assert_close(DenseConcat(g)(x), torch.cat([x, g(x)], 1))
    torch.testing.assert_close(Branches([f, g])(x), torch.cat([f(x), g(x)], 1))
    assert list(Residual(f).state_dict()) == ["body.weight", "body.bias"]


def test_drop_path_leaves_out_whole_rows_and_keeps_the_mean():
    torch.manual_seed(0)
    layer, x = DropPath(0.25), torch.ones(4000, 2, 3)
    y = layer(x)
    rows = y.flatten(1)
    assert (rows == rows[:, :1]).all()
    assert {round(v, 4) for v in rows[:, 0].tolist()} == {0.0, round(1 / 0.75, 4)}
    assert y.mean().item() == pytest.approx(1, abs=0.03)
    assert (rows[:, 0] == 0).float().mean().item() == pytest.approx(0.25, abs=0.03)
    assert layer.eval()(x) is x
    assert DropPath(0.0).train()(x) is x


def test_a_dropped_branch_leaves_the_identity():
    torch.manual_seed(0)
    block = Residual(nn.Linear(3, 3), drop_path=0.5)
    x = torch.randn(64, 3, generator=generator())
    y = block(x)
    passed = (y == x).all(1)
    assert 10 < passed.sum() < 54
    torch.testing.assert_close(y[~passed], (x + 2 * block.body(x))[~passed])
    block.eval()
    torch.testing.assert_close(block(x), x + block.body(x))


def test_drop_rates_rise_to_the_last():
    assert drop_rates(5, 0.5) == pytest.approx((0.1, 0.2, 0.3, 0.4, 0.5))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: conv_block(3, 4, groups=2), "3 channels in of a convolution in 2 groups"),
        (lambda: conv_block(4, 3, groups=2), "3 channels out"),
        (lambda: conv_block(4, 4, groups=0), "groups=0"),
        (lambda: conv_block(3, 4, order="norm-conv-act"), "order 'norm-conv-act'"),
        (lambda: dense_block(3, 4, activation="maxout", order="norm-act-conv"), "2 pieces"),
        (lambda: DropPath(1.0), r"p=1\.0"),
    ],
)
def test_wrong_requests_are_named(call, words):
    with pytest.raises(ConfigError, match=words):
        call()


# ------------------------------------------------------------------------ records


@pytest.mark.parametrize("record", list(LAYERS), ids=lambda r: r.name)
def test_every_record_explains_itself(record):
    assert record.summary
    assert record.citation
    for fact in ("formula", "shape", "use", "failure"):
        assert record.facts[fact], fact


def built(name, i, o, k):
    build = LAYERS.get(name).build
    return {
        "dense": lambda: build(i, o),
        "conv": lambda: build(i, o, k),
        "conv1d": lambda: build(i, o, k),
        "grouped-conv": lambda: build(i, o, kernel=k, groups=2),
        "depthwise-conv": lambda: build(i, kernel=k),
        "separable-conv": lambda: build(i, o, kernel=k),
        "transposed-conv": lambda: build(i, o, k),
        "conv-block": lambda: build(i, o, kernel=k),
        "dense-block": lambda: build(i, o),
        "embedding": lambda: build(i, o),
        "attention": lambda: build(i, 2),
    }.get(name, build)()


@pytest.mark.parametrize("record", [r for r in LAYERS if "parameters" in r.facts],
                         ids=lambda r: r.name)  # fmt: skip
def test_the_number_of_parameters_is_what_the_record_says(record):
    for i, o, k in ((4, 6, 3), (8, 2, 5), (2, 2, 1)):
        layer = nn.MaxPool2d(2) if "pool" in record.name else built(record.name, i, o, k)
        assert count(layer) == value(record.facts["parameters"], in_=i, out=o, k=k, g=2)


@pytest.mark.parametrize("name", ["conv", "conv1d", "max-pool", "average-pool", "transposed-conv"])
def test_sizes_are_what_the_record_says(name):
    record = LAYERS.get(name)
    line = (1,) if name == "conv1d" else (1, 1)
    for n, k, s, p, d in itertools.product((7, 8, 12), (1, 2, 3), (1, 2, 3), (0, 1), (1, 2)):
        if ("pool" in name and 2 * p > k) or (name == "average-pool" and d > 1):
            continue
        window = {"kernel_size": k, "stride": s, "padding": p}
        if name != "average-pool":
            window["dilation"] = d
        layer = record.build(**window) if "pool" in name else record.build(1, 1, **window)
        said = value(record.facts["size"], n=n, k=k, s=s, p=p, d=d, o=0)
        if said < 1:
            continue
        assert layer(torch.zeros(1, 1, *(n for _ in line))).shape[2:] == (said,) * len(line)


def test_ceil_mode_keeps_the_last_partial_window():
    x = torch.arange(36.0).view(1, 1, 6, 6)
    build = LAYERS.get("max-pool").build
    assert build(3, 2)(x).shape[2:] == (2, 2)
    y = build(3, 2, ceil_mode=True)(x)
    assert y.shape[2:] == (3, 3)
    assert y[0, 0, 2, 2] == x.max()


@pytest.mark.parametrize("name", ["global-average-pool", "global-max-pool"])
def test_global_pools_take_any_size(name):
    x = torch.randn(2, 3, 5, 7, generator=generator())
    y = LAYERS.get(name).build()(x)
    said = x.mean((2, 3)) if "average" in name else x.amax((2, 3))
    torch.testing.assert_close(y.flatten(1), said)
