"""Tasks: what is computed from a batch, one per file."""

from __future__ import annotations

import inspect
from typing import Any

from gipi.core.errors import ConfigError, did_you_mean
from gipi.core.registry import Record, Registry
from gipi.tasks.answer import answer
from gipi.tasks.classify import classify
from gipi.tasks.custom import custom
from gipi.tasks.detect import detect
from gipi.tasks.forecast import forecast
from gipi.tasks.generate import generate
from gipi.tasks.pose import pose
from gipi.tasks.regress import regress
from gipi.tasks.segment import segment
from gipi.tasks.tag import tag
from gipi.tasks.task import Loss, Phase, Task, call_model
from gipi.tasks.translate import summarise, translate

__all__ = [
    "TASKS",
    "Loss",
    "Phase",
    "Task",
    "answer",
    "build",
    "call_model",
    "classify",
    "custom",
    "detect",
    "forecast",
    "generate",
    "pose",
    "regress",
    "segment",
    "summarise",
    "tag",
    "translate",
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
            "translate",
            translate,
            "write another text for each text",
            "Sutskever, Vinyals and Le 2014, arXiv:1409.3215",
        ),
        Record(
            "summarise",
            summarise,
            "write a short text for each text",
            "Rush, Chopra and Weston 2015, arXiv:1509.00685",
        ),
        Record(
            "tag",
            tag,
            "find entities: a tag for each word",
            "Ramshaw and Marcus 1995; Lample et al. 2016, arXiv:1603.01360",
        ),
        Record(
            "answer",
            answer,
            "find the answer to a question in a text",
            "Rajpurkar et al. 2016, SQuAD, arXiv:1606.05250",
        ),
        Record(
            "forecast",
            forecast,
            "say the next steps of series",
            "Yule 1927, On a method of investigating periodicities in disturbed series",
        ),
        Record(
            "generate",
            generate,
            "go on with a text: the next token at every place",
            "Bengio, Ducharme, Vincent and Jauvin 2003, A neural probabilistic language model",
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
