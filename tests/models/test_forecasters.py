"""Forecasters: their numbers of weights, their equations written out again, and their gradients."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import pytest
import torch
from torch import nn

from gipi import models
from gipi.core.errors import ConfigError, ModelError
from gipi.core.schema import Signature
from gipi.models.dlinear import moving_average
from gipi.nn import mixes_rows

L, H, F, K = 24, 6, 3, 2
SERIES = Signature(numbers=F, length=L, horizon=H, outputs=K)
SMALL = {
    "dlinear": {"kernel": 5, "init": "uniform"},
    "nlinear": {"init": "uniform"},
    "lstm-forecaster": {"width": 7, "dropout": 0.0},
    "patchtst": {"patch": 8, "stride": 4, "width": 8, "heads": 2, "layers": 2, "hidden": 12,
                 "dropout": 0.0},
}  # fmt: skip
NAMES = tuple(SMALL)


def build(name, signature=SERIES, **options):
    return models.build(name, signature, seed=1, options={**SMALL[name], **options}).eval()


def past(rows=4, signature=SERIES):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(rows, signature.length, signature.numbers, generator=generator)


def count(model):
    return sum(p.numel() for p in model.parameters())


def hot(model):
    """Weights that differ everywhere, so that no mistake can hide behind a zero or a one."""
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.3 * torch.randn(p.shape, generator=generator))
    return model


# ------------------------------------------------------------------------ all of them


@pytest.mark.parametrize("name", NAMES)
def test_shape_choices_and_rebuilding(name):
    model = build(name)
    assert model(past()).shape == (4, H, K)
    assert all(model.choices)
    again = models.build(name, SERIES, seed=1, options=asdict(model.config)).eval()
    torch.testing.assert_close(again(past()), model(past()), rtol=0, atol=0)
    other = models.build(name, SERIES, seed=2, options=asdict(model.config)).eval()
    assert not torch.equal(other(past()), model(past()))


@pytest.mark.parametrize("name", NAMES)
def test_rows_do_not_meet_and_every_weight_learns(name):
    model = hot(build(name))
    assert mixes_rows(model) == []
    alone = torch.cat([model(past()[i : i + 1]) for i in range(4)])
    torch.testing.assert_close(model(past()), alone, rtol=1e-5, atol=1e-6)
    model(past()).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


@pytest.mark.parametrize("name", NAMES)
def test_gradients_are_right(name):
    model = hot(build(name)).double()
    x = past(2).double().requires_grad_()
    assert torch.autograd.gradcheck(model, (x,), eps=1e-6, atol=1e-5, nondet_tol=1e-8)


@pytest.mark.parametrize("name", ["dlinear", "nlinear", "patchtst"])
def test_each_series_is_forecast_from_its_own_past_alone(name):
    model, x = hot(build(name)), past()
    changed = x.clone()
    changed[:, :, 1:] += 5
    torch.testing.assert_close(model(changed)[:, :, 0], model(x)[:, :, 0])
    assert not torch.allclose(model(changed)[:, :, 1], model(x)[:, :, 1])


def test_the_recurrent_one_sees_every_series():
    model, x = hot(build("lstm-forecaster")), past()
    changed = x.clone()
    changed[:, 3, 2] += 5
    assert not torch.allclose(model(changed), model(x))


@pytest.mark.parametrize("name", ["nlinear", "lstm-forecaster", "patchtst"])
def test_a_shift_of_the_level_shifts_the_forecast(name):
    model, x = hot(build(name)), past()
    torch.testing.assert_close(model(x + 7), model(x) + 7, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_data_that_is_no_series_is_refused(name):
    with pytest.raises(ModelError, match="--task forecast"):
        models.build(name, Signature(numbers=4, outputs=2))


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("dlinear", {"kernel": 24}, "odd"),
        ("patchtst", {"patch": 25}, "model.patch=25 with lookback=24"),
        ("patchtst", {"width": 9}, "model.width=9 with model.heads=2"),
        ("lstm-forecaster", {"cell": "lsmt"}, "model.cell='lsmt'"),
        ("dlinear", {"kernl": 3}, "kernl"),
    ],
)
def test_wrong_options_are_named(name, options, words):
    with pytest.raises(ConfigError, match=words):
        build(name, **options)


# ------------------------------------------------------------------------ linear


def test_moving_average_by_hand():
    x = np.random.default_rng(0).normal(size=(2, 11))
    padded = np.pad(x, ((0, 0), (2, 2)), mode="edge")
    expected = np.stack([padded[:, i : i + 5].mean(1) for i in range(11)], 1)
    np.testing.assert_allclose(moving_average(torch.from_numpy(x), 5), expected, rtol=1e-12)


@pytest.mark.parametrize("individual", [False, True])
def test_dlinear_is_its_equation(individual):
    model, x = hot(build("dlinear", individual=individual)).double(), past().double()
    assert count(model) == 2 * (L * H + H) * (K if individual else 1)
    for k in range(K):
        series = x[:, :, k].numpy()
        padded = np.pad(series, ((0, 0), (2, 2)), mode="edge")
        trend = np.stack([padded[:, i : i + 5].mean(1) for i in range(L)], 1)
        maps = []
        for part in (model.remainder, model.trend):
            w, b = part.weight.detach().numpy(), part.bias.detach().numpy()
            maps.append((w[k], b[k]) if individual else (w, b))
        (wr, br), (wt, bt) = maps
        expected = (series - trend) @ wr.T + br + trend @ wt.T + bt
        np.testing.assert_allclose(model(x)[:, :, k].detach().numpy(), expected, rtol=1e-9)


def test_the_defaults_are_those_of_the_paper_and_it_begins_with_the_mean():
    model = models.build("dlinear", SERIES)
    assert (model.config.kernel, model.config.individual) == (25, False)
    mean = past()[:, :, :K].mean(1, keepdim=True).expand(-1, H, -1)
    torch.testing.assert_close(model(past()), mean, rtol=1e-4, atol=1e-5)


def test_nlinear_is_its_equation():
    model, x = hot(build("nlinear")).double(), past().double()
    assert count(model) == L * H + H
    w, b = model.linear.weight.detach().numpy(), model.linear.bias.detach().numpy()
    for k in range(K):
        series = x[:, :, k].numpy()
        expected = (series - series[:, -1:]) @ w.T + b + series[:, -1:]
        np.testing.assert_allclose(model(x)[:, :, k].detach().numpy(), expected, rtol=1e-9)


# ------------------------------------------------------------------------ patches


def encoder(layer, config):
    """torch's own layer of 2017 with the same weights."""
    twin = nn.TransformerEncoderLayer(
        config.width, config.heads, config.hidden, dropout=0.0, activation="gelu",
        batch_first=True, norm_first=False,
    ).double()  # fmt: skip
    pairs = {
        "self_attn.in_proj_weight": layer.qkv.weight, "self_attn.in_proj_bias": layer.qkv.bias,
        "self_attn.out_proj.weight": layer.join.weight, "self_attn.out_proj.bias": layer.join.bias,
        "linear1.weight": layer.widen.weight, "linear1.bias": layer.widen.bias,
        "linear2.weight": layer.narrow.weight, "linear2.bias": layer.narrow.bias,
        "norm1.weight": layer.norm1.over.weight, "norm1.bias": layer.norm1.over.bias,
        "norm2.weight": layer.norm2.over.weight, "norm2.bias": layer.norm2.over.bias,
    }  # fmt: skip
    twin.load_state_dict({k: v.detach() for k, v in pairs.items()})
    return twin.train()  # torch's fast path of evaluation is another code


