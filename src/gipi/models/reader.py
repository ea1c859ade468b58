"""The recurrent reader: where in a context the answer to a question begins and ends.

Shapes: B rows, T tokens, E entries of a token's vector, K units of both directions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

import torch
from pydantic import Field
from torch import nn

from gipi.core.errors import ModelError
from gipi.models.sequence import token_vectors
from gipi.models.token_heads import within_context
from gipi.nn import AttentionPool, Recurrent, initialise, row_lengths

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from gipi.core.schema import Signature

Count = Annotated[int, Field(gt=0)]
Share = Annotated[float, Field(ge=0, lt=1)]
SIDES = 3
"""Places of a row: of the question, of the context, in the context and in the question too."""


@dataclass(frozen=True)
class ReaderConfig:
    """A recurrent reader.

    embedding  width of a token's vector
    side       width of the vector that says whose token it is, and whether the question has it too
    width      units of a recurrent layer in each direction
    layers     recurrent layers
    cell       lstm or gru
    dropout    of what enters and leaves the recurrent layers
    """

    embedding: Count = 128
    side: Count = 16
    width: Count = 128
    layers: Count = 1
    cell: Literal["lstm", "gru"] = "lstm"
    dropout: Share = 0.3


class Reader(nn.Module):
    """A recurrent net over question and context, and a bilinear score of each end.

        h = BiLSTM([E[w_t]; S[side_t]]),  q = Σ a_j h_j over the question, a by attention
        z[t, 0] = h_t · W q,  z[t, 1] = h_t · V q

    tokens, segments, context (B, T) int64 -> (B, T, 2): the logits of a first and of a last token,
    -inf outside of the context but for place 0, "no answer here". Padding changes nothing.

    Chen, Fisch, Weston and Bordes 2017, arXiv:1704.00051 (the reader of DrQA), has the exact match
    of a word and the bilinear ends. Differs in that one net reads both texts as one row, and in
    random vectors without parts of speech or frequencies. A floor for nets that look from each
    token of the context at each of the question.
    """

    def __init__(self, config: ReaderConfig, signature: Signature, generator: Generator) -> None:
        super().__init__()
        if signature.per != "span" or not signature.vocab:
            raise ModelError("data that is not questions with contexts, for 'bilstm-reader'",
                             "questions, the texts that answer them, and where the answers stand",
                             "choose another model, or give a file as SQuAD's")  # fmt: skip
        self.config, self.pad = config, signature.pad
        self.table = token_vectors(signature.vocab, config.embedding, pad=self.pad,
                                   generator=generator)  # fmt: skip
        self.side = nn.Embedding(SIDES, config.side)
        with torch.no_grad():
            self.side.weight.normal_(0.0, 1.0, generator=generator)
        self.dropout = nn.Dropout(config.dropout)
        self.recurrent = Recurrent(
            config.embedding + config.side, config.width, generator=generator, cell=config.cell,
            layers=config.layers, bidirectional=True, dropout=config.dropout,
        )  # fmt: skip
        K = self.recurrent.width
        self.question = AttentionPool(K, generator)
        self.ends = nn.Linear(K, 2 * K, bias=False)
        initialise(self.ends, generator)
        entering = (
            f"{signature.vocab} tokens enter as vectors of {config.embedding}, with {config.side} "
            "that say whose they are and whether the question has them too"
        )
        layers = f"{config.layers} x {config.cell} of {config.width} units in both directions"
        self.choices = (entering, f"{layers}; each end is scored by its likeness to the question")

    def forward(self, tokens_BT: Tensor, segments_BT: Tensor, context_BT: Tensor) -> Tensor:
        """Return the logits of both ends, (B, T, 2)."""
        real_BT = tokens_BT != self.pad
        asked_BT = (segments_BT == 0) & real_BT
        x_BTE = torch.cat([self.table(tokens_BT),
                           self.side(self._sides(tokens_BT, asked_BT, context_BT))], 2)  # fmt: skip
        h_BTK = self.dropout(self.recurrent(self.dropout(x_BTE), row_lengths(tokens_BT, self.pad)))
        wanted_BK2 = self.ends(self.question(h_BTK, asked_BT)).view(len(h_BTK), 2, -1).mT
        return within_context(h_BTK @ wanted_BK2, context_BT)

    def _sides(self, tokens_BT: Tensor, asked_BT: Tensor, context_BT: Tensor) -> Tensor:
        """Return 0 for the question and marks, 1 for the context, 2 for what both have."""
        asked_BT = tokens_BT.masked_fill(~asked_BT, -1)  # what is not asked matches nothing
        both_BT = (tokens_BT[:, :, None] == asked_BT[:, None, :]).any(2)
        inside_BT = (context_BT != 0).long()
        return inside_BT + inside_BT * both_BT


def reader(config: ReaderConfig, signature: Signature, generator: Generator) -> Reader:
    """Return the recurrent reader of a config for data of this signature."""
    return Reader(config, signature, generator)
