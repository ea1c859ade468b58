"""The steps between two rows, kept on the device and read once."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from gipi.core import dist
from gipi.core.batch import UNLABELLED, joined

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor, nn

    from gipi.core.schema import Schema
    from gipi.metrics import Metric
    from gipi.tasks import Loss, Task

MEASURED_ROWS = 8192
"""The training metrics of a row are those of the last rows before it, this many at most."""
MEASURED_BYTES = 1 << 25
"""Fewer where their outputs are large: maps of logits would fill the memory."""


@dataclass
class Window:
    """Losses and outputs of the steps since the last row. Nothing here waits for the device."""

    task: Task
    schema: Schema | None
    metrics: list[Metric]
    device: torch.device
    losses: list[tuple[float | Tensor, float | Tensor]] = field(default_factory=list)
    seen: list[tuple[Tensor, Tensor, Tensor | None]] = field(default_factory=list)
    states: list[dict[str, Tensor]] = field(default_factory=list)
    rows: int = 0
    most: int = 0  # rows worth keeping; known once the first outputs were seen

    def add(
        self, total: float | Tensor, loss: Loss, target: Tensor | None, weight: Tensor | None
    ) -> None:
        """Remember one (micro-)batch by reference; its outputs were computed for the loss.

        total  the loss's total, a number where it lies on the host anyway
        """
        self.losses.append((total, loss.count))
        if target is not None and self.metrics:
            self.seen.append((loss.outputs.detach(), target, weight))
            self.rows += target.shape[0]
            if not self.most:
                row = loss.outputs.numel() * loss.outputs.element_size() // target.shape[0]
                fits = max(1, MEASURED_BYTES // max(row, 1))
                self.most = min(MEASURED_ROWS, self.task.measured_rows, fits)
            if self.rows > 2 * self.most:
                self._forget()

    def _forget(self) -> None:
        """Let go of the oldest outputs as long as enough rows remain."""
        first = 0
        while self.rows - len(self.seen[first][1]) >= self.most:
            self.rows -= len(self.seen[first][1])
            first += 1
        del self.seen[:first]

    def flush(self) -> None:
        """Move the remembered outputs into the metric states and let them go."""
        if not self.seen:
            return
        self._forget()
        if len({tuple(target.shape[1:]) for _, target, _ in self.seen}) > 1:  # rows of tokens
            for out, target, weight in self.seen:
                measure(self.task, self.schema, self.metrics, self._states(), out, target, weight)
            self.seen, self.rows = [], 0
            return
        outputs, targets, weights = zip(*self.seen, strict=True)
        out, target, weight = joined(outputs), joined(targets, fill=UNLABELLED), None
        if any(w is not None for w in weights):
            weight = torch.cat(
                [
                    torch.ones(len(o), device=o.device) if w is None else w
                    for o, w in zip(outputs, weights, strict=True)
                ]
            )
        self.seen, self.rows = [], 0
        measure(self.task, self.schema, self.metrics, self._states(), out, target, weight)

    def _states(self) -> list[dict[str, Tensor]]:
        if not self.states:
            self.states = [m.init(self.device) for m in self.metrics]
        return self.states

    def close(self) -> dict[str, float]:
        """Return mean loss and metrics of the window, over all ranks, and begin a new one.

        The loss is that of every row of every step; metrics are of the last `MEASURED_ROWS`.
        """
        self.flush()
        pair = torch.stack([_sum(values, self.device) for values in zip(*self.losses, strict=True)])
        dist.sum_over_ranks(pair)
        row = {"train/loss": float(pair[0] / pair[1])}  # sync
        row.update(read_metrics(self.metrics, self._states(), "train"))
        self.losses, self.states = [], []
        return row


def _sum(values: Sequence[float | Tensor], device: torch.device) -> Tensor:
    """Return the sum of numbers and scalar tensors in float64, on the device."""
    tensors = [v for v in values if isinstance(v, torch.Tensor)]
    total = torch.tensor(
        sum(v for v in values if not isinstance(v, torch.Tensor)),
        dtype=torch.float64, device=device,
    )  # fmt: skip
    return total + torch.stack(tensors).double().sum() if tensors else total


def measure(
    task: Task,
    schema: Schema | None,
    metrics: list[Metric],
    states: list[dict[str, Tensor]],
    outputs: Tensor,
    target: Tensor,
    weight: Tensor | None,
) -> None:
    """Add outputs and targets, in the units of the data, to the metric states."""
    said, truth = task.units(outputs.float(), target, schema)
    for metric, state in zip(metrics, states, strict=True):
        metric.update(state, said, truth, weight)


def read_metrics(
    metrics: list[Metric], states: list[dict[str, Tensor]], prefix: str
) -> dict[str, float]:
    """Return ``{"prefix/name": value}``; states of ranks are summed first, or joined."""
    row = {}
    for metric, state in zip(metrics, states, strict=True):
        whole = state
        if metric.join is None:
            for value in state.values():
                dist.sum_over_ranks(value)
        elif dist.world() > 1:
            whole = metric.join(dist.gather({k: v.cpu() for k, v in state.items()}))
        row[f"{prefix}/{metric.name}"] = metric.compute(whole)
    return row


LAYERS_SHARE = 0.001
"""The look at the layers takes this share of the time: large nets are looked at less often."""


@dataclass
class Layers:
    """Gradient norm and update/weight ratio of each weight matrix, sampled at rows.

    read_s  seconds that the last `read` took
    """

    params: dict[str, nn.Parameter]
    read_s: float = 0.0
    before: list[Tensor] = field(default_factory=list)
    due: float = 0.0
    copied_s: float = 0.0

    def begin(self) -> None:
        """Copy the weights before a step, if a look is due."""
        began, self.before = time.perf_counter(), []
        if began >= self.due:
            self.before = [p.detach().clone() for p in self.params.values()]
            self.copied_s = time.perf_counter() - began

    def read(self) -> dict[str, Any]:
        """Return ``{"layers": {name: {"grad_norm", "update_ratio"}}}``, or nothing."""
        began, self.read_s = time.perf_counter(), 0.0
        if not self.before:
            return {}
        now = list(self.params.values())
        grads = [torch.zeros(()) if p.grad is None else p.grad for p in now]
        moved = torch._foreach_norm(torch._foreach_sub([p.detach() for p in now], self.before))  # noqa: SLF001
        size = torch._foreach_norm(self.before)  # noqa: SLF001
        slope = torch._foreach_norm(grads)  # noqa: SLF001
        self.before = []
        table = torch.stack(
            [torch.stack([t.float().to(moved[0].device) for t in c]) for c in (slope, moved, size)]
        ).tolist()  # sync
        self.read_s = time.perf_counter() - began
        self.due = began + (self.copied_s + self.read_s) / LAYERS_SHARE
        return {
            "layers": {
                name: {"grad_norm": g, "update_ratio": u / w if w > 0 else 0.0}
                for name, g, u, w in zip(self.params, *table, strict=True)
            }
        }
