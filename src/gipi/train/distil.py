"""A student beside its teacher: half of its blocks, taught by what it says.

    soft targets + hidden tokens + direction of hidden states (`tasks.pretrain.taught`)

The teacher is a folder of pre-training; it sees every batch that the student sees, is not trained
and is not kept: the student's model folder needs nothing of it. A run that is resumed needs the
teacher where it was.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from gipi.core.errors import ConfigError
from gipi.core.schema import PRETEXT
from gipi.models import HiddenTokens, every_second, open_teacher, read_start
from gipi.tasks.pretrain import taught
from gipi.text import Tokenizer
from gipi.train.mode import eval_mode
from gipi.train.transfer import folder_of

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

    from gipi.core.config import Config
    from gipi.tasks import Task

SMALL = 0.6  # of the teacher's parameters: what a student is expected to have at most
TRIALS, ROWS = 5, 16  # of the comparison of speed


@dataclass(frozen=True)
class Teacher:
    """A teacher and where it lies.

    longest  tokens of a row at most
    shape    of a student with half of its blocks, as options of the model bert
    """

    folder: Path
    model: HiddenTokens
    longest: int | None
    shape: dict[str, Any]


def teacher_of(config: Config) -> Teacher | None:
    """Return the teacher that `config` names; None for none.

    Raises `ConfigError` for a task without one, `ModelError` for a folder that cannot teach.
    """
    if config.teacher is None:
        return None
    if config.task not in PRETEXT or config.task_options.get("next_sentence"):
        raise ConfigError(
            f"teacher={config.teacher} with the task {config.task or 'that the data has'}",
            "the task masked, without next_sentence", "use --task masked",
        )  # fmt: skip
    folder = folder_of(config.teacher)
    start, tokenizer = read_start(folder), Tokenizer.from_file(folder)
    model = open_teacher(folder, pad=tokenizer.pad or 0)
    stack, embed = model.body.config.stack, model.body.config.embed
    shape = {
        "width": stack.width, "heads": stack.heads, "inner": stack.inner,
        "layers": max(1, stack.layers // 2), "positions": embed.positions,
    }  # fmt: skip
    return Teacher(folder, model, start.longest or None, shape)


def lesson(
    task: Task, student: nn.Module, teacher: Teacher, *, copy: bool
) -> tuple[Task, tuple[str, ...]]:
    """Return the task with its teacher, and sentences on both.

    copy  put the teacher's tables, head and every so manieth block into the student first

    Raises `ModelError` where the two differ in more than the number of blocks.
    """
    if not isinstance(student, HiddenTokens):
        raise ConfigError(
            f"teacher={teacher.folder} for a {type(student).__name__}", "the model bert",
            "leave --model out",
        )  # fmt: skip
    said = []
    if copy:
        blocks = every_second(student.body, teacher.model.body)
        all_blocks = teacher.model.body.config.stack.layers
        said.append(
            f"teacher: {teacher.folder}; {blocks} of its {all_blocks} blocks begin the student"
        )
        said.append(compared(student, teacher.model))
    return taught(task, teacher.model), tuple(said)


def compared(student: HiddenTokens, teacher: HiddenTokens) -> str:
    """Return a sentence on the sizes of both, and how much faster the student answers here.

    The least time of each counts: what else the machine does only adds to it.
    """
    small, large = (sum(p.numel() for p in m.parameters()) for m in (student, teacher))
    length = min(64, student.body.config.embed.longest or 64)
    seconds = _seconds(student, teacher, length)
    share = small / large
    found = f"student: {small:,} parameters, {share:.0%} of its teacher's"
    if share > SMALL:
        found += f" (over {SMALL:.0%}: the table of tokens weighs most)"
    faster = seconds[1] / seconds[0]
    return f"{found}; answers {faster:.2f} times as fast on {ROWS} rows of {length}"


def _seconds(student: HiddenTokens, teacher: HiddenTokens, length: int) -> tuple[float, float]:
    """Return the least seconds of both for the same rows, one after the other in turn."""
    vocab = student.body.config.embed.vocab
    tokens = torch.arange(ROWS * length).view(ROWS, length) % max(vocab - 1, 1) + 1
    places = torch.zeros(ROWS, 1, dtype=torch.int64)
    took: tuple[list[float], list[float]] = ([], [])
    with torch.inference_mode(), eval_mode(student), eval_mode(teacher):
        for _ in range(TRIALS + 1):
            for model, seconds in zip((student, teacher), took, strict=True):
                began = time.perf_counter()
                model(tokens, places)
                seconds.append(time.perf_counter() - began)
    return min(took[0]), min(took[1])
