"""The bag of embeddings: the mean of the tokens' vectors, and one linear layer. A floor for others.

Shapes: B rows, T tokens, E width of a token's vector.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import torch
from pydantic import Field
from torch import nn

from gipi.core.errors import ModelError
from gipi.models.sequence import SPREAD
from gipi.nn import zero_linear

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from gipi.core.schema import Signature

PRIME = 1_000_003  # spreads neighbouring ids over the buckets


@dataclass(frozen=True)
class FastTextConfig:
    """A bag of embeddings.

    embedding  width of a vector
    ngrams     longest run of tokens that has a vector of its own; 1: single tokens
    buckets    vectors that the runs of two and more share by a hash
    """

    embedding: Annotated[int, Field(gt=0)] = 64
    ngrams: Annotated[int, Field(ge=1, le=5)] = 1
    buckets: Annotated[int, Field(gt=0)] = 65536


class FastText(nn.Module):
    """The mean of the vectors of all tokens, and of all short runs of them.

        y = W · mean over n-grams g of E[g] + b

    tokens (B, T) int64, right-padded -> (B, outputs). Without runs the order of the tokens does not
    count. Padding, and every run that would reach into it, is left out of the mean; an empty row
    gives b. Of a pair of texts the segments are not used.

    Joulin, Grave, Bojanowski and Mikolov 2016, "Bag of tricks for efficient text classification",
    arXiv:1607.01759. Differs: the softmax is over all classes at once, and the hash is another.
    """

    def __init__(self, config: FastTextConfig, signature: Signature, generator: Generator) -> None:
        super().__init__()
        if not signature.vocab:
            raise ModelError("no tokens for 'fasttext'", "a text column",
                             "check the roles of the columns, or choose 'mlp'")  # fmt: skip
        self.config, self.pad, self.vocab = config, signature.pad, signature.vocab
        rows = signature.vocab + (config.buckets if config.ngrams > 1 else 0)
        self.bag = nn.EmbeddingBag(rows, config.embedding, mode="mean", padding_idx=signature.pad)
        with torch.no_grad():
            self.bag.weight.normal_(0.0, SPREAD, generator=generator)
            self.bag.weight[signature.pad].zero_()
        self.head = zero_linear(config.embedding, signature.outputs)
        self.choices = (
            f"the mean of {rows} vectors of width {config.embedding}, then a linear layer",
        )

    def forward(self, tokens_BT: Tensor, segments: Tensor | None = None) -> Tensor:  # noqa: ARG002
        """Return (B, outputs)."""
        if tokens_BT.shape[1] == 0:  # torch has no bag of nothing
            tokens_BT = tokens_BT.new_full((len(tokens_BT), 1), self.pad)
        runs = [tokens_BT]
        code_BT, real_BT = tokens_BT, tokens_BT != self.pad
        for n in range(2, min(self.config.ngrams, tokens_BT.shape[1]) + 1):
            last_BT = tokens_BT[:, n - 1 :]
            code_BT = (code_BT[:, :-1] * PRIME + last_BT + 1) % self.config.buckets
            real_BT = real_BT[:, :-1] & (last_BT != self.pad)
            runs.append(torch.where(real_BT, code_BT + self.vocab, self.pad))
        out: Tensor = self.head(self.bag(torch.cat(runs, 1)))
        return out


def fasttext(config: FastTextConfig, signature: Signature, generator: Generator) -> FastText:
    """Return the bag of embeddings of a config for data of this signature."""
    return FastText(config, signature, generator)
