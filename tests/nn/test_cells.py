"""The cells: their formulas equal torch's cells, and with norms they are what the paper says."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from gipi.nn import (
    CellWeights,
    GateNorm,
    NormedCell,
    gru_step,
    initialise_cell,
    lstm_step,
    rnn_step,
)
from gipi.nn.cells import GATES

D, H, B, T = 3, 5, 4, 6
CELLS = ["rnn", "lstm", "gru"]


def generator():
    return torch.Generator().manual_seed(0)


def rows(*shape):
    return torch.randn(*shape, generator=generator(), dtype=torch.float64)


def weights_of(cell):
    return CellWeights(cell.weight_ih, cell.weight_hh, cell.bias_ih, cell.bias_hh)


# ------------------------------------------------------------------------ one step


@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_a_step_of_the_simple_cell_is_torchs(activation):
    cell = nn.RNNCell(D, H, nonlinearity=activation).double()
    x, h = rows(B, D), rows(B, H)
    ours = rnn_step(x, h, weights=weights_of(cell), activation=activation)
    torch.testing.assert_close(ours, cell(x, h))


def test_a_step_of_the_lstm_is_torchs():
    cell = nn.LSTMCell(D, H).double()
    x, h, c = rows(B, D), rows(B, H), rows(B, H) + 1
    torch.testing.assert_close(lstm_step(x, h, c_BH=c, weights=weights_of(cell)), cell(x, (h, c)))


def test_a_step_of_the_gru_is_torchs():
    cell = nn.GRUCell(D, H).double()
    x, h = rows(B, D), rows(B, H)
    torch.testing.assert_close(gru_step(x, h, weights=weights_of(cell)), cell(x, h))


# ------------------------------------------------------------------------ with norms


def fused(cell, activation="tanh"):
    kind = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}[cell]
    more = {"nonlinearity": activation} if cell == "rnn" else {}
    return kind(D, H, batch_first=True, **more).double()


def plain(cell, activation="tanh"):
    """Return our cell whose norms are the identity, with the weights of torch's."""
    theirs = fused(cell, activation)
    ours = NormedCell(cell, D, width=H, activation=activation).double()
    ours.norm_x, ours.norm_h, ours.norm_c = nn.Identity(), nn.Identity(), nn.Identity()
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


@pytest.mark.parametrize(("cell", "activation"), [("rnn", "tanh"), ("rnn", "relu"),
                                                  ("lstm", "tanh"), ("gru", "tanh")])  # fmt: skip
def test_without_its_norms_the_cell_is_torchs_layer(cell, activation):
    ours, theirs = plain(cell, activation)
    x = rows(B, T, D)
    torch.testing.assert_close(ours(x), theirs(x))
    state = (rows(1, B, H), rows(1, B, H) + 1) if cell == "lstm" else rows(1, B, H)
    torch.testing.assert_close(ours(x, state), theirs(x, state))


@pytest.mark.parametrize("cell", CELLS)
def test_the_norms_stand_where_the_paper_has_them(cell):
    net = NormedCell(cell, D, width=H).double()
    initialise_cell(net, cell, generator=generator())
    with torch.no_grad():
        for name, p in net.named_parameters():
            if "norm" in name or "bias" in name:
                p.normal_(generator=generator())
    x, h, c = rows(B, D), rows(B, H), rows(B, H) + 1
    normed = lambda v, w, n: nn.functional.layer_norm(v @ w.T, (len(w),), n.weight)
    split = GATES[cell]

    def share(v, weight, norms):
        pieces = weight.split([H * s for s in split])
        return torch.cat([normed(v, w, n) for w, n in zip(pieces, norms.norms, strict=True)], 1)

    a = share(x, net.weight_ih_l0, net.norm_x) + net.bias_ih_l0
    b = share(h, net.weight_hh_l0, net.norm_h) + net.bias_hh_l0
    if cell == "rnn":
        new = (a + b).tanh()
    elif cell == "lstm":
        i, f, g, o = (a + b).chunk(4, 1)
        memory = f.sigmoid() * c + i.sigmoid() * g.tanh()
        scaled = nn.functional.layer_norm(memory, (H,), net.norm_c.weight, net.norm_c.bias)
        new = o.sigmoid() * scaled.tanh()
    else:
        (r, z, n), (u, v, m) = a.chunk(3, 1), b.chunk(3, 1)
        n = (n + (r + u).sigmoid() * m).tanh()
        new = (1 - (z + v).sigmoid()) * n + (z + v).sigmoid() * h
    out, _ = net(x[:, None], (h[None], c[None]) if cell == "lstm" else h[None])
    torch.testing.assert_close(out[:, 0], new)


def test_gate_norm_has_one_spread_for_each_group_of_gates():
    x = rows(B, 3 * H) * 7 + 3
    out = GateNorm("gru", H).double()(x).detach()
    for piece in out.split([2 * H, H], 1):
        torch.testing.assert_close(piece.mean(1), torch.zeros(B).double(), atol=1e-9, rtol=0)
        torch.testing.assert_close(
            piece.var(1, correction=0), torch.ones(B).double(), atol=1e-3, rtol=0
        )
    assert len(GateNorm("lstm", H).norms) == len(GateNorm("rnn", H).norms) == 1


@pytest.mark.parametrize("cell", CELLS)
def test_the_gradient_is_the_slope(cell):
    net = NormedCell(cell, 2, width=3).double()
    initialise_cell(net, cell, generator=generator())
    # Away from 0, where layer norm is steep.
    state = rows(1, 2, 3) + 0.5
    given = (state, state + 1) if cell == "lstm" else state
    x = rows(2, 3, 2).requires_grad_()
    assert torch.autograd.gradcheck(lambda v: net(v, given)[0], (x,))


@pytest.mark.parametrize("cell", CELLS)
def test_the_scale_of_the_recurrent_weights_does_not_count(cell):
    net = NormedCell(cell, D, width=H).double()
    initialise_cell(net, cell, generator=generator())
    x, state = rows(B, T, D), rows(1, B, H) + 1
    given = (state, state) if cell == "lstm" else state
    before = net(x, given)[0]
    with torch.no_grad():
        net.weight_hh_l0.mul_(50)
    torch.testing.assert_close(net(x, given)[0], before, rtol=1e-3, atol=1e-3)
