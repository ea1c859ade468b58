"""A run of `gipi train` as an experiment: its model, task, streams and configuration."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from gipi.core.batch import Batch
from gipi.doctor.experiment import Experiment
from gipi.tasks import call_model
from gipi.train.begin import schedule_of
from gipi.train.lanes import build_optimizer
from gipi.train.look import first_look

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gipi.core.batch import Stream
    from gipi.core.config import Config
    from gipi.tasks import Task
    from gipi.train.prepare import Prepared

WATCHED = ("classify", "regress", "forecast")
"""Tasks whose targets the rules know how to read."""


def opened(
    prepared: Prepared, train: Stream, val: Stream | None, *, device: torch.device
) -> Experiment | None:
    """Return a run as it stands before its first step: model placed, first layer looked at data."""
    prepared.model.to(device)
    if getattr(train, "can_store", False):
        train.store(half=False, channels_last=False)  # type: ignore[attr-defined]
    first_look(prepared.model, train, device)
    return as_experiment(prepared.model, prepared.task, train, val, prepared.config)


def as_experiment(
    model: nn.Module, task: Task, train: Stream, val: Stream | None, config: Config
) -> Experiment | None:
    """Return a run as an experiment; None where a step is more than a model and a loss of it."""
    if len(task.phases) != 1 or task.phases[0].closure or task.forward is not call_model:
        return None
    if task.name not in WATCHED:
        return None
    if not train.steps or not train.rows:
        return None
    phase, said = task.phases[0], _Said()

    def loss(outputs: Tensor, target: Tensor) -> Tensor:
        found = phase.loss(said, Batch({"said": outputs}, target, rows=len(target)))
        return found.total / found.count

    optimizer = build_optimizer(model, config)
    epochs = config.epochs or (config.steps or 10 * train.steps) / train.steps
    total, shape = max(1, round(epochs * train.steps)), schedule_of(config)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda i: shape(min(i / total, 1.0)))
    return Experiment(
        model, train=_Rows(train), val=None if val is None else _Rows(val), loss=loss,
        optimizer=optimizer, epochs=epochs, batch_size=train.batch_size, scheduler=scheduler,
        scheduler_every="step", seed=config.seed,
        declared=_declared(task, config),
    )  # fmt: skip


def _declared(task: Task, config: Config) -> dict[str, Any]:
    """Return what a configuration says that the doctor cannot see."""
    found: dict[str, Any] = {"frozen": tuple(config.freeze)} if config.freeze else {}
    if task.name == "forecast" or config.time_column is not None:
        found["time_ordered"] = True  # the newest rows judge: they may differ from the oldest
    return found


class _Rows:
    """The batches of a stream's first epoch as (inputs, target).

    Every pass gives the same ones, so that two short trainings differ by their change alone.
    """

    def __init__(self, stream: Stream) -> None:
        self.stream = stream

    def __len__(self) -> int:
        return self.stream.steps

    def __iter__(self) -> Iterator[tuple[Any, Tensor]]:
        for batch in self.stream.epoch(0):
            if batch.target is None:
                continue
            values = tuple(v.clone() for v in batch.inputs.values())
            yield values[0] if len(values) == 1 else values, batch.target.clone()


class _Said(nn.Module):
    """A model that says what it is given: a task's loss of outputs that are known."""

    def forward(self, said: Tensor) -> Tensor:
        return said
