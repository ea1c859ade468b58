"""The recurrent cells: each formula as a function of one time step, and a layer that norms them.

Shapes: B rows, T time steps, D inputs, H units, G the units of all gates of a cell: H, 4 H or 3 H.

The functions are for reading and for the layer with norms. Without norms torch's fused layers
compute the same in one call (`gipi.nn.recurrent`), and the tests hold the two to each other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

CellKind = Literal["rnn", "lstm", "gru"]
GATES: dict[str, tuple[int, ...]] = {"rnn": (1,), "lstm": (4,), "gru": (2, 1)}
"""Units of each norm in multiples of H, in the order in which torch stacks the gates' weights."""


class CellWeights(NamedTuple):
    """The tensors of one cell, named and stacked as in torch's: rnn 1, lstm i f g o, gru r z n."""

    weight_ih: Tensor  # (G, D)
    weight_hh: Tensor  # (G, H)
    bias_ih: Tensor  # (G,)
    bias_hh: Tensor  # (G,)


# ------------------------------------------------------------------------ one time step


def rnn_step(
    x_BD: Tensor, h_BH: Tensor, *, weights: CellWeights, activation: str = "tanh"
) -> Tensor:
    """Return the next state of a simple recurrent unit.

        h' = f(W x + U h + b),   f = tanh or relu

    x (B, D) and h (B, H) -> (B, H). Elman 1990, "Finding structure in time"; with relu as in Le,
    Jaitly and Hinton 2015, arXiv:1504.00941. Two biases, as in torch, where one would do.
    """
    return _rnn(*_shares(x_BD, h_BH, weights), _functions(activation))


def lstm_step(
    x_BD: Tensor, h_BH: Tensor, *, c_BH: Tensor, weights: CellWeights
) -> tuple[Tensor, Tensor]:
    """Return the next state (h', c') of a long short-term memory.

        i, f, o = σ(W x + U h + b) each,   g = tanh(W x + U h + b)
        c' = f ⊙ c + i ⊙ g,   h' = o ⊙ tanh c'

    x (B, D), h and c (B, H) -> two of (B, H). Hochreiter and Schmidhuber 1997, "Long short-term
    memory", with the forget gate f of Gers, Schmidhuber and Cummins 2000, "Learning to forget".
    Without the peepholes of Gers and Schmidhuber 2000.
    """
    return _lstm(*_shares(x_BD, h_BH, weights), c_BH)


def gru_step(x_BD: Tensor, h_BH: Tensor, *, weights: CellWeights) -> Tensor:
    """Return the next state of a gated recurrent unit.

        r, z = σ(W x + U h + b) each,   n = tanh(W x + b + r ⊙ (U h + b'))
        h' = (1 - z) ⊙ n + z ⊙ h

    x (B, D) and h (B, H) -> (B, H). Cho et al. 2014, arXiv:1406.1078. As in torch the reset gate
    acts behind the matrix, r ⊙ (U h), where the paper has U (r ⊙ h): so one product gives all
    three gates.
    """
    return _gru(*_shares(x_BD, h_BH, weights), h_BH)


def _shares(x_BD: Tensor, h_BH: Tensor, weights: CellWeights) -> tuple[Tensor, Tensor]:
    """Return what the input and the state each add to the gates, (B, G)."""
    share_x = F.linear(x_BD, weights.weight_ih, weights.bias_ih)
    return share_x, F.linear(h_BH, weights.weight_hh, weights.bias_hh)


def _functions(activation: str) -> Callable[[Tensor], Tensor]:
    return {"tanh": torch.tanh, "relu": torch.relu}[activation]


