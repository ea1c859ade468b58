"""The recurrent language model: after every token, a guess of the next.

Shapes: B rows, T tokens, V vocabulary, H units, K rows that are chosen.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import nn

from gipi.core.errors import ModelError
from gipi.models.sequence import (
    RNNConfig,
    describe,
    recurrent_layers,
    reordered,
    token_vectors,
)
from gipi.nn import Carried, Memory, initialise, row_lengths

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from gipi.core.schema import Signature


class RecurrentLM(nn.Module):
    """A recurrent net that reads tokens and scores every next one.

        h_t = cell(E[w_t], h_{t-1}),   P(w_{t+1} | w_1..w_t) = softmax(W h_t + b)

    tokens (B, T) int64 -> (B, T, V). Nothing reaches an earlier step, so padding on the right needs
    no mask. `advance` goes on from the state of the piece before, for texts longer than a step
    should be: with `gipi.nn.detached` between the pieces that is truncated back-propagation. Where
    the `memory` holds places, `forward` does so by itself: with `place` (B,) int64 and `fresh` (B,)
    bool a row goes on from what the place remembers, or begins anew.

    With tied=true W is E (Press and Wolf 2017, arXiv:1608.05859; Inan, Khosravi and Socher 2017);
    where the widths differ, h_t goes through a linear layer first.

    Mikolov et al. 2010, "Recurrent neural network based language model"; dropout as in Zaremba,
    Sutskever and Vinyals 2014, arXiv:1409.2329.
    """

    def __init__(self, config: RNNConfig, signature: Signature, generator: Generator) -> None:
        super().__init__()
        self.config = config
        if signature.vocab == 0:
            raise ModelError("a language model for a series of numbers", "tokens",
                             "use the topology sequence-to-sequence")  # fmt: skip
        if config.tied and signature.outputs != signature.vocab:
            raise ModelError(
                f"{signature.outputs} outputs tied to a vocabulary of {signature.vocab}",
                "one output for each token", "set model.tied=false",
            )  # fmt: skip
        self.pad = signature.pad
        self.table = token_vectors(
            signature.vocab, config.embedding, pad=self.pad, generator=generator
        )
        self.recurrent = recurrent_layers(config, config.embedding, generator=generator)
        self.memory = Memory(self.recurrent)
        self.dropout = nn.Dropout(config.dropout)
        narrow = config.tied and config.width != config.embedding
        self.project = (
            nn.Linear(config.width, config.embedding, bias=False) if narrow else nn.Identity()
        )
        self.head = nn.Linear(config.embedding if config.tied else config.width, signature.outputs)
        initialise(self.project, generator)
        initialise(self.head, generator)
        if config.tied:
            self.head.weight = self.table.weight
        self.choices = describe(config, signature)

    def forward(
        self, tokens_BT: Tensor, place_B: Tensor | None = None, fresh_B: Tensor | None = None
    ) -> Tensor:
        """Return the scores of every next token, (B, T, V)."""
        if place_B is not None and fresh_B is not None and self.memory.places:
            scores, state = self.advance(tokens_BT, self.memory.read(place_B, fresh_B))
            self.memory.write(place_B, state)
            return scores
        return self._scores(self.recurrent(self.dropout(self.table(tokens_BT))))

    def advance(self, tokens_BT: Tensor, state: Carried) -> tuple[Tensor, Carried]:
        """Return (B, T, V) and the new state, for tokens that follow those behind `state`."""
        out_BTH, state = self.recurrent.carry(self.dropout(self.table(tokens_BT)), state)
        return self._scores(out_BTH), state

    # -------------------------------------------------------------------- token by token

    def begin(self, rows: int) -> Carried:
        """Return the state before the first token."""
        return self.recurrent.start(rows, like=self.table.weight)

    def start(self, prompt_BS: Tensor) -> Carried:
        """Return the state behind each row's last token of (B, S), which may be right-padded."""
        lengths_B = row_lengths(prompt_BS, self.pad)
        start = self.begin(len(prompt_BS))
        return self.recurrent.carry(self.table(prompt_BS), start, lengths_B=lengths_B)[1]

    def step(self, tokens_B: Tensor, state: Carried) -> tuple[Tensor, Carried]:
        """Return the scores of what follows `tokens_B`, (B, V), and the new state."""
        scores, state = self.advance(tokens_B[:, None], state)
        return scores[:, 0], state

    def reorder(self, state: Carried, index_K: Tensor) -> Carried:
        """Return the state of the rows `index_K`, as a search that drops rows needs it."""
        return reordered(state, index_K)

    def _scores(self, out_BTH: Tensor) -> Tensor:
        scores: Tensor = self.head(self.project(self.dropout(out_BTH)))
        return scores
