"""Linear forecasters: one map from the past of a series to its future, simply normalised.

B rows, L steps seen, H steps ahead, F series, K of them forecast (the first K).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

import torch
from pydantic import Field
from torch import nn
from torch.nn import functional as F

from gipi.core.errors import ConfigError, ModelError

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from gipi.core.schema import Signature


@dataclass(frozen=True)
class DLinearConfig:
    """Shape of a DLinear.

    kernel      steps of the moving average that is the trend; an odd number
    individual  maps of its own for each series, instead of the same for all
    init        mean (every weight 1/L: the average of the past) or uniform (as torch draws them)
    """

    kernel: Annotated[int, Field(gt=0)] = 25
    individual: bool = False
    init: Literal["mean", "uniform"] = "mean"


@dataclass(frozen=True)
class NLinearConfig:
    """Shape of an NLinear.

    individual  a map of its own for each series, instead of the same for all
    init        mean (every weight 1/L) or uniform (as torch draws them)
    """

    individual: bool = False
    init: Literal["mean", "uniform"] = "mean"


def check_series(signature: Signature, name: str) -> None:
    """Raise `ModelError` where the data is no series with a horizon."""
    if not signature.horizon or not signature.length or not signature.numbers:
        raise ModelError(
            f"the model '{name}' forecasts, and this data is no series",
            "windows of a series: its past and what comes next",
            "use --task forecast, or another model",
        )


def moving_average(x: Tensor, kernel: int) -> Tensor:
    """Return the mean of the `kernel` values around each place, (..., L) -> (..., L).

    t_i = 1/k Σ_j x_{i+j},  j = -(k-1)/2 .. (k-1)/2;  the ends are repeated
    """
    side = (kernel - 1) // 2
    flat = x.reshape(-1, 1, x.shape[-1])
    return F.avg_pool1d(F.pad(flat, (side, side), mode="replicate"), kernel, 1).reshape(x.shape)


class TimeLinear(nn.Module):
    """y_{c,h} = Σ_t W_{h,t} x_{c,t} + b_h, along time; with `series` a W and b of each series.

    (B, F, L) -> (B, F, H)
    """

    def __init__(
        self, length: int, horizon: int, *, series: int, init: str, generator: Generator
    ) -> None:
        super().__init__()
        lead = (series,) if series else ()
        self.weight = nn.Parameter(torch.empty(*lead, horizon, length))
        self.bias = nn.Parameter(torch.zeros(*lead, horizon))
        if init == "mean":
            nn.init.constant_(self.weight, 1 / length)
        else:
            bound = length**-0.5
            nn.init.uniform_(self.weight, -bound, bound, generator=generator)
            nn.init.uniform_(self.bias, -bound, bound, generator=generator)

    def forward(self, x: Tensor) -> Tensor:
        """Return the mapped steps."""
        if self.weight.ndim == 2:
            return F.linear(x, self.weight, self.bias)
        return torch.einsum("bcl,chl->bch", x, self.weight) + self.bias


class DLinear(nn.Module):
    """ŷ = W_r (x - t) + W_t t + b,  t the moving average of x over 25 steps, for each series alone.

    (B, L, F) -> (B, H, K)

    Zeng, Chen, Zhang and Xu 2022, "Are transformers effective for time series forecasting?",
    arXiv:2205.13504. Differs from the paper's code in the initial weights, which are all 1/L
    (`init=uniform` draws them as there).
    """

    def __init__(self, config: DLinearConfig, signature: Signature, generator: Generator) -> None:
        super().__init__()
        check_series(signature, "dlinear")
        if config.kernel % 2 == 0:
            raise ConfigError(
                f"model.kernel={config.kernel}", "an odd number: the average has a middle",
                f"use {config.kernel + 1}",
            )  # fmt: skip
        self.config = config
        self.targets = signature.outputs
        length, horizon = signature.length, signature.horizon
        series = self.targets if config.individual else 0
        self.trend = TimeLinear(
            length, horizon, series=series, init=config.init, generator=generator
        )
        self.remainder = TimeLinear(
            length, horizon, series=series, init=config.init, generator=generator
        )
        self.choices = (_sentence(signature, individual=config.individual),)

    def forward(self, x_BLF: Tensor) -> Tensor:
        """Return (B, H, K) forecasts of the first K series."""
        x_BKL = x_BLF[:, :, : self.targets].transpose(1, 2)
        trend = moving_average(x_BKL, self.config.kernel)
        y_BKH: Tensor = self.remainder(x_BKL - trend) + self.trend(trend)
        return y_BKH.transpose(1, 2)


class NLinear(nn.Module):
    """ŷ = W (x - x_L) + b + x_L, for each series alone: what is learned is blind to the level.

    (B, L, F) -> (B, H, K)

    Zeng, Chen, Zhang and Xu 2022, arXiv:2205.13504.
    """

    def __init__(self, config: NLinearConfig, signature: Signature, generator: Generator) -> None:
        super().__init__()
        check_series(signature, "nlinear")
        self.config = config
        self.targets = signature.outputs
        series = self.targets if config.individual else 0
        self.linear = TimeLinear(
            signature.length, signature.horizon, series=series, init=config.init,
            generator=generator,
        )  # fmt: skip
        self.choices = (_sentence(signature, individual=config.individual),)

    def forward(self, x_BLF: Tensor) -> Tensor:
        """Return (B, H, K) forecasts of the first K series."""
        x_BKL = x_BLF[:, :, : self.targets].transpose(1, 2)
        last = x_BKL[:, :, -1:]
        y_BKH: Tensor = self.linear(x_BKL - last) + last
        return y_BKH.transpose(1, 2)


def _sentence(signature: Signature, *, individual: bool) -> str:
    """Return what the shape of a linear forecaster is, in words."""
    own = "a map of its own for each series" if individual else "the same map for every series"
    unused = signature.numbers - signature.outputs
    idle = f"; the {unused} other series are not looked at" if unused else ""
    return f"from {signature.length} steps to {signature.horizon}, {own}{idle}"


def dlinear(config: DLinearConfig, signature: Signature, generator: Generator) -> DLinear:
    """Return the DLinear of a config for a series of this signature."""
    return DLinear(config, signature, generator)


def nlinear(config: NLinearConfig, signature: Signature, generator: Generator) -> NLinear:
    """Return the NLinear of a config for a series of this signature."""
    return NLinear(config, signature, generator)