def test_patchtst_is_its_equation():
    model, x = hot(build("patchtst")).double(), past().double()
    config = model.config
    for k in range(K):
        series = x[:, :, k]
        mean = series.mean(1, keepdim=True)
        spread = (series.var(1, keepdim=True, correction=0) + 1e-5).sqrt()
        gain, shift = model.revin.gain[k], model.revin.shift[k]
        scaled = (series - mean) / spread * gain + shift
        longer = torch.cat([scaled, scaled[:, -1:].expand(-1, config.stride)], 1)
        patches = [longer[:, i : i + 8] for i in range(0, L + config.stride - 8 + 1, 4)]
        assert len(patches) == (L - 8) // 4 + 2
        z = torch.stack([p @ model.embed.weight.T + model.embed.bias for p in patches], 1)
        z = z + model.place
        for layer in model.layers:
            z = encoder(layer, config)(z)
        y = z.flatten(1) @ model.head.weight.T + model.head.bias
        expected = (y - shift) / (gain + 1e-10) * spread + mean
        torch.testing.assert_close(model(x)[:, :, k], expected, rtol=1e-8, atol=1e-8)


def test_patchtst_has_the_weights_that_its_equation_has():
    model = models.build("patchtst", Signature(numbers=7, length=336, horizon=96, outputs=7))
    c = model.config
    assert (c.patch, c.stride, c.width, c.heads, c.layers, c.hidden) == (16, 8, 16, 4, 3, 128)
    n, d = 42, c.width
    layer = 3 * (d * d + d) + (d * d + d) + (d * c.hidden + c.hidden) + (c.hidden * d + d) + 4 * d
    expected = 2 * 7 + (c.patch * d + d) + n * d + 3 * layer + (n * d * 96 + 96)
    assert count(model) == expected
    assert model.choices[0].startswith("42 patches")


