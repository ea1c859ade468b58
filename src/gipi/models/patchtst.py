"""PatchTST: a Transformer encoder over patches of one series at a time.

B rows, L steps seen, H steps ahead, F series, K of them forecast, N patches of P steps every S,
D width, h heads.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

import torch
from pydantic import Field
from torch import nn
from torch.nn import functional as F

from gipi.core.errors import ConfigError
from gipi.models.dlinear import check_series
from gipi.nn import BatchNorm1d, initialise

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from gipi.core.schema import Signature

EPS = 1e-5


@dataclass(frozen=True)
class PatchTSTConfig:
    """Shape of a PatchTST; the defaults are those of the paper for small data (ETTh1).

    patch    steps of a patch
    stride   steps from one patch to the next
    width    numbers of a patch inside the encoder
    heads    of the attention
    layers   of the encoder
    hidden   units between the two dense layers of each layer
    dropout  share dropped, of the encoder and before the head
    norm     layer, or batch as in the paper (it mixes rows, so micro-batches are refused)
    revin    scale each window by its own mean and spread, and back at the end
    """

    patch: Annotated[int, Field(gt=0)] = 16
    stride: Annotated[int, Field(gt=0)] = 8
    width: Annotated[int, Field(gt=0)] = 16
    heads: Annotated[int, Field(gt=0)] = 4
    layers: Annotated[int, Field(gt=0)] = 3
    hidden: Annotated[int, Field(gt=0)] = 128
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.3
    norm: Literal["layer", "batch"] = "layer"
    revin: bool = True


class RevIN(nn.Module):
    """x' = γ (x - μ) / σ + β over the steps of each window and series; `back` undoes it.

    (B, L, K) -> (B, L, K), with σ = √(variance + ε) and γ, β of each series.

    Kim et al. 2022, "Reversible instance normalization for accurate time-series forecasting
    against distribution shift".
    """

    def __init__(self, series: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(series))
        self.shift = nn.Parameter(torch.zeros(series))

    def forward(self, x_BLK: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the scaled windows, and the mean and spread (B, 1, K) that `back` needs."""
        mean = x_BLK.mean(1, keepdim=True)
        spread = (x_BLK.var(1, keepdim=True, unbiased=False) + EPS).sqrt()
        return (x_BLK - mean) / spread * self.gain + self.shift, mean, spread

    def back(self, y_BHK: Tensor, mean: Tensor, spread: Tensor) -> Tensor:
        """Return forecasts in the units of the input."""
        plain = (y_BHK - self.shift) / (self.gain + EPS * EPS)
        return plain * spread + mean


class _Norm(nn.Module):
    """Layer norm over D, or batch norm of each of D over rows and patches, of (B, N, D)."""

    def __init__(self, width: int, kind: str) -> None:
        super().__init__()
        self.over: nn.LayerNorm | BatchNorm1d
        self.over = nn.LayerNorm(width) if kind == "layer" else BatchNorm1d(width)

    def forward(self, x_BND: Tensor) -> Tensor:
        if isinstance(self.over, nn.LayerNorm):
            return F.layer_norm(
                x_BND, list(self.over.normalized_shape), self.over.weight.to(x_BND.dtype),
                self.over.bias.to(x_BND.dtype), self.over.eps,
            )  # fmt: skip
        out: Tensor = self.over(x_BND.transpose(1, 2)).transpose(1, 2)
        return out


