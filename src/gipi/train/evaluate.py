"""Evaluation: every row of a stream through the model once, in evaluation mode."""

from __future__ import annotations

import time
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from gipi.core import dist
from gipi.core.batch import UNLABELLED, joined
from gipi.train.carry import apart
from gipi.train.mode import eval_mode
from gipi.train.said import Reader, Said
from gipi.train.window import measure, read_metrics

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from torch import Tensor, nn

    from gipi.core.batch import Stream
    from gipi.core.schema import Schema
    from gipi.tasks import Task


KEPT_BYTES = 1 << 29
"""Outputs and targets that an evaluation keeps: masks of a large set would fill the memory."""


@dataclass(frozen=True)
class Evaluation:
    """What one pass over a stream gave.

    metrics  name -> value, the mean loss included, without prefix; of all rows
    rows     evaluated rows
    outputs, target, weight, ids  where `keep` asked for them: one entry per evaluated row, or of
             rows evenly spread over the stream where all would take more than `KEPT_BYTES`
    said     the texts that were written, where the task writes any; then `outputs` and the three
             beside it are None
    """

    metrics: dict[str, float]
    rows: int
    seconds: float
    outputs: Tensor | None = None
    target: Tensor | None = None
    weight: Tensor | None = None
    ids: Tensor | None = None
    said: Said | None = None


def evaluate(
    model: nn.Module,
    task: Task,
    stream: Stream,
    *,
    schema: Schema | None = None,
    device: torch.device | None = None,
    autocast: AbstractContextManager[Any] | None = None,
    layout: torch.memory_format | None = None,
    keep: bool = False,
    answers: int | None = None,
) -> Evaluation:
    """Return the loss and the metrics of `model` on every row of `stream`.

    The loss is Σ w·l / Σ w of the task's first phase; metrics are in the units of the data. Under
    several ranks each sees its share and all get the same answer. The mode of the model is
    restored, and so is what it remembers of rows that go on. `keep` also returns outputs, targets
    and row ids on the CPU; the outputs of a task whose answers lie on the picture in the form that
    its metrics compare, for a map of logits of each row would fill the memory. Beyond `KEPT_BYTES`
    only some rows are kept, evenly spread; boxes are kept of all, for their score is taken from
    them.

    answers  rows, evenly spread, whose answers are made, quickly, and scored where the task writes
             texts; None: all rows, as well as it can
    """
    began = time.perf_counter()
    device = device or next(iter(model.parameters())).device
    metrics = list(task.metrics(schema))
    states = [m.init(device) for m in metrics]
    totals = torch.zeros(2, dtype=torch.float64, device=device)
    kept: list[tuple[Tensor | None, ...]] = []
    rows, share = 0, 0.0
    goal = None if schema is None else schema.target
    every = goal is not None and goal.kind == "boxes"
    reader = Reader.of(task, schema, stream, device, answers)
    remembering = apart(model, stream)
    with remembering, eval_mode(model), torch.inference_mode(), autocast or nullcontext():
        for given in stream.epoch(0):
            batch = given if device.type == "cpu" else given.to(device)
            if layout is not None:
                batch.inputs = in_layout(batch.inputs, layout)
            loss = task.phases[0].loss(model, batch)
            totals[0] += loss.total
            totals[1] += loss.count
            rows += len(batch)
            if batch.target is not None:
                measure(task, schema, metrics, states, loss.outputs, batch.target, batch.weight)
            if reader is not None:
                reader.add(model, batch)
            elif keep:
                outputs = loss.outputs.float()
                if task.decode_original is not None and batch.target is not None:
                    outputs = task.units(outputs, batch.target, schema)[0]
                found = (outputs, batch.target, batch.weight, batch.ids)
                share = share or (1.0 if every else _share(found, stream))
                kept.append(_some(found, rows - len(batch), share))
    dist.sum_over_ranks(totals)
    values = {"loss": float(totals[0] / totals[1])}  # sync
    for name, value in read_metrics(metrics, states, "m").items():
        values[name[2:]] = value
    if reader is not None:
        values |= reader.scores()
    fills = (0, UNLABELLED, 0, 0)
    parts = zip(zip(*kept, strict=True), fills, strict=True) if kept else ()
    columns = [_join(column, fill) for column, fill in parts] or [None] * 4
    said = reader.said() if reader is not None and keep else None
    seconds = time.perf_counter() - began
    return Evaluation(values, rows, seconds, columns[0], columns[1], columns[2], columns[3], said)


def _share(found: tuple[Tensor | None, ...], stream: Stream) -> float:
    """Return the share of the stream's rows that fits, by the size of those in `found`."""
    present = [t for t in found if t is not None]
    size = sum(t.numel() * t.element_size() for t in present) / max(len(present[0]), 1)
    return min(1.0, KEPT_BYTES / max(size * stream.rows, 1.0))


def _some(found: tuple[Tensor | None, ...], before: int, share: float) -> tuple[Tensor | None, ...]:
    """Return copies on the CPU of a share of the rows, of which the first is number `before`."""
    if share == 1.0:
        return tuple(None if t is None else t.cpu() for t in found)
    n = next(len(t) for t in found if t is not None)
    ends = (torch.arange(before, before + n + 1, dtype=torch.float64) * share).floor()
    which = torch.nonzero(ends[1:] > ends[:-1]).flatten()
    return tuple(None if t is None else t.cpu()[which] for t in found)


def in_layout(inputs: dict[str, Tensor], layout: torch.memory_format) -> dict[str, Tensor]:
    """Return the inputs with every image batch (B, C, H, W) in the given memory format."""
    return {k: v.contiguous(memory_format=layout) if v.ndim == 4 else v for k, v in inputs.items()}


def _join(column: tuple[Tensor | None, ...], fill: float) -> Tensor | None:
    present = [t for t in column if t is not None]
    return joined(present, fill=fill) if len(present) == len(column) else None