def test_patchtst_with_the_norm_of_the_paper_mixes_rows_and_says_so():
    model = build("patchtst", norm="batch")
    assert len(mixes_rows(model)) == 4
    assert model.train()(past()).shape == (4, H, K)


# ------------------------------------------------------------------------ recurrent


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def test_the_lstm_is_its_equation():
    model, x = hot(build("lstm-forecaster")).double(), past().double().numpy()
    named = {n.split(".")[-1]: p.detach().numpy() for n, p in model.encoder.named_parameters()}
    w = model.config.width
    assert count(model) == 4 * w * (F + w) + 8 * w + (w * H * K + H * K)
    h, c = np.zeros((4, w)), np.zeros((4, w))
    for t in range(L):
        step = x[:, t] - x.mean(1)
        gates = (step @ named["weight_ih_l0"].T + named["bias_ih_l0"]
                 + h @ named["weight_hh_l0"].T + named["bias_hh_l0"])  # fmt: skip
        i, f, g, o = np.split(gates, 4, axis=1)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
    out = h @ model.head.weight.detach().numpy().T + model.head.bias.detach().numpy()
    expected = out.reshape(4, H, K) + x.mean(1, keepdims=True)[:, :, :K]
    np.testing.assert_allclose(model(torch.from_numpy(x)).detach().numpy(), expected, rtol=1e-9)


def test_the_recurrence_begins_orthogonal_with_open_forget_gates():
    model = build("lstm-forecaster")
    w = model.config.width
    named = {n.split(".")[-1]: p for n, p in model.encoder.named_parameters()}
    for gate in named["weight_hh_l0"].chunk(4):
        torch.testing.assert_close(gate @ gate.T, torch.eye(w), rtol=1e-5, atol=1e-5)
    bias = (named["bias_ih_l0"] + named["bias_hh_l0"]).view(4, w)
    assert torch.equal(bias, torch.tensor([0.0, 1.0, 0.0, 0.0])[:, None].expand(4, w))
    assert build("lstm-forecaster", cell="gru")(past()).shape == (4, H, K)
    plain = build("lstm-forecaster", level="none")
    assert not torch.allclose(plain(past() + 7), plain(past()) + 7, atol=0.1)
    two = build("lstm-forecaster", layers=2, dropout=0.3)
    assert len(list(two.encoder.parameters())) == 8
