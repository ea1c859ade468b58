"""Recurrent layers, stacked and in one or both directions, for rows of any length.

Shapes: B rows, T time steps, D inputs, H units, L layers, K = H · directions.

Without norms torch's fused layers do the work; with them `NormedCell`.

Rows of unequal length are run padded and masked afterwards, and are not packed. The second
direction reads each row turned round within its own length, so that padding comes last in both
directions and reaches nothing. Measured on one CPU thread with `benchmarks/speed/
recurrent_lengths.py`: padded, an LSTM took 0.21 to 0.72 of the time that it took packed, as torch
has its fast kernel for whole tensors only. A GRU was faster packed (padded 1.13 to 1.25) only where
less than half of the batch was tokens and the net not tiny, which batches of similar length avoid.
Padded rows also need no lengths on the host, for which a GPU would have to be waited.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NamedTuple, cast, get_args

import torch
from torch import nn
from torch.nn import functional as F

from gipi.core.errors import ConfigError, ModelError, did_you_mean
from gipi.nn.cells import CellKind, NormedCell
from gipi.nn.init import INITS
from gipi.nn.over_time import within

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Generator, Tensor

CELLS: tuple[str, ...] = get_args(CellKind)


class Carried(NamedTuple):
    """What a recurrent net remembers between two calls; rows stand first, in dimension 0.

    h  (B, L, H) the states
    c  (B, L, H) the memories of an LSTM; (B, L, 0) for cells that have none
    """

    h: Tensor
    c: Tensor


def detached(state: Carried) -> Carried:
    """Return the state without its history: the next gradient ends here.

    Truncated back-propagation through time: a long row is read in pieces, the state goes on from
    piece to piece, the gradient does not. Williams and Peng 1990, "An efficient gradient-based
    algorithm for on-line training of recurrent network trajectories".
    """
    return Carried(state.h.detach(), state.c.detach())


class Recurrent(nn.Module):
    """A stack of recurrent layers: rnn, lstm or gru, see `gipi.nn.cells` for their formulas.

    x (B, T, D) -> (B, T, K), the states of the last layer, forward beside backward, 0 on padding.

    cell           rnn (Elman 1990), lstm (Hochreiter and Schmidhuber 1997), gru (Cho et al. 2014)
    layers         how many, one on the other
    bidirectional  a second direction in every layer (Schuster and Paliwal 1997, Bidirectional
                   recurrent neural networks)
    dropout        share of the values between two layers that is left out in training, never within
                   time (Zaremba, Sutskever and Vinyals 2014, arXiv:1409.2329)
    norm           "layer" for layer norm inside the cell (Ba, Kiros and Hinton 2016), or "none"
    activation     of the simple cell: tanh or relu

    Initial weights: of each gate, recurrent weights orthogonal (Saxe et al. 2014), input weights
    Xavier; biases 0, but 1 for the forget gate, so that an LSTM remembers before it has learned to
    (Gers, Schmidhuber and Cummins 2000). Raises `ConfigError` for an unknown cell, norm or
    activation.

    >>> net = Recurrent(3, 4, generator=torch.Generator().manual_seed(0), bidirectional=True)
    >>> net(torch.zeros(2, 5, 3), torch.tensor([5, 2])).shape
    torch.Size([2, 5, 8])
    """

    def __init__(
        self,
        inputs: int,
        width: int,
        *,
        generator: Generator,
        cell: CellKind = "lstm",
        layers: int = 1,
        bidirectional: bool = False,
        dropout: float = 0.0,
        norm: Literal["none", "layer"] = "none",
        activation: Literal["tanh", "relu"] = "tanh",
    ) -> None:
        super().__init__()
        for word, value, known in (
            ("cell", cell, CELLS), ("norm of a cell", norm, ("none", "layer")),
            ("activation of a cell", activation, ("tanh", "relu")),
        ):  # fmt: skip
            if value not in known:
                raise ConfigError(f"the {word} '{value}'", f"one of {', '.join(known)}",
                                  did_you_mean(value, known))  # fmt: skip
        directions = 2 if bidirectional else 1
        self.cell, self.layers, self.hidden, self.width = cell, layers, width, width * directions
        # In one direction and without norms all layers are one call of torch.
        self.depth = depth = layers if not bidirectional and norm == "none" else 1
        self.dropout = nn.Dropout(dropout)
        self.levels = nn.ModuleList()
        for level in range(layers // depth):
            entering = inputs if level == 0 else self.width
            made: list[nn.Module] = []
            for _ in range(directions):
                if norm == "layer":
                    made.append(NormedCell(cell, entering, width=width, activation=activation))
                else:
                    made.append(_fused(cell, entering, width, layers=depth,
                                       dropout=dropout, activation=activation))  # fmt: skip
            self.levels.append(nn.ModuleList(made))
        for module in self.modules():
            if isinstance(module, nn.RNNBase | NormedCell):
                initialise_cell(module, cell, generator=generator)

    def forward(self, x_BTD: Tensor, lengths_B: Tensor | None = None) -> Tensor:
        """Return the states (B, T, K) of rows read from their beginning, 0 behind their ends.

        lengths_B  steps of each row, 0 allowed; None: all T. What stands behind a row's end reaches
                   nothing, whatever its value.
        """
        steps = x_BTD.shape[1]
        if lengths_B is None:
            return self._read(x_BTD, None, None) if steps else self._nothing(x_BTD)
        if lengths_B.device.type == "cpu":  # elsewhere the host would have to wait for the number
            x_BTD = x_BTD[:, : int(lengths_B.max()) if len(lengths_B) else 0]
        read = x_BTD.shape[1]
        if read == 0:
            return F.pad(self._nothing(x_BTD), (0, 0, 0, steps))
        mask_BT1 = within(lengths_B, read)[..., None]
        turn_BT1 = None
        if self.width != self.hidden:
            places_T = torch.arange(read, device=x_BTD.device)
            turn_BT1 = torch.where(mask_BT1[..., 0], lengths_B[:, None] - 1 - places_T, places_T)
            turn_BT1 = turn_BT1[..., None]
        # Zeros in the place of the padding: a NaN there would reach the weights by its gradient.
        out = self._read(x_BTD.masked_fill(~mask_BT1, 0.0), turn_BT1, mask_BT1)
        return F.pad(out, (0, 0, 0, steps - read)) if read < steps else out

    def ends(self, out_BTK: Tensor, lengths_B: Tensor | None = None) -> Tensor:
        """Return the last state of each row, (B, K), from what `forward` returned; 0 if empty.

        The second direction ends where the row begins.
        """
        if out_BTK.shape[1] == 0:
            return out_BTK.new_zeros(len(out_BTK), self.width)
        if lengths_B is None:
            last_BK = out_BTK[:, -1]
        else:
            place = (lengths_B - 1).clamp(min=0)[:, None, None].expand(-1, 1, self.width)
            last_BK = out_BTK.gather(1, place)[:, 0]
        if self.width == self.hidden:
            return last_BK
        return torch.cat([last_BK[:, : self.hidden], out_BTK[:, 0, self.hidden :]], 1)

    # -------------------------------------------------------------------- carried state

    def start(self, rows: int, *, like: Tensor) -> Carried:
        """Return the state before the first step, zeros of the type and device of `like`."""
        h = like.new_zeros(rows, self.layers, self.hidden)
        return Carried(h, h if self.cell == "lstm" else h[..., :0])

    def carry(
        self, x_BTD: Tensor, state: Carried, *, lengths_B: Tensor | None = None
    ) -> tuple[Tensor, Carried]:
        """Return the states (B, T, H) of rows that go on from `state`, and the state behind them.

        Pieces read one after the other give what the whole row gives at once. The gradient runs
        through `state`, unless it is `detached`. With `lengths_B` each row's state is the one at
        its own end; that goes step by step, and is meant for prompts.

        Raises `ModelError` in two directions: the second begins at the end, which is not known.
        """
        if self.width != self.hidden:
            raise ModelError("a state to be carried through a bidirectional net",
                             "one direction: the second begins where the row ends",
                             "build it with bidirectional=False")  # fmt: skip
        if lengths_B is None:
            return self._go_on(x_BTD, state)
        states = []
        for t in range(x_BTD.shape[1]):
            alive_B11 = (t < lengths_B)[:, None, None]
            out, new = self._go_on(x_BTD[:, t : t + 1].masked_fill(~alive_B11, 0.0), state)
            state = Carried(torch.where(alive_B11, new.h, state.h),
                            torch.where(alive_B11, new.c, state.c))  # fmt: skip
            states.append(out.masked_fill(~alive_B11, 0.0))
        return torch.cat(states, 1) if states else self._nothing(x_BTD), state

    # -------------------------------------------------------------------- the work

    def _read(self, x_BTD: Tensor, turn_BT1: Tensor | None, mask_BT1: Tensor | None) -> Tensor:
        """Return the states of the last layer for rows that begin with zeros."""
        for level, (ahead, *behind) in enumerate(self._calls()):
            if level:
                x_BTD = self.dropout(x_BTD)
            out = ahead(x_BTD)[0]
            if behind:
                back = behind[0](_turned(x_BTD, turn_BT1))[0]
                out = torch.cat([out, _turned(back, turn_BT1)], 2)
            x_BTD = out
        return x_BTD if mask_BT1 is None else x_BTD.masked_fill(~mask_BT1, 0.0)

    def _go_on(self, x_BTD: Tensor, state: Carried) -> tuple[Tensor, Carried]:
        """Return the states of the last layer and the new state of all layers."""
        if x_BTD.shape[1] == 0:
            return self._nothing(x_BTD), state
        # torch keeps layers before rows, and wants memory in that order.
        h_LBH, c_LBH = (t.transpose(0, 1).contiguous() for t in state)
        hs, cs = [], []
        for level, (layer,) in enumerate(self._calls()):
            if level:
                x_BTD = self.dropout(x_BTD)
            here = slice(level, level + self.depth)
            h, c = h_LBH[here], c_LBH[here]
            x_BTD, last = layer(x_BTD, (h, c) if self.cell == "lstm" else h)
            h, c = last if self.cell == "lstm" else (last, c)
            hs.append(h)
            cs.append(c)
        return x_BTD, Carried(torch.cat(hs).transpose(0, 1), torch.cat(cs).transpose(0, 1))

    def _calls(self) -> list[list[nn.Module]]:
        """Return what is called one after the other: each the modules of its directions."""
        return [list(cast("nn.ModuleList", level)) for level in self.levels]

    def _nothing(self, x_BTD: Tensor) -> Tensor:
        return x_BTD.new_zeros(len(x_BTD), 0, self.width)


def _turned(x_BTD: Tensor, turn_BT1: Tensor | None) -> Tensor:
    """Return each row backwards within its length; twice is once back."""
    if turn_BT1 is None:
        return x_BTD.flip(1)
    return x_BTD.gather(1, turn_BT1.expand_as(x_BTD))


def _fused(
    cell: CellKind, inputs: int, width: int, *, layers: int, dropout: float, activation: str
) -> nn.Module:
    """Return torch's layers of one direction."""
    more: dict[str, Any] = {"nonlinearity": activation} if cell == "rnn" else {}
    kinds: dict[str, Callable[..., nn.Module]] = {"rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}
    return kinds[cell](inputs, width, layers, batch_first=True,
                dropout=dropout if layers > 1 else 0.0, **more)  # fmt: skip


@torch.no_grad()
def initialise_cell(
    layer: nn.RNNBase | NormedCell, cell: CellKind, *, generator: Generator
) -> None:
    """Fill the weights of recurrent layers: orthogonal within time, Xavier for the inputs.

    Gate by gate, since each is a layer of its own: the fans of the stacked matrix would make every
    weight too small. An LSTM's forget gates get the bias 1 (once: torch has two biases, and adds
    them).
    """
    gates = {"rnn": 1, "lstm": 4, "gru": 3}[cell]
    for name, parameter in layer.named_parameters():
        if name.startswith(("weight_ih", "weight_hh")):
            fill = INITS.get("orthogonal" if name.startswith("weight_hh") else "xavier").build
            for gate in parameter.detach().chunk(gates):
                fill(gate, generator, 1.0)
        elif name.startswith("bias"):
            parameter.zero_()
            if cell == "lstm" and name.startswith("bias_ih"):
                parameter[layer.hidden_size : 2 * layer.hidden_size] = 1.0
