"""Encoders that answer at every token: tags, and the first and last token of an answer.

Shapes: B rows, T tokens, K tags.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from gipi.core.errors import ModelError

if TYPE_CHECKING:
    from torch import Tensor

    from gipi.models.encoder import EncoderModel


class TokenTagger(nn.Module):
    """An encoder with a linear layer on every token.

    tokens (B, T) int64, what equals `pad` being masked -> logits (B, T, K). `starts` (B, T), which
    says where words begin, is for the loss alone: later pieces of a word are tagged, not counted.

    body  an encoder with the head "tag", drawn anew or of a folder:
          `TokenTagger(models.load_folder(FOLDER, head="tag", outputs=K).model, pad=...)`

    Devlin et al. 2019, arXiv:1810.04805, section 5.3: the first piece of a word is its tag. Raises
    `ModelError` for another head.
    """

    def __init__(self, body: EncoderModel, *, pad: int = 0) -> None:
        super().__init__()
        _check_head(body, "tag")
        self.body, self.pad = body, pad
        self.config: object = body.config
        self.choices: tuple[str, ...] = ()

    def forward(self, tokens_BT: Tensor, starts_BT: Tensor | None = None) -> Tensor:  # noqa: ARG002
        """Return the logits of the tags."""
        logits: Tensor | None = self.body(tokens_BT, tokens_BT.ne(self.pad)).logits
        assert logits is not None
        return logits


class SpanReader(nn.Module):
    """An encoder that says where an answer begins and where it ends.

    tokens, segments, context (B, T) int64 -> (B, T, 2): the logits of a first and of a last token,
    -inf outside of the context. Place 0 stands for "no answer here" and is always open.

    body  an encoder with the head "answer", drawn anew or of a folder:
          `SpanReader(models.load_folder(FOLDER, head="answer").model, pad=...)`

    Devlin et al. 2019, arXiv:1810.04805, section 4.2. Differs in that what is no context is closed
    in training too. Raises `ModelError` for another head.
    """

    def __init__(self, body: EncoderModel, *, pad: int = 0) -> None:
        super().__init__()
        _check_head(body, "answer")
        self.body, self.pad = body, pad
        self.config: object = body.config
        self.choices: tuple[str, ...] = ()

    def forward(self, tokens_BT: Tensor, segments_BT: Tensor, context_BT: Tensor) -> Tensor:
        """Return the logits of both ends."""
        segments = segments_BT if self.body.config.embed.segments > 1 else None
        ends_BT2: Tensor | None = self.body(tokens_BT, tokens_BT.ne(self.pad), segments).logits
        assert ends_BT2 is not None
        return within_context(ends_BT2, context_BT)


def within_context(ends_BT2: Tensor, context_BT: Tensor) -> Tensor:
    """Return logits (B, T, 2) with -inf where `context_BT` is 0, but for place 0, "no answer"."""
    closed_BT = context_BT == 0
    first = torch.arange(closed_BT.shape[1], device=closed_BT.device) == 0
    return ends_BT2.masked_fill((closed_BT & ~first)[..., None], -torch.inf)


def _check_head(body: EncoderModel, head: str) -> None:
    if body.config.head != head:
        raise ModelError(f"an encoder with the head '{body.config.head}'", f"the head '{head}'",
                         f"load it with head={head!r}")  # fmt: skip
