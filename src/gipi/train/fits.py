"""Whether model, task and data fit each other: said in words before the first step.

Torch says "mat1 and mat2 shapes cannot be multiplied" from the middle of a net, and a label beyond
the outputs ends a process on a GPU. Both can be known from one batch and a look at the labels.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import torch

from gipi.core.errors import DataError, GipiError, ModelError
from gipi.train.kept import untouched
from gipi.train.mode import eval_mode

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from torch import Tensor, nn

    from gipi.core.batch import Batch, Stream
    from gipi.tasks import Task

IGNORED = -100  # the label that losses of one class a row pass over
_SHOWN = 160


def check_fits(
    model: nn.Module,
    task: Task,
    train: Stream,
    first: Batch,
    *,
    micro: int | None = None,
    context: AbstractContextManager[Any] | None = None,
) -> None:
    """Raise where the model cannot take the batch `first`, or a label has no output.

    One row goes through model and loss without gradients, and all rows (`micro` at once) where
    one alone does not fit: a loss may compare rows. The model and the random state stay as they
    were. `context` is that of a forward pass of the run.

    Raises `ModelError` for shapes that do not fit, `DataError` for labels out of range.
    """
    if len(task.phases) > 1:
        return  # several nets that hand their outputs to each other: no single forward pass
    for rows in (1, min(micro or len(first), len(first))):
        try:
            with untouched(model), eval_mode(model), torch.no_grad(), context or nullcontext():
                some = first.slice(0, rows)
                outputs = _outputs(model, task, some)
                _check_labels(outputs, train, first)
                _check_loss(model, task, some, outputs)
        except ModelError:
            if rows > 1 or len(first) == 1:
                raise
        else:
            return


def _outputs(model: nn.Module, task: Task, rows: Batch) -> Tensor:
    try:
        return task.forward(model, rows)
    except (GipiError, torch.OutOfMemoryError):
        raise
    except (RuntimeError, TypeError, ValueError, IndexError) as error:
        shapes = ", ".join(f"{k} {_shape(v)}" for k, v in rows.inputs.items())
        raise ModelError(
            f"the model {type(model).__name__} cannot take these inputs ({shapes}): {_say(error)}",
            "a model whose first layer has the width of the data",
            "change the model's input width, or the columns of the data",
        ) from error


def _check_labels(outputs: Tensor, train: Stream, first: Batch) -> None:
    """Compare the class labels with the outputs: all labels where they are at hand."""
    target = first.target
    if target is None or target.is_floating_point() or target.ndim != 1 or outputs.ndim != 2:
        return
    every, ids = getattr(train, "targets", None), getattr(train, "ids", None)
    if not isinstance(every, torch.Tensor):
        every, ids = target, first.ids
    labels = every.cpu()
    width = max(outputs.shape[1], 2)
    bad = ((labels < 0) | (labels >= width)) & (labels != IGNORED)
    if not bool(bad.any()):
        return
    place = int(bad.nonzero()[0])
    row = int(ids[place]) if ids is not None else place
    raise DataError(
        f"row {row + 1} has the label {int(labels[place])}, and the model has "
        f"{outputs.shape[1]} output{'s' * (outputs.shape[1] != 1)}",
        f"labels from 0 to {width - 1}",
        f"give the model {int(labels.max()) + 1} outputs, or correct the labels",
    )


def _check_loss(model: nn.Module, task: Task, rows: Batch, outputs: Tensor) -> None:
    try:
        task.phases[0].loss(model, rows)
    except (GipiError, torch.OutOfMemoryError):
        raise
    except (RuntimeError, TypeError, ValueError, IndexError) as error:
        target = "none" if rows.target is None else _shape(rows.target)
        raise ModelError(
            f"the loss of '{task.name}' cannot compare outputs {_shape(outputs)} with targets "
            f"{target}: {_say(error)}",
            "outputs and targets that belong together",
            "change the width of the model's last layer, or choose another task",
        ) from error


def _shape(t: Tensor) -> str:
    return f"{str(t.dtype).removeprefix('torch.')} (B{''.join(f', {n}' for n in t.shape[1:])})"


def _say(error: Exception) -> str:
    text = str(error).splitlines()[0] if str(error) else type(error).__name__
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."
