"""Wherever a task or a stream is expected, people's own objects are accepted too."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from gipi.core import dist
from gipi.core.errors import DataError
from gipi.data import ForeignStream
from gipi.data.stream import Columns, RowStream
from gipi.tasks import Task, custom

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from gipi.core.batch import Stream
    from gipi.core.config import Recipe


def as_task(task: Task | Callable[[Tensor, Tensor], Tensor]) -> Task:
    """Return `task`, or a task around a plain loss function ``loss(outputs, target)``."""
    return task if isinstance(task, Task) else custom(task)


def as_stream(
    data: Any,
    recipe: Recipe,
    device: torch.device,
    *,
    shuffle: bool,
) -> Stream:
    """Return `data` as a stream: a stream itself, (X, y) or (X, y, weight), Dataset or DataLoader.

    Arrays and tensors keep all laws; a Dataset or DataLoader becomes a `ForeignStream`, which says
    which laws it weakens. Batch size and seed come from the recipe.
    """
    if hasattr(data, "epoch") and hasattr(data, "steps"):
        stream: Stream = data
        return stream
    if isinstance(data, tuple) and len(data) in (2, 3):
        x, y, *weight = (_tensor(part) for part in data)
        if len({len(x), len(y), *map(len, weight)}) > 1:
            raise DataError(
                f"arrays of {', '.join(str(len(part)) for part in (x, y, *weight))} rows",
                "a target (and a weight) for each row",
                "cut them to the same rows",
            )
        name = "image" if x.ndim == 4 else "numbers"
        y = y if y.is_floating_point() else y.long()
        columns = Columns({name: x}, y, weight[0] if weight else None)
        return RowStream(
            columns, np.arange(len(x)), batch_size=recipe.batch_size, seed=recipe.seed,
            shuffle=shuffle, device=device, rank=dist.rank(), world=dist.world(),
        )  # fmt: skip
    size = recipe.batch_size if isinstance(recipe.batch_size, int) else len(data)
    return ForeignStream(data, batch_size=size, seed=recipe.seed, shuffle=shuffle, device=device)


def _tensor(part: Any) -> Tensor:
    """Return an array or tensor as a plain tensor in host memory."""
    if torch.is_tensor(part):
        return part.detach().cpu()
    return torch.as_tensor(np.asarray(part))
