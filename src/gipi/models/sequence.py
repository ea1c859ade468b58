"""What the nets for sequences share: their options, and how tokens or a series enter.

Shapes: B rows, T steps, F values of a step, E width of a token's vector.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import torch
from pydantic import Field
from torch import nn

from gipi.core.errors import ConfigError, ModelError
from gipi.nn import Recurrent, Situation, advise, resolve, row_lengths

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from gipi.core.schema import Signature
    from gipi.nn import CellKind

    StateT = TypeVar("StateT", bound=tuple[Tensor, ...])

Topology = Literal[
    "sequence-to-vector", "sequence-to-sequence", "vector-to-sequence", "encoder-decoder",
    "language-model",
]  # fmt: skip
SPREAD = 0.1
"""Of the entries of a token's vector at the start: small beside what is learned, also by rare ones.
"""


@dataclass(frozen=True)
class RNNConfig:
    """A recurrent net for sequences.

    cell           rnn, lstm or gru; auto: the one that the model is named after
    topology       sequence-to-vector reads a row and answers once; sequence-to-sequence answers at
                   every step; vector-to-sequence writes a row from one vector; encoder-decoder
                   reads one row and writes another; language-model guesses every next token
    width          units of a layer, in each direction
    layers         recurrent layers, one on the other
    embedding      width of a token's vector
    bidirectional  read in both directions, or auto: where the row is text and known as a whole
    dropout        share of values left out in training: behind the embedding, between the layers
                   and before the head, never within time
    norm           layer: layer norm inside the cell, slower; none: torch's fused layers
    pool           what becomes of the states in sequence-to-vector: the last one, their mean, their
                   maximum, a mean weighted by attention, or auto: max for text, last for a series
    attention      of encoder-decoder: additive (Bahdanau 2015), dot (Luong 2015, faster), or none
    tied           the head of what writes tokens is its embedding, transposed
    activation     of the simple cell: tanh or relu; the gated cells have functions of their own
    """

    cell: Literal["auto", "rnn", "lstm", "gru"] = "auto"
    topology: Topology = "sequence-to-vector"
    width: Annotated[int, Field(gt=0)] = 128
    layers: Annotated[int, Field(gt=0)] = 1
    embedding: Annotated[int, Field(gt=0)] = 128
    bidirectional: bool | Literal["auto"] = "auto"
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    norm: Literal["none", "layer"] = "none"
    pool: Literal["auto", "last", "mean", "max", "attention"] = "auto"
    attention: Literal["additive", "dot", "none"] = "additive"
    tied: bool = False
    activation: Literal["tanh", "relu"] = "tanh"

    @property
    def kind(self) -> CellKind:
        """The cell, once it is settled."""
        assert self.cell != "auto"
        return self.cell


ACTS_IN: dict[str, tuple[str, ...]] = {
    "pool": ("sequence-to-vector",),
    "attention": ("encoder-decoder",),
    "tied": ("vector-to-sequence", "encoder-decoder", "language-model"),
}
"""Options that only some topologies have; elsewhere a value of one's own is an error."""


def settled(config: RNNConfig, name: CellKind, *, signature: Signature) -> RNNConfig:
    """Return the config of the model called `name` with every "auto" resolved.

    Raises `ConfigError` for an option that would have no effect or contradicts the name, and
    `ModelError` where the data has neither tokens nor numbers.
    """
    if not signature.vocab and not signature.numbers:
        raise ModelError(f"neither tokens nor numbers for '{name}'",
                         "a text column, or a series of numbers",
                         "check the roles of the columns, or choose 'mlp'")  # fmt: skip
    if name != "rnn" and config.cell not in {"auto", name}:
        raise ConfigError(f"model.cell={config.cell} for the model '{name}'", "one cell",
                          f"leave model.cell out, or choose the model '{config.cell}'")  # fmt: skip
    config = replace(config, cell=name if config.cell == "auto" else config.cell)
    if config.activation != "tanh" and config.cell != "rnn":
        raise ConfigError(f"model.activation={config.activation} for the cell {config.cell}",
                          "the cell rnn: the gated cells have functions of their own",
                          "leave model.activation out")  # fmt: skip
    defaults = {f.name: f.default for f in fields(RNNConfig)}
    for option, where in ACTS_IN.items():
        if getattr(config, option) != defaults[option] and config.topology not in where:
            raise ConfigError(
                f"model.{option}={getattr(config, option)} in the topology {config.topology}",
                f"the topology {' or '.join(where)}",
                f"leave model.{option} out, or set model.topology",
            )
    writes = config.topology in {"vector-to-sequence", "language-model"}
    if config.bidirectional is True and writes:
        raise ConfigError(f"model.bidirectional=true in the topology {config.topology}",
                          "one direction: what comes next is not known",
                          "leave model.bidirectional out")  # fmt: skip
    if config.bidirectional == "auto":
        config = replace(config, bidirectional=not writes and signature.vocab > 0)
    if config.pool == "auto" and config.topology == "sequence-to-vector":
        config = replace(config, pool="max" if signature.vocab else "last")
    return config


