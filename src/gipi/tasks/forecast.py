"""Forecasting: the next steps of one or several series, from the steps before."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from gipi import losses, metrics
from gipi.core.errors import ConfigError, did_you_mean
from gipi.tasks.task import Loss, LossFunction, Phase, Task, call_model

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

    from gipi.core.batch import Batch
    from gipi.core.schema import Schema

LOSSES = ("mse", "mae", "huber")
METRICS = ("mse", "mae", "original_mae", "mase")
LEAST = 1e-9  # of the spread: a series that repeats itself exactly has no mase
MEASURED = 512  # windows overlap: more of them say little more, and each is a horizon wide


def forecast(*, loss: str = "mse", delta: float = 1.0, metric: str = "mse") -> Task:
    """Return the task of forecasting series.

    Outputs and targets are (B, H, K): H steps of K series, standardised by mean and spread of the
    training steps. Loss, mse and mae are on that scale, as in the literature on long-term
    forecasting; original_mae and mase (Hyndman and Koehler 2006) are in units of the data and of
    the seasonal naive forecast. Answers are in the units of the data.

    loss    'mse' (y - ŷ)², 'mae' |y - ŷ|, or 'huber' (quadratic within `delta`, Huber 1964)
    delta   of 'huber', in spreads
    metric  the score that decides which weights are best

    Raises `ConfigError` for an unknown loss or metric, or a `delta` that is not positive.
    """
    for what, name, known in (("loss", loss, LOSSES), ("metric", metric, METRICS)):
        if name not in known:
            raise ConfigError(
                f"task.{what}={name!r} is no {what} for a forecast",
                "one of " + ", ".join(known),
                did_you_mean(name, known),
            )
    if delta <= 0:
        raise ConfigError(f"task.delta={delta}", "a positive number", "1.0 is usual")

    def outputs(schema: Schema) -> int:
        return len(schema.of("target"))

    def units(out: Tensor, target: Tensor, schema: Schema | None) -> tuple[Tensor, Tensor]:  # noqa: ARG001
        return out, target

    def decode(out: Tensor, schema: Schema) -> dict[str, np.ndarray]:
        wide = out.double().cpu()
        mean, std = (wide.new_tensor(_stats(schema, key)) for key in ("mean", "std"))
        return {"forecast": (wide * std + mean).numpy()}

    def measured(schema: Schema | None) -> list[metrics.Metric]:
        spread = () if schema is None else _stats(schema, "std")
        yard = () if schema is None else _stats(schema, "naive")
        scale = [s / q if q > LEAST * s else math.nan for s, q in zip(spread, yard, strict=True)]
        options: dict[str, dict[str, Any]] = {
            "original_mae": {"spread": tuple(spread)}, "mase": {"scale": tuple(scale)},
        }  # fmt: skip
        names = dict.fromkeys([metric, *METRICS])
        return [metrics.build(name, options=options.get(name)) for name in names]

    return Task(
        name="forecast",
        spec=("forecast", {"loss": loss, "delta": delta, "metric": metric}),
        outputs=outputs,
        phases=(Phase("forecast", _loss(loss, delta)),),
        forward=call_model,
        units=units,
        metrics=measured,
        decode=decode,
        primary=metric,
        measured_rows=MEASURED,
    )


def _stats(schema: Schema, key: str) -> list[float]:
    """Return a statistic of every target series, in their order."""
    return [float(field.stats[key]) for field in schema.of("target")]


def _loss(name: str, delta: float) -> LossFunction:
    def of(model: nn.Module, batch: Batch) -> Loss:
        assert batch.target is not None
        out = model(*batch.inputs.values())
        if name == "huber":
            total, count = losses.huber(out, batch.target, batch.weight, delta=delta)
        else:
            function = losses.mse if name == "mse" else losses.l1
            total, count = function(out, batch.target, batch.weight)
        return Loss(total, count, out)

    return of
