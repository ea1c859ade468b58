"""Tasks: what is computed from a batch, one per file."""

from __future__ import annotations

import inspect
from typing import Any

from gipi.core.errors import ConfigError, did_you_mean
from gipi.core.registry import Record, Registry
from gipi.tasks.classify import classify
from gipi.tasks.custom import custom
from gipi.tasks.detect import detect
from gipi.tasks.embed import embed, rank
from gipi.tasks.forecast import forecast
from gipi.tasks.pose import pose
from gipi.tasks.pretrain import masked, spans
from gipi.tasks.regress import regress
from gipi.tasks.segment import segment
from gipi.tasks.task import Loss, Phase, Task, call_model

__all__ = [
    "TASKS",
    "Loss",
    "Phase",
    "Task",
    "build",
    "call_model",
    "classify",
    "custom",
    "detect",
    "embed",
    "forecast",
    "masked",
    "pose",
    "rank",
    "regress",
    "segment",
    "spans",
]

TASKS = Registry(
    "tasks",
    (
        Record("classify", classify, "name the class of each row", "Bridle 1990 (softmax)"),
        Record("regress", regress, "predict numbers", "Legendre 1805 (least squares)"),
        Record(
            "segment",
            segment,
            "name the class of each pixel",
            "Long, Shelhamer and Darrell 2015, arXiv:1411.4038",
        ),
        Record(
            "detect",
            detect,
            "find objects: boxes and their classes",
            "Tian et al. 2019, FCOS, arXiv:1904.01355",
        ),
        Record(
            "pose", pose, "find named points", "Toshev and Szegedy 2014, DeepPose, arXiv:1312.4659"
        ),
        Record(
            "forecast",
            forecast,
            "say the next steps of series",
            "Yule 1927, On a method of investigating periodicities in disturbed series",
        ),
        Record(
            "embed",
            embed,
            "give texts vectors: what belongs together lies close",
            "Reimers and Gurevych 2019, Sentence-BERT, arXiv:1908.10084",
        ),
        Record(
            "rank",
            rank,
            "find the text that belongs to another: retrieval by vectors",
            "Henderson et al. 2017, arXiv:1705.00652",
        ),
        Record(
            "masked",
            masked,
            "learn from text alone: name the hidden tokens",
            "Devlin, Chang, Lee and Toutanova 2019, BERT, arXiv:1810.04805",
        ),
        Record(
            "spans",
            spans,
            "learn from text alone: write the spans that were cut out",
            "Raffel et al. 2020, T5, arXiv:1910.10683",
        ),
    ),
)


def build(name: str, options: dict[str, Any] | None = None) -> Task:
    """Return the task called `name` with `options`; unknown ones raise with the nearest name."""
    record = TASKS.get(name)
    known = list(inspect.signature(record.build).parameters)
    for key in options or {}:
        if key not in known:
            raise ConfigError(
                f"task.{key}: the task '{name}' has no such option",
                "an option of the task",
                did_you_mean(key, known),
            )
    task: Task = record.build(**(options or {}))
    return task