def token_vectors(vocab: int, width: int, *, pad: int, generator: Generator) -> nn.Embedding:
    """Return the table of token vectors, N(0, 0.1²); that of the padding is zero and stays zero.

    Raises `ModelError` where the padding is no id of the vocabulary.
    """
    if not 0 <= pad < vocab:
        raise ModelError(f"the padding id {pad} in a vocabulary of {vocab} tokens",
                         f"an id from 0 to {vocab - 1}",
                         "give source and target one padding id that both have")  # fmt: skip
    table = nn.Embedding(vocab, width, padding_idx=pad)
    with torch.no_grad():
        table.weight.normal_(0.0, SPREAD, generator=generator)
        table.weight[pad].zero_()
    return table


class Entrance(nn.Module):
    """Tokens (B, T) as vectors (B, T, E) with the length of each row; a series (B, T, F) as it is.

    All rows of a series have the same length.
    """

    def __init__(self, signature: Signature, width: int, *, generator: Generator) -> None:
        super().__init__()
        self.pad, self.width = signature.pad, width if signature.vocab else signature.numbers
        self.table: nn.Embedding | None = None
        if signature.vocab:
            self.table = token_vectors(signature.vocab, width, pad=self.pad, generator=generator)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return (B, T, E) and the lengths (B,), or None where all rows are full."""
        if self.table is None:
            return x, None
        return self.table(x), row_lengths(x, self.pad)


def recurrent_layers(
    config: RNNConfig, inputs: int, *, generator: Generator, bidirectional: bool = False
) -> Recurrent:
    """Return the layers of a settled config."""
    return Recurrent(
        inputs, config.width, generator=generator, cell=config.kind, layers=config.layers,
        bidirectional=bidirectional, dropout=config.dropout, norm=config.norm,
        activation=config.activation,
    )  # fmt: skip


def reordered(state: StateT, index_K: Tensor) -> StateT:
    """Return the state of the rows `index_K`, in that order; a row may come several times.

    >>> from gipi.nn import Carried
    >>> state = Carried(torch.tensor([[[1.0]], [[2.0]]]), torch.zeros(2, 1, 0))
    >>> reordered(state, torch.tensor([1, 1])).h.flatten()
    tensor([2., 2.])
    """
    make: Any = type(state)
    moved: StateT = make(*(t.index_select(0, index_K) for t in state))
    return moved


def describe(config: RNNConfig, signature: Signature) -> tuple[str, ...]:
    """Return the sentences about a net that people read."""
    both = "in both directions" if config.bidirectional else "in one direction"
    norm = ", layer norm inside the cell" if config.norm == "layer" else ""
    entering = (
        f"{signature.vocab} tokens enter as vectors of width {config.embedding}"
        if signature.vocab
        else f"steps of {signature.numbers} numbers enter as they are"
    )
    pool = f", pool {config.pool}" if config.topology == "sequence-to-vector" else ""
    layers = f"{config.layers} x {config.cell} of {config.width} units {both}"
    return (
        f"{config.topology}: {layers}{norm}{pool}",
        entering,
        "recurrent weights start orthogonal, input weights by xavier"
        + (", forget gates with bias 1" if config.cell == "lstm" else ""),
        *_advised(config),
    )


def _advised(config: RNNConfig) -> tuple[str, ...]:
    """Return what the rules say of the activation of a simple cell and of the norm, and why."""
    situation = Situation("recurrent", depth=config.layers)
    said: tuple[str, ...] = ()
    if config.cell == "rnn":
        said = resolve({"activation": config.activation}, situation).sentences
    if config.norm != "none":
        return (*said, *resolve({"norm": config.norm}, situation).sentences)
    rule = advise("norm", situation)
    assert rule is not None
    plain = (
        f"norm none, so that torch's fused layers do the work (the rule {rule.name} would be "
        f"{rule.facts['advice']}: {rule.facts['reason']})"
    )
    return (*said, plain)