class EncoderLayer(nn.Module):
    """z = norm(x + attention(x)),  y = norm(z + W₂ gelu(W₁ z)): the layer of 2017, norms after.

    (B, N, D) -> (B, N, D). attention(x) = W_o · softmax(q kᵀ / √(D/h)) v, heads joined.

    Vaswani et al. 2017, arXiv:1706.03762.
    """

    def __init__(self, config: PatchTSTConfig) -> None:
        super().__init__()
        self.heads, self.dropout = config.heads, config.dropout
        width = config.width
        self.qkv = nn.Linear(width, 3 * width)
        self.join = nn.Linear(width, width)
        self.widen = nn.Linear(width, config.hidden)
        self.narrow = nn.Linear(config.hidden, width)
        self.norm1, self.norm2 = _Norm(width, config.norm), _Norm(width, config.norm)

    def forward(self, x_BND: Tensor) -> Tensor:
        """Return the patches after attention and the dense layers."""
        q, k, v = self.qkv(x_BND).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        found = F.scaled_dot_product_attention(q, k, v)
        joined = self.join(found.transpose(1, 2).flatten(2))
        x_BND = self.norm1(x_BND + self._drop(joined))
        dense = self.narrow(self._drop(F.gelu(self.widen(x_BND))))
        out: Tensor = self.norm2(x_BND + self._drop(dense))
        return out

    def _drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.dropout, self.training)


class PatchTST(nn.Module):
    """Each series alone: patches -> W_p patch + position -> encoder -> a linear map to the horizon.

        N = ⌊(L - P) / S⌋ + 2, the last value repeated S times at the end

    (B, L, F) -> (B, H, K)

    Nie, Nguyen, Sinthong and Kalagnanam 2023, "A time series is worth 64 words", arXiv:2211.14730.
    Differs from the paper in the norm of the encoder (`norm=batch` is the paper's), and from its
    code in that scores of attention are not handed from layer to layer and are not dropped.
    """

    def __init__(self, config: PatchTSTConfig, signature: Signature, generator: Generator) -> None:
        super().__init__()
        check_series(signature, "patchtst")
        length, self.targets = signature.length, signature.outputs
        if config.patch > length:
            raise ConfigError(
                f"model.patch={config.patch} with lookback={length}",
                "patches that are no longer than what is seen",
                f"use model.patch={max(length // 4, 1)}, or a longer lookback",
            )
        if config.width % config.heads:
            raise ConfigError(
                f"model.width={config.width} with model.heads={config.heads}",
                "a width that the heads divide",
                f"use model.width={config.heads * max(config.width // config.heads, 1)}",
            )
        self.config = config
        patches = (length - config.patch) // config.stride + 2
        self.revin = RevIN(self.targets) if config.revin else None
        self.embed = nn.Linear(config.patch, config.width)
        self.place = nn.Parameter(torch.empty(patches, config.width))
        self.layers = nn.ModuleList(EncoderLayer(config) for _ in range(config.layers))
        self.head = nn.Linear(patches * config.width, signature.horizon)
        initialise(self, generator, activation="gelu", init="xavier")
        nn.init.uniform_(self.place, -0.02, 0.02, generator=generator)
        unused = signature.numbers - self.targets
        idle = f"; the {unused} other series are not looked at" if unused else ""
        said = (
            f"{patches} patches of {config.patch} steps, every {config.stride}, "
            f"{config.layers} layers of width {config.width}; each series alone{idle}"
        )
        self.choices = (said,)

    def forward(self, x_BLF: Tensor) -> Tensor:
        """Return (B, H, K) forecasts of the first K series."""
        x_BLK = x_BLF[:, :, : self.targets]
        mean = spread = x_BLK
        if self.revin is not None:
            x_BLK, mean, spread = self.revin(x_BLK)
        rows = x_BLK.transpose(1, 2).flatten(0, 1)
        padded = F.pad(rows[:, None], (0, self.config.stride), mode="replicate")[:, 0]
        patches = padded.unfold(1, self.config.patch, self.config.stride)
        z = F.dropout(self.embed(patches) + self.place, self.config.dropout, self.training)
        for layer in self.layers:
            z = layer(z)
        y: Tensor = self.head(F.dropout(z.flatten(1), self.config.dropout, self.training))
        y_BHK = y.view(len(x_BLK), self.targets, -1).transpose(1, 2)
        return y_BHK if self.revin is None else self.revin.back(y_BHK, mean, spread)


def patchtst(config: PatchTSTConfig, signature: Signature, generator: Generator) -> PatchTST:
    """Return the PatchTST of a config for a series of this signature."""
    return PatchTST(config, signature, generator)
