"""The linear model: softmax regression for classes, linear regression for numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import nn

from gipi.models.flat import flat_layer, flat_scores

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from gipi.core.schema import Signature


@dataclass(frozen=True)
class LinearConfig:
    """The linear model has no options."""


class Linear(nn.Module):
    """z = W x + b + Σₖ Vₖ[codeₖ].

    With cross-entropy this is softmax (for one output logistic) regression, Cox 1958; with the
    squared error it is linear regression, Legendre 1805. All weights start at zero: the loss is
    convex, so the start does not decide the end.

    image (B, C, H, W), flattened, or numbers (B, F) and categories (B, K) -> (B, outputs)
    """

    def __init__(self, config: LinearConfig, signature: Signature) -> None:
        super().__init__()
        self.config = config
        self.head, self.codes = flat_layer(signature)
        self.choices = (
            f"linear, {sum(p.numel() for p in self.parameters())} weights",
            "all weights start at zero: the loss is convex, so the start does not decide the end",
        )

    def forward(self, x: Tensor, categories: Tensor | None = None) -> Tensor:
        """Return (B, outputs)."""
        return flat_scores(self.head, self.codes, x, categories)


def linear(config: LinearConfig, signature: Signature, generator: Generator) -> Linear:  # noqa: ARG001
    """Return the linear model for data of this signature."""
    return Linear(config, signature)
