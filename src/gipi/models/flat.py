"""The one layer of `linear` and `perceptron`: a score of each output from all inputs of a row."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from gipi.core.errors import ModelError
from gipi.nn import OneHotLinear, zero_linear

if TYPE_CHECKING:
    from torch import Tensor, nn

    from gipi.core.schema import Signature


def flat_layer(signature: Signature) -> tuple[nn.Linear, OneHotLinear | None]:
    """Return W, b for the numbers or the flattened image, and V for the categories; all zero.

    Raises `ModelError` where there is no input at all.
    """
    width = math.prod(signature.image) if signature.image else signature.numbers
    if width + len(signature.cardinalities) == 0:
        raise ModelError("no input column", "at least one number, category or image",
                         "check the roles of the columns")  # fmt: skip
    codes = (
        OneHotLinear(signature.cardinalities, signature.outputs)
        if signature.cardinalities else None
    )  # fmt: skip
    return zero_linear(width, signature.outputs), codes


def flat_scores(
    layer: nn.Linear, codes: OneHotLinear | None, x: Tensor, categories: Tensor | None
) -> Tensor:
    """Return W x + b + Σₖ Vₖ[codeₖ], (B, outputs); an image (B, C, H, W) is flattened."""
    z: Tensor = layer(x.flatten(1) if x.ndim > 2 else x)
    return z if codes is None else z + codes(categories)
