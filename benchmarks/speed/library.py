"""The library's side: `gipi.fit` on one work, observed as users run it.

Progress line, rows on the disk, checkpoints, metrics and an evaluation after each epoch are on;
arithmetic, layout, threads and GEMM path are left to the library's own trial unless a setup is
given.
"""

from __future__ import annotations

import io
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from time import perf_counter as now
from typing import TYPE_CHECKING

import torch
from works import CLASSES, Data, Work

from gipi.core.config import Recipe
from gipi.core.schema import Field, Schema
from gipi.data.stream import Columns, RowStream
from gipi.tasks import classify
from gipi.train import Setup, State, fit
from gipi.train.progress import Progress

if TYPE_CHECKING:
    from torch import Tensor, nn

    from gipi.core.batch import Batch, Stream
    from gipi.core.events import Observer


def schema_of(work: Work) -> Schema:
    """Return the schema of a work: one input column and ten classes."""
    return Schema(
        (
            Field("x", work.kind, "input", shape=work.shape),
            Field("y", "category", "target", classes=tuple(str(k) for k in range(CLASSES))),
        )
    )


def stream_of(work: Work, x: Tensor, y: Tensor, *, train: bool, seed: int = 0) -> RowStream:
    """Return a resident stream of the library over rows in memory."""
    columns = Columns({work.kind: x}, y)
    ids = torch.arange(len(y)).numpy()
    size = work.batch_size if train else 256
    return RowStream(columns, ids, batch_size=size, seed=seed, shuffle=train)


def recipe_of(work: Work, *, steps: int | None = None, epochs: float | None = None) -> Recipe:
    """Return the recipe of a work; everything that is not the work itself is a default.

    Weight decay in SGD is torch's coupled penalty there, which is called l2 here.
    """
    coupled = work.optimizer in ("sgd", "momentum", "nesterov")
    decay = {"l2" if coupled else "weight_decay": work.weight_decay}
    return Recipe(
        steps=steps, epochs=epochs, batch_size=work.batch_size, optimizer=work.optimizer,
        lr=work.lr, momentum=work.momentum or None, schedule="constant", **decay,
    )  # fmt: skip


class Evaluated:
    """A validation stream that knows how long it was being read, evaluation of rows included."""

    def __init__(self, inner: RowStream) -> None:
        self.inner = inner
        self.rows, self.batch_size, self.steps = inner.rows, inner.batch_size, inner.steps
        self.seconds = 0.0
        self.times = 0

    def epoch(self, epoch: int, skip: int = 0) -> Iterator[Batch]:
        """Yield the batches; the clock runs from the first to the last."""
        began = now()
        yield from self.inner.epoch(epoch, skip)
        self.seconds += now() - began
        self.times += 1


def fit_work(
    work: Work, data: Data, model: nn.Module, train: Stream, recipe: Recipe, *,
    val: Stream | None = None, setup: Setup | None = None, observers: Sequence[Observer] = (),
) -> State:  # fmt: skip
    """Run `gipi.fit` as a user does, in a temporary run folder; return the final state."""
    if val is None:
        val = stream_of(work, data.x_val, data.y_val, train=False)
    line = Progress(stream=io.StringIO(), live=True)
    with tempfile.TemporaryDirectory() as folder:
        return fit(
            model, classify(), train, recipe, val=val, setup=setup, schema=schema_of(work),
            observers=[line, *observers], out=Path(folder),
        )  # fmt: skip
