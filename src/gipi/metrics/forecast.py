"""Metrics of forecasts: absolute errors in units of the data, and beside a naive forecast.

Outputs and targets are (B, H, K), H steps of K series, standardised. Each series has its own scale.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from gipi.core.errors import ModelError
from gipi.metrics.metric import Metric, State, add, add_rows, ratio, zeros

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


def original_mae(classes: int = 0, *, spread: Sequence[float] = ()) -> Metric:  # noqa: ARG001
    """Return the mean absolute error in the units of the data, mean over the series.

        mean over rows, steps and series of s_k · |y - ŷ|,  s_k the spread of series k

    Laplace 1793. Series in different units are averaged as they are: it means something where they
    share a unit, above all for one series.
    """
    return _scaled("original_mae", spread)


def mase(classes: int = 0, *, scale: Sequence[float] = ()) -> Metric:  # noqa: ARG001
    """Return the mean absolute scaled error: below 1 it beats the naive forecast of one season.

        mean over rows, steps and series of |y - ŷ| / q_k,
        q_k = mean |y_k(t) - y_k(t - season)| over the training steps

    scale  1 / q_k of each series, where outputs and q_k are in the same unit

    Hyndman and Koehler 2006, "Another look at measures of forecast accuracy".
    """
    return _scaled("mase", scale)


def _scaled(name: str, factors: Sequence[float]) -> Metric:
    def update(state: State, outputs: Tensor, target: Tensor, weight: Tensor | None) -> None:
        if outputs.shape != target.shape:
            raise ModelError(
                f"outputs of shape {tuple(outputs.shape)} for targets of shape "
                f"{tuple(target.shape)}",
                "one forecast for each step and series",
                "check the model's head",
            )
        kind = state["error"].dtype
        error = (outputs.to(kind) - target.to(kind)).abs()
        if len(factors):
            error = error * torch.tensor(factors, dtype=kind, device=error.device)
        add(state, "error", error.reshape(len(error), -1).mean(1), weight)
        add_rows(state, "count", len(target), weight)

    return Metric(
        name,
        greater_is_better=False,
        init=zeros({"error": (), "count": ()}),
        update=update,
        compute=lambda state: ratio(state, "error", "count"),
    )
