"""A recurrent forecaster: an encoder over the past, and one linear map from its state to all steps.

B rows, L steps seen, H steps ahead, F series, K of them forecast (the first K), W units.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

import torch
from pydantic import Field
from torch import nn
from torch.nn import functional as F

from gipi.models.dlinear import check_series
from gipi.nn import Recurrent, initialise

if TYPE_CHECKING:
    from torch import Generator, Tensor

    from gipi.core.schema import Signature


@dataclass(frozen=True)
class LSTMForecasterConfig:
    """Shape of a recurrent forecaster.

    cell     lstm, gru or rnn
    width    units of a layer
    layers   recurrent layers, one on the other
    norm     layer: layer norm within the cells; none
    dropout  share dropped between the layers and before the head
    level    what is taken off each window and added to its forecast: its mean, its last step, or
             none
    """

    cell: Literal["lstm", "gru", "rnn"] = "lstm"
    width: Annotated[int, Field(gt=0)] = 64
    layers: Annotated[int, Field(gt=0)] = 1
    norm: Literal["none", "layer"] = "none"
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    level: Literal["mean", "last", "none"] = "mean"


class LSTMForecaster(nn.Module):
    """s = LSTM(x_1 - m .. x_L - m),  ŷ = W s + b + m: all H steps at once, of all K series.

    (B, L, F) -> (B, H, K). It sees every series, also those that are only inputs. m is the level of
    the window, so that a shift of the level changes nothing but the level: its mean, which noise
    hardly moves, or its last step (as in NLinear, arXiv:2205.13504).

    Hochreiter and Schmidhuber 1997, "Long short-term memory"; the direct head as in Chevillon 2007,
    "Direct multi-step estimation and forecasting".
    """

    def __init__(
        self, config: LSTMForecasterConfig, signature: Signature, generator: Generator
    ) -> None:
        super().__init__()
        check_series(signature, "lstm-forecaster")
        self.config, self.targets = config, signature.outputs
        self.encoder = Recurrent(
            signature.numbers, config.width, generator=generator, cell=config.cell,
            layers=config.layers, norm=config.norm,
            dropout=config.dropout if config.layers > 1 else 0.0,
        )  # fmt: skip
        self.head = nn.Linear(config.width, signature.horizon * self.targets)
        initialise(self.head, generator, init="xavier")
        said = (
            f"{config.layers} {config.cell} layer{'s' * (config.layers > 1)} of {config.width} "
            f"units over {signature.length} steps of {signature.numbers} series, then all "
            f"{signature.horizon} steps at once"
        )
        self.choices = (said,)

    def forward(self, x_BLF: Tensor) -> Tensor:
        """Return (B, H, K) forecasts of the first K series."""
        level = x_BLF.mean(1, keepdim=True) if self.config.level == "mean" else x_BLF[:, -1:]
        if self.config.level == "none":
            level = torch.zeros_like(level)
        state: Tensor = self.encoder(x_BLF - level)[:, -1]
        state = F.dropout(state, self.config.dropout, self.training)
        y_BHK: Tensor = self.head(state).view(len(x_BLF), -1, self.targets)
        return y_BHK + level[:, :, : self.targets]


def lstm_forecaster(
    config: LSTMForecasterConfig, signature: Signature, generator: Generator
) -> LSTMForecaster:
    """Return the recurrent forecaster of a config for a series of this signature."""
    return LSTMForecaster(config, signature, generator)
