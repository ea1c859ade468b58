"""Extractive question answering: the answer is a span of the context.

Shapes: B windows, T positions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from gipi import losses, metrics
from gipi.core.errors import ConfigError, ModelError
from gipi.tasks.task import Loss, Phase, Task, call_model

if TYPE_CHECKING:
    from torch import Tensor, nn

    from gipi.core.batch import Batch
    from gipi.core.schema import Schema

ENDS = 2


def answer(*, longest: int = 30) -> Task:
    """Return the task of finding answers in contexts.

        l = -(log softmax(z[:, 0])_first + log softmax(z[:, 1])_last) / 2, softmax over positions

    The answer of a window is the span i <= j < i + longest of largest z[i, 0] + z[j, 1] in the
    context; that of a question is the answer of the window where it lies highest above "no answer",
    z[0, 0] + z[0, 1].

    longest  tokens of an answer at most
    outputs  (B, 3) float: first and last token of the best span, and its margin over "no answer"
    target   (B, 2) int64 first and last token, 0 and 0 for "no answer here"

    Devlin et al. 2019, arXiv:1810.04805. Differs in that windows are compared by their margins.
    Raises `ConfigError` for a length below 1.
    """
    if longest < 1:
        raise ConfigError(f"task.longest={longest}", "at least one token", "30 is usual")

    def loss(model: nn.Module, batch: Batch) -> Loss:
        assert batch.target is not None
        ends_BT2 = model(*batch.inputs.values())
        total, count = losses.span(ends_BT2, batch.target, batch.weight)
        with torch.no_grad():
            return Loss(total, count, best_span(ends_BT2, longest=longest))

    def forward(model: nn.Module, batch: Batch) -> Tensor:
        return best_span(call_model(model, batch), longest=longest)

    spec: dict[str, Any] = {"longest": longest}
    return Task(
        name="answer", spec=("answer", spec), outputs=lambda schema: ENDS,  # noqa: ARG005
        phases=(Phase("answer", loss),), forward=forward, units=_units,
        metrics=lambda schema: [metrics.build("span_f1")],  # noqa: ARG005
        decode=_decode, primary="span_f1",
    )  # fmt: skip


def best_span(ends_BT2: Tensor, *, longest: int) -> Tensor:
    """Return (B, 3) float32: first, last, and the margin of the best span over "no answer".

    The span lies behind position 0; where no position is open, both ends are 0 and the margin -inf.
    Raises `ModelError` for other shapes.
    """
    if ends_BT2.ndim != 3 or ends_BT2.shape[-1] != ENDS:
        raise ModelError(
            f"outputs of shape {tuple(ends_BT2.shape)} for answers", "(B, T, 2), both ends of each "
            "position", "give the model a head of width 2 over its positions",
        )  # fmt: skip
    start, end = ends_BT2.float().unbind(-1)
    rows, T = start.shape
    none = start[:, 0] + end[:, 0]
    best = start.new_full((rows,), -torch.inf)
    first, last = torch.zeros_like(best), torch.zeros_like(best)
    for size in range(min(longest, T - 1)):
        score, at = (start[:, 1 : T - size] + end[:, 1 + size :]).max(1)
        better = score > best
        best = torch.where(better, score, best)
        first = torch.where(better, at + 1.0, first)
        last = torch.where(better, at + 1.0 + size, last)
    return torch.stack([first, last, best - none], 1)


def _units(outputs: Tensor, target: Tensor, schema: Schema | None) -> tuple[Tensor, Tensor]:  # noqa: ARG001
    return outputs, target


def _decode(outputs: Tensor, schema: Schema) -> dict[str, np.ndarray]:  # noqa: ARG001
    """Return ``first``, ``last`` and ``margin`` of each window."""
    values = outputs.double().cpu().numpy()
    ends = values[:, :2].astype(np.int64)
    return {"first": ends[:, 0], "last": ends[:, 1], "margin": values[:, 2]}