def _rnn(x_BH: Tensor, h_BH: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
    return function(x_BH + h_BH)


def _lstm(
    x_BG: Tensor, h_BG: Tensor, c_BH: Tensor, norm: Callable[[Tensor], Tensor] | None = None
) -> tuple[Tensor, Tensor]:
    i, f, g, o = (x_BG + h_BG).chunk(4, -1)
    c_BH = f.sigmoid() * c_BH + i.sigmoid() * g.tanh()
    return o.sigmoid() * (c_BH if norm is None else norm(c_BH)).tanh(), c_BH


def _gru(x_BG: Tensor, h_BG: Tensor, h_BH: Tensor) -> Tensor:
    x_r, x_z, x_n = x_BG.chunk(3, -1)
    h_r, h_z, h_n = h_BG.chunk(3, -1)
    r, z = (x_r + h_r).sigmoid(), (x_z + h_z).sigmoid()
    n = (x_n + r * h_n).tanh()
    return n + z * (h_BH - n)


# ------------------------------------------------------------------------ with norms


class GateNorm(nn.Module):
    """Layer norm of the gates: one over all of an LSTM's, two for a GRU (r with z, and n).

    No shift of its own: the bias of the cell is added behind it.
    """

    def __init__(self, cell: CellKind, width: int) -> None:
        super().__init__()
        self.sizes = [width * n for n in GATES[cell]]
        self.norms = nn.ModuleList(nn.LayerNorm(size, bias=False) for size in self.sizes)

    def forward(self, x: Tensor) -> Tensor:
        """Return (..., G), each group of gates with mean 0 and spread γ."""
        if len(self.sizes) == 1:
            out: Tensor = self.norms[0](x)
            return out
        pieces = x.split(self.sizes, -1)
        return torch.cat([n(p) for n, p in zip(self.norms, pieces, strict=True)], -1)


class NormedCell(nn.Module):
    """One recurrent layer with layer norm inside the cell; called like torch's `nn.LSTM`.

        gates = LN(W x) + b + LN(U h) + b',   and in an LSTM h' = o ⊙ tanh LN(c')

    x (B, T, D) and a state of (1, B, H) tensors -> (B, T, H), state. Every time step is called from
    Python, where torch's fused layers are called once for all: the price of the norm.

    Ba, Kiros and Hinton 2016, "Layer normalization", arXiv:1607.06450. Differs from the paper: in
    the simple RNN the two shares are normed one by one, as the paper does in the gated cells.
    """

    def __init__(
        self, cell: CellKind, inputs: int, *, width: int, activation: str = "tanh"
    ) -> None:
        super().__init__()
        gates = width * sum(GATES[cell])
        self.cell, self.hidden_size = cell, width
        self.activation = activation
        self.weight_ih_l0 = nn.Parameter(torch.empty(gates, inputs))
        self.weight_hh_l0 = nn.Parameter(torch.empty(gates, width))
        self.bias_ih_l0 = nn.Parameter(torch.zeros(gates))
        self.bias_hh_l0 = nn.Parameter(torch.zeros(gates))
        self.norm_x = GateNorm(cell, width)
        self.norm_h = GateNorm(cell, width)
        self.norm_c = nn.LayerNorm(width) if cell == "lstm" else nn.Identity()

    def forward(
        self, x_BTD: Tensor, state: Tensor | tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, Tensor | tuple[Tensor, Tensor]]:
        """Return the states (B, T, H) and the last one, in the form in which it came."""
        # The inputs' share does not wait for the state: one product and one norm for all steps.
        share_BTG = self.norm_x(F.linear(x_BTD, self.weight_ih_l0)) + self.bias_ih_l0
        if state is None:
            h = c = x_BTD.new_zeros(len(x_BTD), self.hidden_size)
        elif isinstance(state, tuple):
            h, c = state[0][0], state[1][0]
        else:
            h = c = state[0]
        function, states = _functions(self.activation), []
        for x_BG in share_BTG.unbind(1):
            h_BG = self.norm_h(F.linear(h, self.weight_hh_l0)) + self.bias_hh_l0
            if self.cell == "lstm":
                h, c = _lstm(x_BG, h_BG, c, self.norm_c)
            else:
                h = _rnn(x_BG, h_BG, function) if self.cell == "rnn" else _gru(x_BG, h_BG, h)
            states.append(h)
        out_BTH = torch.stack(states, 1)
        return (out_BTH, (h[None], c[None])) if self.cell == "lstm" else (out_BTH, h[None])
