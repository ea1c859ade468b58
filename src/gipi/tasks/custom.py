"""A task from a plain loss function: for people who bring their own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gipi.core.errors import ModelError
from gipi.tasks.task import Loss, Phase, Task, call_model

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    from torch import Tensor, nn

    from gipi.core.batch import Batch
    from gipi.core.schema import Schema
    from gipi.metrics import Metric


def custom(
    loss: Callable[[Tensor, Tensor], Tensor],
    *,
    outputs: int = 1,
    row_separable: bool = False,
    metrics: Sequence[Metric] = (),
    primary: str = "loss",
) -> Task:
    """Return a task around ``loss(outputs, target)``.

    A loss that returns one value per row, shape (B,), is summed with the row weights and keeps the
    law of equivalence. A scalar is taken for the mean over the rows; it is trusted to be a sum over
    rows only with `row_separable`, and cannot carry row weights.

    outputs  width of a head that gipi builds for it
    """

    def phase(model: nn.Module, batch: Batch) -> Loss:
        out = model(*batch.inputs.values())
        value = loss(out, batch.target)  # type: ignore[arg-type]
        if value.ndim == 0:
            rows = len(batch)
            if batch.weight is not None:
                raise ModelError(
                    "a loss of one number for rows that have weights",
                    "one value for each row, so that the weights can be applied",
                    "return the values of the rows, for instance with reduction='none'",
                )
            return Loss(value * rows, float(rows), out)
        value = value.reshape(len(batch), -1).mean(1)
        if batch.weight is None:
            return Loss(value.sum(), float(len(batch)), out)
        return Loss((value * batch.weight).sum(), batch.weight.sum(), out)

    def units(out: Tensor, target: Tensor, schema: Schema | None) -> tuple[Tensor, Tensor]:  # noqa: ARG001
        return out, target

    def decode(out: Tensor, schema: Schema) -> dict[str, np.ndarray]:  # noqa: ARG001
        return {"value": out.float().cpu().numpy()}

    return Task(
        name="custom",
        spec=("custom", {"loss": getattr(loss, "__name__", type(loss).__name__)}),
        outputs=lambda schema: outputs,  # noqa: ARG005
        phases=(Phase("custom", phase),),
        forward=call_model,
        units=units,
        metrics=lambda schema: list(metrics),  # noqa: ARG005
        decode=decode,
        primary=primary,
        row_separable=row_separable,
    )
