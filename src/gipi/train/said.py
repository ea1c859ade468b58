"""What a task that writes texts says in an evaluation: answers beside the texts of the data.

An answer takes as many passes through the model as it has tokens, so during a run only some rows
are answered, evenly spread over the stream, and quickly; at its end all are.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from gipi.core.batch import Batch
from gipi.train.window import read_metrics

if TYPE_CHECKING:
    from torch import Tensor, nn

    from gipi.core.batch import Stream
    from gipi.core.schema import Schema
    from gipi.tasks import Task


@dataclass(frozen=True)
class Said:
    """The answers of an evaluation, one entry a row.

    texts, references  what was written, and what stands in the data
    statistics         name of a metric -> (n, S) numbers of each row, see `metrics.TextMetric`
    """

    texts: tuple[str, ...]
    references: tuple[str, ...]
    statistics: dict[str, Tensor]
    weight: Tensor | None
    ids: np.ndarray


@dataclass
class Reader:
    """Has the rows of a stream answered, and scores the answers.

    share   of the rows that are answered
    quick   whether answers may be worse and cheaper
    """

    task: Task
    schema: Schema
    stream: Any
    device: torch.device
    share: float
    quick: bool
    rows: int = 0
    texts: list[str] = field(default_factory=list)
    references: list[str] = field(default_factory=list)
    weights: list[Tensor | None] = field(default_factory=list)
    ids: list[Tensor] = field(default_factory=list)
    statistics: list[list[Tensor]] = field(default_factory=list)

    @staticmethod
    def of(
        task: Task, schema: Schema | None, stream: Stream, device: torch.device, answers: int | None
    ) -> Reader | None:
        """Return what answers the rows of a stream; None where nothing is written, or 0 answers."""
        known = getattr(stream, "references", None) is not None
        if task.predict is None or not task.judges or schema is None or not known or answers == 0:
            return None
        share = 1.0 if answers is None else min(1.0, answers / max(stream.rows, 1))
        return Reader(task, schema, stream, device, share, answers is not None)

    def add(self, model: nn.Module, batch: Batch) -> None:
        """Have some of the next rows of the stream answered, and compare."""
        before, self.rows = self.rows, self.rows + len(batch)
        ends = (torch.arange(before, self.rows + 1, dtype=torch.float64) * self.share).floor()
        which = torch.nonzero(ends[1:] > ends[:-1]).flatten()
        if not len(which) or batch.ids is None or batch.target is None:
            return
        part = _picked(batch, which.to(batch.ids.device))
        assert self.task.predict is not None
        assert part.ids is not None
        outputs = self.task.predict(model, part, self.schema, quick=self.quick)
        texts = self.task.decode(outputs, self.schema)["text"].tolist()
        right = self.stream.references(part.ids)
        self.texts += texts
        self.references += right
        self.ids.append(part.ids.cpu())
        self.weights.append(None if part.weight is None else part.weight.cpu())
        self.statistics.append([judge.rows(texts, [[r] for r in right])
                                for judge in self.task.judges])  # fmt: skip

    def scores(self) -> dict[str, float]:
        """Return name -> score over the answered rows of all ranks."""
        judges = [judge.metric for judge in self.task.judges]
        states = [metric.init(self.device) for metric in judges]
        for found, weight in zip(self.statistics, self.weights, strict=True):
            for metric, state, rows in zip(judges, states, found, strict=True):
                values = rows.to(self.device, next(iter(state.values())).dtype)
                w = None if weight is None else weight.to(self.device)
                metric.update(state, values, values, w)
        return {name[2:]: value for name, value in read_metrics(judges, states, "m").items()}

    def said(self) -> Said:
        """Return everything that was written."""
        whole = [w for w in self.weights if w is not None]
        rows = {judge.name: torch.cat([found[k] for found in self.statistics])
                for k, judge in enumerate(self.task.judges)} if self.statistics else {}  # fmt: skip
        ids = torch.cat(self.ids).numpy() if self.ids else np.zeros(0, dtype=np.int64)
        return Said(tuple(self.texts), tuple(self.references), rows,
                    torch.cat(whole) if whole else None, ids)  # fmt: skip


def _picked(batch: Batch, which: Tensor) -> Batch:
    """Return these rows of a batch."""

    def pick(values: Tensor | None) -> Tensor | None:
        return None if values is None else values.index_select(0, which)

    inputs = {name: values.index_select(0, which) for name, values in batch.inputs.items()}
    return Batch(inputs, pick(batch.target), pick(batch.weight), pick(batch.ids), batch.rows)
