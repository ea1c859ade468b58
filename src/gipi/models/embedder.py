"""One vector for each text, so that texts of like meaning lie in like directions.

A pair of texts comes as one row of tokens with segments 0 and 1; the encoder sees each alone.

Shapes: B rows, T tokens of a row, S tokens of the longer text, D width.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn import functional as F

from gipi.models.from_tokens import (
    BertOptions,
    encoder_body,
    shape_in_words,
    text_in_words,
)

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from gipi.core.schema import Signature
    from gipi.models.encoder import EncoderModel


class TextEmbedder(nn.Module):
    """An encoder whose pooled tokens, of length 1, are the vector of a text.

        e = h / ‖h‖,   h the mean of the hidden vectors of real tokens, or that of the first

    tokens (B, T) int64 -> (B, D); with segments (B, T), 0 for the first text and 1 for the second,
    -> (B, 2, D)

    Reimers and Gurevych 2019, "Sentence-BERT", arXiv:1908.10084.
    """

    def __init__(self, body: EncoderModel, config: Any = None, *, pad: int = 0) -> None:
        super().__init__()
        self.body, self.pad, self.config = body, pad, config
        self.choices = (
            *shape_in_words(body.config.stack, body.config.embed),
            f"{text_in_words(body.config.pooling)}, of length 1",
        )

    def forward(self, tokens_BT: Tensor, segments_BT: Tensor | None = None) -> Tensor:
        """Return the vectors of texts, or of both texts of each pair."""
        if segments_BT is None:
            return self.embed(tokens_BT)
        one, two = parted(tokens_BT, segments_BT, pad=self.pad)
        both = self.embed(torch.cat([one, two]))
        return torch.stack(both.chunk(2), 1)

    def embed(self, tokens_BT: Tensor) -> Tensor:
        """Return vectors (B, D) of length 1."""
        real = tokens_BT.ne(self.pad)
        hidden: Tensor | None = self.body(tokens_BT, real).hidden
        assert hidden is not None
        return F.normalize(self.body.text(hidden, real), dim=1)


def parted(tokens_BT: Tensor, segments_BT: Tensor, *, pad: int) -> tuple[Tensor, Tensor]:
    """Return both texts of each row by themselves, (B, S) each, right-padded with `pad`.

    >>> parted(torch.tensor([[1, 2, 3, 4, 0]]), torch.tensor([[0, 0, 0, 1, 0]]), pad=0)
    (tensor([[1, 2, 3]]), tensor([[4, 0, 0]]))
    """
    real = tokens_BT.ne(pad)
    second = real & segments_BT.eq(1)
    first = real & ~second
    a, b = first.sum(1), second.sum(1)
    width = max(1, int(torch.stack([a, b]).max()))  # sync
    at = torch.arange(width, device=tokens_BT.device).expand(len(tokens_BT), width)
    last = tokens_BT.shape[1] - 1
    one = tokens_BT.gather(1, at.clamp_max(last)).masked_fill(at >= a[:, None], pad)
    two = tokens_BT.gather(1, (at + a[:, None]).clamp_max(last)).masked_fill(at >= b[:, None], pad)
    return one, two


def text_embedder(options: BertOptions, signature: Signature, generator: Generator) -> TextEmbedder:
    """Return an encoder of texts of this signature, its weights drawn from `generator`.

    Raises `ModelError` for data that is not text.
    """
    body, settled = encoder_body(options, signature, generator, name="embedder", head="none",
                                 pooling=options.pooling)  # fmt: skip
    return TextEmbedder(body, settled, pad=signature.pad)
