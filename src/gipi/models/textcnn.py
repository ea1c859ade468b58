"""The convolutional net for sentences: a few words at a time, the best match of each filter.

Shapes: B rows, T tokens, E width of a token's vector, M maps of one width of filter.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import torch
from pydantic import Field
from torch import nn
from torch.nn import functional as F

from gipi.core.errors import ModelError
from gipi.models.sequence import Entrance
from gipi.nn import initialise, within

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from gipi.core.schema import Signature


@dataclass(frozen=True)
class TextCNNConfig:
    """A convolutional net for sentences.

    embedding  width of a token's vector
    widths     tokens that a filter sees at once, one group of filters for each
    maps       filters of each width
    dropout    share of the maxima left out in training
    """

    embedding: Annotated[int, Field(gt=0)] = 128
    widths: tuple[Annotated[int, Field(gt=0)], ...] = (3, 4, 5)
    maps: Annotated[int, Field(gt=0)] = 100
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.5


class TextCNN(nn.Module):
    """Filters over neighbouring tokens, and the maximum of each over the sentence.

        m_jw = max_t relu(Σ_u F_jw[u] E[x_{t+u}] + b_jw),   y = W dropout(m) + b

    tokens (B, T) int64, right-padded, or a series (B, T, F) -> (B, outputs). A filter of width w
    also stands over the w - 1 places beside a sentence, so that the shortest sentence has a match;
    only places that touch one of its tokens count, and padding changes nothing. Of a pair of texts
    the segments are not used.

    Kim 2014, "Convolutional neural networks for sentence classification", arXiv:1408.5882; the
    variant with trained vectors from a random start, without the bound on the norm of W.
    """

    def __init__(self, config: TextCNNConfig, signature: Signature, generator: Generator) -> None:
        super().__init__()
        if not signature.vocab and not signature.numbers:
            raise ModelError("neither tokens nor numbers for 'textcnn'",
                             "a text column, or a series of numbers",
                             "check the roles of the columns")  # fmt: skip
        if not config.widths:
            raise ModelError("a textcnn without filters", "at least one width of filter",
                             "set model.widths='[3, 4, 5]'")  # fmt: skip
        self.config = config
        self.enter = Entrance(signature, config.embedding, generator=generator)
        self.filters = nn.ModuleList(
            nn.Conv1d(self.enter.width, config.maps, width, padding=width - 1)
            for width in config.widths
        )
        self.dropout = nn.Dropout(config.dropout)
        self.head = nn.Linear(len(config.widths) * config.maps, signature.outputs)
        initialise(self.filters, generator, activation="relu")
        initialise(self.head, generator)
        seen = ", ".join(map(str, config.widths))
        self.choices = (f"{config.maps} filters over each of {seen} tokens, their maxima",)

    def forward(self, x: Tensor, segments: Tensor | None = None) -> Tensor:  # noqa: ARG002
        """Return (B, outputs)."""
        x_BTE, lengths_B = self.enter(x)
        longest = max(self.config.widths)
        if x_BTE.shape[1] < longest:  # torch has no convolution of nothing
            x_BTE = F.pad(x_BTE, (0, 0, 0, longest - x_BTE.shape[1]))
        x_BET = x_BTE.transpose(1, 2)
        if lengths_B is None:
            lengths_B = torch.full((len(x),), x.shape[1], device=x.device)
        best = []
        for width, layer in zip(self.config.widths, self.filters, strict=True):
            maps_BMT = layer(x_BET).relu()
            # Place t covers tokens t - width + 1 .. t: beyond length + width - 1 only padding.
            places = (lengths_B + width - 1) * (lengths_B > 0)
            mask_BT = within(places, maps_BMT.shape[2])
            # After the relu nothing is below 0, so 0 is what no maximum is changed by.
            best.append(maps_BMT.masked_fill(~mask_BT[:, None], 0.0).amax(2))
        out: Tensor = self.head(self.dropout(torch.cat(best, 1)))
        return out


def textcnn(config: TextCNNConfig, signature: Signature, generator: Generator) -> TextCNN:
    """Return the convolutional net of a config for data of this signature."""
    return TextCNN(config, signature, generator)
