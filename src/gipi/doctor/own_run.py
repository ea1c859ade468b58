"""A run of `gipi train` as an experiment: its model, task, streams and configuration."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from gipi.core.batch import Batch
from gipi.doctor.experiment import Experiment
from gipi.doctor.named import column_names
from gipi.doctor.rules import RULES
from gipi.tasks import call_model
from gipi.train.begin import schedule_of
from gipi.train.lanes import build_optimizer
from gipi.train.look import first_look

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gipi.core.batch import Stream
    from gipi.core.config import Config
    from gipi.core.schema import Schema
    from gipi.doctor.rule import Rule
    from gipi.tasks import Task
    from gipi.tasks.task import LossFunction
    from gipi.train.prepare import Prepared

READ = ("classify", "regress", "forecast")
"""Tasks whose targets the rules can read; of others they look at steps and weights alone."""
BLIND = (
    "nan_inf", "lr_too_high", "exploding_gradient", "vanishing_gradient", "bad_init_symmetric",
    "frozen_layer", "params_not_in_optimizer", "graph_detached", "lr_decay_too_fast",
)  # fmt: skip
"""Rules that need neither inputs nor targets: losses, gradients and what a step moves suffice."""


def rules_for(task: Task) -> tuple[Rule, ...]:
    """Return the rules that a run of this task is looked at with."""
    return RULES if _read(task) else tuple(rule for rule in RULES if rule.code in BLIND)


def opened(
    prepared: Prepared, train: Stream, val: Stream | None, *, device: torch.device
) -> Experiment | None:
    """Return a run as it stands before its first step: model placed, first layer looked at data."""
    prepared.model.to(device)
    if getattr(train, "can_store", False):
        train.store(half=False, channels_last=False)  # type: ignore[attr-defined]
    first_look(prepared.model, train, device)
    return as_experiment(prepared, train, val)


def as_experiment(
    prepared: Prepared, train: Stream, val: Stream | None, *, live: nn.Module | None = None
) -> Experiment | None:
    """Return a run as an experiment; None where a step is more than one loss and its gradient.

    live  the model as it is by now; None: that of the prepared run

    Where the rules cannot read the targets (see `READ`), inputs and targets are whole batches, and
    what the model says of one is its loss.
    """
    model, task, config = live or prepared.model, prepared.task, prepared.config
    if len(task.phases) != 1 or task.phases[0].closure or not train.steps or not train.rows:
        return None
    read, phase, said = _read(task), task.phases[0], _Said()

    def loss(outputs: Tensor, target: Tensor) -> Tensor:
        found = phase.loss(said, Batch({"said": outputs}, target, rows=len(target)))
        return found.total / found.count

    optimizer = build_optimizer(model, config)
    epochs = config.epochs or (config.steps or 10 * train.steps) / train.steps
    total, shape = max(1, round(epochs * train.steps)), schedule_of(config)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda i: shape(min(i / total, 1.0)))
    return Experiment(
        model if read else _Judged(model, phase.loss), train=_Rows(train, read=read),
        val=None if val is None else _Rows(val, read=read), loss=loss if read else _its_loss,
        optimizer=optimizer, epochs=epochs, batch_size=train.batch_size, scheduler=scheduler,
        scheduler_every="step", seed=config.seed,
        declared=_declared(task, config, prepared.dataset.schema),
    )  # fmt: skip


def own_model(exp: Experiment) -> nn.Module:
    """Return the run's own model, whatever it was put into to be an experiment."""
    return exp.model.model if isinstance(exp.model, _Judged) else exp.model


def _declared(task: Task, config: Config, schema: Schema) -> dict[str, Any]:
    """Return what a configuration says that the doctor cannot see."""
    found: dict[str, Any] = {"frozen": tuple(config.freeze)} if config.freeze else {}
    if task.name in ("classify", "regress") and (names := column_names(schema)):
        found["columns"] = list(names)
    if task.name == "forecast" or config.time_column is not None:
        found["time_ordered"] = True  # the newest rows judge: they may differ from the oldest
    return found


def _read(task: Task) -> bool:
    return task.name in READ and task.forward is call_model


class _Rows:
    """The batches of a stream's first epoch as (inputs, target), or as (batch, batch).

    Every pass gives the same ones, so that two short trainings differ by their change alone.
    """

    def __init__(self, stream: Stream, *, read: bool) -> None:
        self.stream, self.read = stream, read

    def __len__(self) -> int:
        return self.stream.steps

    def __iter__(self) -> Iterator[tuple[Any, Any]]:
        for lent in self.stream.epoch(0):  # the next batch may be written over this one
            batch = Batch(
                {k: v.clone() for k, v in lent.inputs.items()},
                None if lent.target is None else lent.target.clone(),
                None if lent.weight is None else lent.weight.clone(), None, lent.rows,
            )  # fmt: skip
            if not self.read:
                yield batch, batch
            elif batch.target is not None:
                values = tuple(batch.inputs.values())
                yield values[0] if len(values) == 1 else values, batch.target


class _Said(nn.Module):
    """A model that says what it is given: a task's loss of outputs that are known."""

    def forward(self, said: Tensor) -> Tensor:
        return said


class _Judged(nn.Module):
    """A model that is given a batch and says its loss: a task's step, whatever it takes."""

    def __init__(self, model: nn.Module, judge: LossFunction) -> None:
        super().__init__()
        self.model, self.judge = model, judge

    def forward(self, batch: Batch) -> Tensor:
        found = self.judge(self.model, batch)
        return found.total / found.count


def _its_loss(said: Tensor, _: Batch) -> Tensor:
    return said
