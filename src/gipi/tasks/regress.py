"""Regression: one or several numbers per row."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from gipi import losses, metrics
from gipi.core.errors import ConfigError, did_you_mean
from gipi.tasks.task import Loss, LossFunction, Phase, Task, call_model

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor, nn

    from gipi.core.batch import Batch
    from gipi.core.schema import Schema

LOSSES = ("mse", "l1", "huber", "gaussian_nll")


def regress(*, loss: str = "mse", delta: float = 1.0, metric: str = "rmse") -> Task:
    """Return the task of predicting numbers.

    The target reaches the loss standardised, (y - mean) / std over the training rows; metrics and
    predictions are in the units of the data.

    loss    'mse' (y - ŷ)², 'l1' |y - ŷ|, 'huber' (quadratic within `delta`, Huber 1964), or
            'gaussian_nll': the model predicts mean and spread (Nix and Weigend 1994)
    metric  the score that decides which weights are best

    Raises `ConfigError` for an unknown loss or a `delta` that is not positive.
    """
    if loss not in LOSSES:
        raise ConfigError(
            f"task.loss={loss!r} is no loss for regression",
            "a loss for numbers",
            did_you_mean(loss, LOSSES),
        )
    if delta <= 0:
        raise ConfigError(f"task.delta={delta}", "a positive number", "1.0 is usual")
    spec: dict[str, Any] = {"loss": loss, "delta": delta, "metric": metric}
    spread = loss == "gaussian_nll"

    def outputs(schema: Schema) -> int:
        target = schema.target
        width = target.shape[0] if target is not None and target.shape else 1
        return 2 * width if spread else width

    def units(out: Tensor, target: Tensor, schema: Schema | None) -> tuple[Tensor, Tensor]:
        mean, std = _scale(schema, out)
        out = out.reshape(len(out), -1)
        center = out[:, : out.shape[1] // 2] if spread else out
        return center * std + mean, target.reshape(len(out), -1) * std + mean

    def decode(out: Tensor, schema: Schema) -> dict[str, np.ndarray]:
        out = out.double().reshape(len(out), -1)
        center, _ = units(out, out.new_zeros(len(out), 1), schema)
        answer = {"value": center.squeeze(1).cpu().numpy()}
        if spread:
            sigma = losses.gaussian_std(out) * _scale(schema, out)[1]
            answer["std"] = sigma.squeeze(1).cpu().numpy()
        return answer

    def measured(schema: Schema | None) -> list[metrics.Metric]:  # noqa: ARG001
        names = ["rmse", "mae", "r2"]
        return [metrics.build(name, classes=0) for name in dict.fromkeys([metric, *names])]

    return Task(
        name="regress",
        spec=("regress", spec),
        outputs=outputs,
        phases=(Phase("regress", _loss(loss, delta)),),
        forward=call_model,
        units=units,
        metrics=measured,
        decode=decode,
        primary=metric,
    )


def _scale(schema: Schema | None, like: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of the target over the training rows, as tensors."""
    stats = schema.target.stats if schema is not None and schema.target is not None else {}
    mean = torch.as_tensor(stats.get("mean", 0.0), dtype=like.dtype, device=like.device)
    std = torch.as_tensor(stats.get("std", 1.0), dtype=like.dtype, device=like.device)
    return mean, std


def _loss(name: str, delta: float) -> LossFunction:
    if name == "huber":

        def huber(model: nn.Module, batch: Batch) -> Loss:
            assert batch.target is not None
            out = model(*batch.inputs.values())
            total, count = losses.huber(out, batch.target, batch.weight, delta=delta)
            return Loss(total, count, out)

        return huber
    function = {"mse": losses.mse, "l1": losses.l1, "gaussian_nll": losses.gaussian_nll}[name]

    def plain(model: nn.Module, batch: Batch) -> Loss:
        assert batch.target is not None
        out = model(*batch.inputs.values())
        total, count = function(out, batch.target, batch.weight)
        return Loss(total, count, out)

    return plain
