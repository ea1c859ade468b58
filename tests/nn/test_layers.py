"""Dense blocks, and embeddings of columns."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from gipi.nn import (
    CategoryEmbeddings,
    OneHotLinear,
    PeriodicNumbers,
    Residual,
    dense_block,
    embedding_width,
    mixes_rows,
)


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_mixes_rows_names_modules_at_any_depth():
    class Own(nn.Module):
        mixes_rows = True

    net = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.BatchNorm1d(2), nn.LayerNorm(2)), Own())
    net.append(nn.LazyBatchNorm2d())
    assert mixes_rows(net) == ["1.0", "2", "3"]
    assert mixes_rows(nn.BatchNorm2d(3)) == ["BatchNorm2d"]
    assert mixes_rows(nn.Linear(2, 2)) == []


def test_dense_block_leaves_out_what_does_nothing():
    assert list(dict(dense_block(3, 4).named_children())) == ["linear", "activation"]
    full = dense_block(3, 4, activation="selu", norm="batch", dropout=0.1)
    assert list(dict(full.named_children())) == ["linear", "norm", "activation", "dropout"]
    assert isinstance(full.get_submodule("dropout"), nn.AlphaDropout)
    assert full.get_submodule("linear").bias is None


def test_residual_adds_the_input_where_widths_fit():
    block = dense_block(4, 4, residual=True)
    assert isinstance(block, Residual)
    x = torch.randn(3, 4, generator=generator())
    torch.testing.assert_close(block(x), x + block.body(x))
    assert not isinstance(dense_block(4, 5, residual=True), Residual)


@pytest.mark.parametrize(("known", "width"), [(1, 1), (2, 1), (3, 3), (8, 6), (41, 13),
                                              (100, 22), (10_000, 50)])  # fmt: skip
def test_embedding_width(known, width):
    assert embedding_width(known + 1) == width


def test_category_embeddings_look_up_each_column_and_start_unknown_at_zero():
    layer = CategoryEmbeddings((3, 41), generator())
    assert layer.width == embedding_width(3) + embedding_width(41)
    codes = torch.tensor([[0, 0], [2, 5], [1, 40]])
    out = layer(codes)
    assert out.shape == (3, layer.width)
    assert not out[0].any()
    tables = [t.weight for t in layer.tables]
    torch.testing.assert_close(out[1], torch.cat([tables[0][2], tables[1][5]]))
    # A column weighs about as much as one standardised number.
    rows = layer.tables[1].weight[1:].detach().square().sum(1)
    assert rows.mean().item() == pytest.approx(1.0, rel=0.2)


def test_one_hot_linear_is_a_linear_layer_on_one_hot_codes():
    cards = (3, 4)
    layer = OneHotLinear(cards, 2).double()
    with torch.no_grad():
        layer.weight.normal_(generator=generator())
    codes = torch.stack([torch.randint(0, n, (6,), generator=generator()) for n in cards], 1)
    hot = torch.cat(
        [nn.functional.one_hot(c, n) for c, n in zip(codes.unbind(1), cards, strict=True)], 1
    )
    torch.testing.assert_close(layer(codes), hot.double() @ layer.weight)
    assert list(layer.state_dict()) == ["weight"]


def test_periodic_numbers_are_their_formula_and_keep_the_numbers():
    layer = PeriodicNumbers(3, generator(), units=4, frequencies=5)
    x = torch.randn(6, 3, generator=generator())
    out = layer(x)
    assert out.shape == (6, layer.width) == (6, 3 * 5)
    torch.testing.assert_close(out[:, -3:], x)
    angle = 2 * math.pi * layer.frequency[1] * x[2, 1]
    unit = layer.mix(torch.cat([angle.sin(), angle.cos()])).relu()
    torch.testing.assert_close(out[2, 4:8], unit)


def test_periodic_numbers_fit_a_sawtooth_that_a_plain_layer_cannot():
    x = torch.rand(512, 1, generator=generator()) * 4 - 2
    y = (4 * x) % 1 - 0.5

    def error(first, width):
        torch.manual_seed(0)
        net = nn.Sequential(first, nn.Linear(width, 32), nn.ReLU(), nn.Linear(32, 1))
        optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
        for _ in range(200):
            optimizer.zero_grad()
            loss = (net(x) - y).square().mean()
            loss.backward()
            optimizer.step()
        return loss.item()

    layer = PeriodicNumbers(1, generator(), units=16, frequencies=24, sigma=1.0)
    assert error(layer, layer.width) < 0.5 * error(nn.Identity(), 1)
