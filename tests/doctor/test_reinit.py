"""Weights drawn anew: every layer's outputs have spread 1, what is tied or frozen stays."""

from __future__ import annotations

import pytest
import torch
from tests.doctor.patients import blobs, cnn, experiment, images, mlp, token_rows, waves
from torch import nn

from gipi.doctor.finding import CannotRepair
from gipi.doctor.reinit import rectified, renew


def spreads(exp) -> list[float]:
    found = []
    hooks = [
        m.register_forward_hook(lambda _, __, said: found.append(float(said.std())))
        for m in exp.model.modules()
        if isinstance(m, (nn.Linear, nn.Conv2d))
    ]
    with torch.no_grad():
        exp.model(exp.train[0][:256])
    for hook in hooks:
        hook.remove()
    return found


def test_linear_layers_and_convolutions_are_scaled_by_what_passes() -> None:
    torch.manual_seed(0)
    net = cnn()
    net(images()[0][0][:2])
    for model, splits in ((mlp(), blobs()), (net, images())):
        exp = experiment(model, splits)
        with torch.no_grad():
            for p in model.parameters():
                p.mul_(50.0)
        renew(exp)
        *hidden, last = spreads(exp)
        assert all(0.8 < s < 1.2 for s in hidden)
        assert 0.3 < last < 0.8


def test_a_head_behind_sigmoids_begins_where_its_bias_stands() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(8, 32), nn.Sigmoid(), nn.Linear(32, 32), nn.Sigmoid(),
                        nn.Linear(32, 3))  # fmt: skip
    nn.init.constant_(net[-1].bias, 5.0)
    splits = [(X, X[:, :3]) for X, _ in blobs()]
    exp = experiment(net, splits, loss=nn.MSELoss())
    renew(exp)
    with torch.no_grad():
        said = exp.model(exp.train[0])
    assert torch.allclose(said.mean(0), torch.full((3,), 5.0), atol=0.1)
    assert 0.3 < float(said.std(0).mean()) < 0.8


def test_recurrent_matrices_become_orthogonal_and_the_forget_gate_open() -> None:
    class Last(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell, self.head = nn.LSTM(2, 8, batch_first=True), nn.Linear(8, 2)

        def forward(self, x):
            return self.head(self.cell(x)[0][:, -1])

    exp = experiment(Last(), waves())
    renew(exp)
    W = exp.model.cell.weight_hh_l0.detach()
    for gate in W.chunk(4):
        assert torch.allclose(gate @ gate.T, torch.eye(8), atol=1e-5)
    assert bool((exp.model.cell.bias_ih_l0[8:16] == 1).all())


def test_what_is_frozen_or_tied_stays() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embedding, self.body = nn.Embedding(40, 16), nn.Linear(16, 16)
            self.head = nn.Linear(16, 40, bias=False)
            self.head.weight = self.embedding.weight

        def forward(self, ids):
            return self.head(self.body(self.embedding(ids).mean(1)).relu())

    exp = experiment(Tied(), token_rows())
    tied, body = exp.model.head.weight.detach().clone(), exp.model.body.weight.detach().clone()
    renew(exp)
    assert torch.equal(exp.model.head.weight, tied)
    assert not torch.equal(exp.model.body.weight, body)
    frozen = mlp().requires_grad_(requires_grad=False)
    exp = experiment(nn.Sequential(frozen, nn.Embedding(2, 2)), blobs())
    with pytest.raises(CannotRepair):
        renew(exp)


def test_activations_that_are_modules_become_rectifiers_but_the_last() -> None:
    net = nn.Sequential(nn.Linear(8, 16), nn.Sigmoid(), nn.Linear(16, 4), nn.Sigmoid())
    exp = experiment(net, blobs())
    rectified(exp)
    assert [type(m).__name__ for m in net] == ["Linear", "ReLU", "Linear", "Sigmoid"]
    with pytest.raises(CannotRepair):
        rectified(experiment(mlp(), blobs()))


@pytest.mark.parametrize("kind", [nn.RNN, nn.GRU, nn.LSTM])
def test_input_weights_of_recurrent_layers_are_scaled_only_where_inputs_are_loud(kind) -> None:
    class Net(nn.Module):
        def __init__(self, gain: float) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.gain, self.body, self.head = gain, kind(3, 8, batch_first=True), nn.Linear(8, 2)

        def forward(self, x):
            x = nn.utils.rnn.pack_padded_sequence(self.gain * x, [5] * len(x), batch_first=True)
            return self.head(nn.utils.rnn.pad_packed_sequence(self.body(x)[0], True)[0][:, -1])

    X = torch.randn(60, 5, 3, generator=torch.Generator().manual_seed(0))
    sizes = {}
    for gain in (1.0, 100.0):
        exp = experiment(Net(gain), [(X, X[:, 0, :2])] * 2)
        renew(exp)
        sizes[gain] = float((gain * X @ exp.model.body.weight_ih_l0.T).detach().std())
    # Glorot's weights as drawn; a standard deviation of 24 uniform numbers is off by a tenth
    assert sizes[1.0] == pytest.approx((6 / 11) ** 0.5, rel=0.15)
    assert sizes[100.0] == pytest.approx(1.0, rel=0.1)


@pytest.mark.parametrize("how", ["@", "linear"])
def test_own_matrices_are_scaled_by_what_passes_as_well(how) -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            sizes = [(8, 32), (32, 32), (32, 4)]
            self.W = nn.ParameterList(1e-3 * torch.randn(i, o) for i, o in sizes)
            self.b = nn.ParameterList(torch.ones(o) for _, o in sizes)

        def said(self, x):
            found = []
            for w, b in zip(self.W, self.b, strict=True):
                x = x @ w if how == "@" else nn.functional.linear(x, w.T)
                x = x + b
                found.append(x)
                x = torch.sigmoid(x)
            return found

        def forward(self, x):
            return self.said(x)[-1]

    exp = experiment(Own(), blobs())
    assert renew(exp) == "3 layers drawn anew, scaled by what passes through them"
    with torch.no_grad():
        said = exp.model.said(exp.train[0][:256])
    assert [round(float((x - x.mean(0)).std()), 2) for x in said] == [1.0, 1.0, 0.5]
    assert max(float(x.mean(0).abs().max()) for x in said) < 0.2  # biases began at 1
