"""The linear model: softmax regression for classes, linear regression for numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import nn

from gipi.core.errors import ModelError
from gipi.nn import OneHotLinear, zero_linear

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
        width = math.prod(signature.image) if signature.image else signature.numbers
        if width + len(signature.cardinalities) == 0:
            raise ModelError("no input column", "at least one number, category or image",
                             "check the roles of the columns")  # fmt: skip
        self.head = zero_linear(width, signature.outputs)
        self.codes = (
            OneHotLinear(signature.cardinalities, signature.outputs)
            if signature.cardinalities else None
        )  # fmt: skip
        self.choices = (
            f"linear, {sum(p.numel() for p in self.parameters())} weights",
            "all weights start at zero: the loss is convex, so the start does not decide the end",
        )

    def forward(self, x: Tensor, categories: Tensor | None = None) -> Tensor:
        """Return (B, outputs)."""
        z: Tensor = self.head(x.flatten(1) if x.ndim > 2 else x)
        if self.codes is not None:
            z = z + self.codes(categories)
        return z


def linear(config: LinearConfig, signature: Signature, generator: Generator) -> Linear:  # noqa: ARG001
    """Return the linear model for data of this signature."""
    return Linear(config, signature)
