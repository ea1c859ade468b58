"""The multi-layer perceptron, for tables and for flattened images."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Literal, cast

import torch
from pydantic import Field
from torch import nn

from gipi.core.errors import ModelError
from gipi.nn import (
    CategoryEmbeddings,
    Order,
    PeriodicNumbers,
    Situation,
    dense_block,
    initialise,
    resolve,
)

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from gipi.core.schema import Signature

TABLE_WIDTHS = (256, 256)
IMAGE_WIDTHS = (512, 256)
MOST_PERIODIC = 64  # number columns up to which "auto" embeds them


@dataclass(frozen=True)
class MLPConfig:
    """Shape of an MLP.

    widths      units of the hidden layers; None: 256-256 for tables, 512-256 for images; () is
                a linear model
    activation  a name of `gipi list activations`, or auto: by the rules of `gipi list advice`
    norm        a name of `gipi list norms`, or auto
    order       where the norm stands, "conv" being the dense layer, or auto
    dropout     share of hidden units dropped in training
    residual    add a layer's input to its output where the widths are equal
    init        a name of `gipi list inits`, or auto: by the activation
    numbers     how number columns enter: plain, periodic, or auto (periodic for tables of up to 64
                number columns)
    """

    widths: tuple[Annotated[int, Field(gt=0)], ...] | None = None
    activation: str = "auto"
    norm: str = "auto"
    order: Literal["auto"] | Order = "auto"
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    residual: bool = False
    init: str = "auto"
    numbers: Literal["auto", "plain", "periodic"] = "auto"


class MLP(nn.Module):
    """h₀ = x,  hᵢ = dropout(f(norm(Wᵢ hᵢ₋₁ + bᵢ))),  output = W h + b.

    image (B, C, H, W), flattened -> (B, outputs)
    numbers (B, F) and categories (B, K) int64, each category embedded -> (B, outputs)

    Rumelhart, Hinton and Williams 1986, "Learning representations by back-propagating errors".
    """

    def __init__(self, config: MLPConfig, signature: Signature, generator: Generator) -> None:
        super().__init__()
        image, cards = signature.image, signature.cardinalities
        inputs = math.prod(image) if image else signature.numbers
        if inputs + len(cards) == 0:
            raise ModelError("no input column", "at least one number, category or image",
                             "check the roles of the columns")  # fmt: skip
        widths = config.widths
        if widths is None:
            widths = IMAGE_WIDTHS if image else TABLE_WIDTHS
        settled = resolve(
            {k: getattr(config, k) for k in ("activation", "init", "norm", "order")},
            Situation("dense", depth=len(widths), residual=config.residual),
        )
        numbers: Literal["auto", "plain", "periodic"] = config.numbers
        if numbers == "auto":
            small = image is None and 0 < signature.numbers <= MOST_PERIODIC
            numbers = "periodic" if small else "plain"
        config = replace(config, widths=widths, numbers=numbers, **settled.values)  # type: ignore[arg-type]
        self.config = config
        self.columns = None
        if numbers == "periodic" and image is None and signature.numbers:
            self.columns = PeriodicNumbers(signature.numbers, generator)
            inputs = self.columns.width
        self.embeddings = CategoryEmbeddings(cards, generator) if cards else None
        if self.embeddings is not None:
            inputs += self.embeddings.width
        self.layers = nn.Sequential()
        shape = "-".join(str(w) for w in (inputs, *widths, signature.outputs))
        for i, width in enumerate(widths):
            block = dense_block(
                inputs, width, activation=config.activation, norm=config.norm,
                dropout=config.dropout, residual=config.residual,
                order=cast("Order", config.order),
            )  # fmt: skip
            self.layers.add_module(str(i), block)
            inputs = width
        self.head = nn.Linear(inputs, signature.outputs)
        initialise(self.layers, generator, activation=config.activation, init=config.init)
        initialise(self.head, generator)
        self.choices = (
            f"layers {shape}", *(settled.sentences if widths else ()), *self._choices()
        )  # fmt: skip

    def _choices(self) -> list[str]:
        said = []
        if self.columns is not None:
            said.append("numbers enter with sines and cosines of learned frequencies, so that "
                        "steps along a column can be learned")  # fmt: skip
        if self.embeddings is not None:
            sizes = ", ".join(str(t.embedding_dim) for t in self.embeddings.tables)
            said.append(f"categories enter as vectors of widths {sizes}")
        return said

    def forward(self, x: Tensor, categories: Tensor | None = None) -> Tensor:
        """Return (B, outputs) from an image batch, or from numbers and category codes."""
        if x.ndim > 2:
            x = x.flatten(1)
        if self.columns is not None:
            x = self.columns(x)
        if self.embeddings is not None:
            assert categories is not None
            x = torch.cat([x, self.embeddings(categories)], 1)
        out: Tensor = self.head(self.layers(x))
        return out


def mlp(config: MLPConfig, signature: Signature, generator: Generator) -> MLP:
    """Return the MLP of a config for data of this signature."""
    return MLP(config, signature, generator)
