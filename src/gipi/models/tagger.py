"""The recurrent tagger: words and their letters, a net that reads both ways, tags in a chain.

Shapes: B rows, T words, C letters of a word, E entries of a word's vector, K tags.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

import torch
from pydantic import Field
from torch import nn

from gipi.core.errors import ModelError
from gipi.models.sequence import token_vectors
from gipi.nn import LinearChain, Recurrent, initialise, row_lengths

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from gipi.core.schema import Signature
    from gipi.nn import Chain

Count = Annotated[int, Field(gt=0)]
Share = Annotated[float, Field(ge=0, lt=1)]
UNKNOWN = 1
"""The id of a word that the training rows have too rarely."""


@dataclass(frozen=True)
class TaggerConfig:
    """A recurrent tagger.

    embedding     width of a word's vector
    letter        width of a letter's vector
    filters       filters over the letters of a word
    window        letters that a filter sees at once
    shape         width of the vectors of a word's casing and of its last letters
    width         units of a recurrent layer in each direction
    layers        recurrent layers
    cell          lstm or gru
    crf           whether neighbouring tags are scored too, or each word is tagged for itself
    word_dropout  share of words that are hidden in training: their letters alone speak
    dropout       of what enters and leaves the recurrent layers
    """

    embedding: Count = 100
    letter: Count = 30
    filters: Count = 50
    window: Count = 3
    shape: Count = 15
    width: Count = 128
    layers: Count = 1
    cell: Literal["lstm", "gru"] = "lstm"
    crf: bool = True
    word_dropout: Share = 0.1
    dropout: Share = 0.5


class Letters(nn.Module):
    """Filters over the letters of each word, and the maximum of each filter.

        v_j = max_c relu(Σ_u F_j[u] L[l_{c+u}] + b_j), 0 for a word without letters

    letters (B, T, C) int64, 0 behind the end of a word -> (B, T, filters). Padding changes nothing:
    a filter stands only where its middle is on a letter, and beyond the word it sees zeros.

    Ma and Hovy 2016, arXiv:1603.01354 (there without the relu).
    """

    def __init__(
        self, letters: int, config: TaggerConfig, *, generator: Generator
    ) -> None:  # fmt: skip
        super().__init__()
        self.table = token_vectors(letters, config.letter, pad=0, generator=generator)
        self.filters = nn.Conv1d(config.letter, config.filters, config.window, padding="same")
        initialise(self.filters, generator, activation="relu")

    def forward(self, letters_BTC: Tensor) -> Tensor:
        """Return (B, T, filters)."""
        flat_NC = letters_BTC.flatten(0, 1)
        found = self.filters(self.table(flat_NC).transpose(1, 2)).relu()
        best_NM: Tensor = found.masked_fill((flat_NC == 0)[:, None], 0.0).amax(2)
        return best_NM.view(*letters_BTC.shape[:2], -1)


class Tagger(nn.Module):
    """Word vectors beside letters and shape, a recurrent net in both directions, a chain of tags.

        x_t = [E[w_t]; letters(l_t); S[casing_t]; S'[suffix_t]],  h = BiLSTM(x),  u_t = W h_t + b

    words (B, T), shapes (B, T, 2), letters (B, T, C), int64, 0 for padding -> `Chain` of (B, T, K),
    or the logits (B, T, K) without the chain. Padding changes nothing.

    Lample et al. 2016, arXiv:1603.01360; Ma and Hovy 2016, arXiv:1603.01354. Differs in that words
    are told by casing and last letters too, and in random word vectors.
    """

    def __init__(self, config: TaggerConfig, signature: Signature, generator: Generator) -> None:
        super().__init__()
        if len(signature.parts) != 3:
            raise ModelError("data that is not words with tags, for 'bilstm-tagger'",
                             "sentences, a token and its tag a line",
                             "choose another model, or give a file of tagged tokens")  # fmt: skip
        letters, casings, suffixes = signature.parts
        self.config, self.pad = config, signature.pad
        self.words = token_vectors(signature.vocab, config.embedding, pad=self.pad,
                                   generator=generator)  # fmt: skip
        self.letters = Letters(letters, config, generator=generator)
        self.casing = token_vectors(casings, config.shape, pad=0, generator=generator)
        self.suffix = token_vectors(suffixes, config.shape, pad=0, generator=generator)
        self.dropout = nn.Dropout(config.dropout)
        entering = config.embedding + config.filters + 2 * config.shape
        self.recurrent = Recurrent(
            entering, config.width, generator=generator, cell=config.cell, layers=config.layers,
            bidirectional=True, dropout=config.dropout,
        )  # fmt: skip
        self.head = nn.Linear(self.recurrent.width, signature.outputs)
        initialise(self.head, generator)
        self.chain = LinearChain(signature.outputs, generator=generator) if config.crf else None
        entering_words = (
            f"{signature.vocab} words enter as vectors of {config.embedding}, {letters} letters "
            f"through {config.filters} filters, with casing and {suffixes} last letters"
        )
        self.choices = (
            entering_words,
            f"{config.layers} x {config.cell} of {config.width} units in both directions; "
            + ("neighbouring tags are scored too" if config.crf else "each word for itself"),
        )

    def forward(self, words_BT: Tensor, shapes_BT2: Tensor, letters_BTC: Tensor) -> Chain | Tensor:
        """Return the scores of the tags."""
        lengths_B = row_lengths(words_BT, self.pad)
        seen_BT = words_BT
        if self.training and self.config.word_dropout:
            hidden = torch.rand(words_BT.shape, device=words_BT.device) < self.config.word_dropout
            seen_BT = words_BT.masked_fill(hidden & (words_BT != self.pad), UNKNOWN)
        x_BTE = torch.cat([
            self.words(seen_BT), self.letters(letters_BTC),
            self.casing(shapes_BT2[..., 0]), self.suffix(shapes_BT2[..., 1]),
        ], 2)  # fmt: skip
        out = self.recurrent(self.dropout(x_BTE), lengths_B)
        unary_BTK: Tensor = self.head(self.dropout(out))
        return unary_BTK if self.chain is None else self.chain(unary_BTK)


def tagger(config: TaggerConfig, signature: Signature, generator: Generator) -> Tagger:
    """Return the recurrent tagger of a config for data of this signature."""
    return Tagger(config, signature, generator)
