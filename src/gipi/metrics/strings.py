"""Metrics over texts: a row's strings become a few numbers, and these add up like any metric's.

A device cannot compare strings, so such a metric has two steps. `statistics` turns one answer and
its references into S numbers, on the host, once a row; `metric` is an ordinary `Metric` whose
outputs are those (B, S) numbers. So its state has a fixed size, ranks add theirs, row weights
count, and an interval resamples rows without comparing a text twice.

B rows, S statistics.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence  # noqa: TC003  a dataclass shows its field types
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from gipi.core.errors import DataError
from gipi.metrics.metric import Metric, State, zeros

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class TextMetric:
    """A named number over answers and references, and whether more of it is better.

    statistics  (answer, references) -> S numbers of one row
    metric      adds up (B, S) statistics; its target is not looked at
    """

    name: str
    statistics: Callable[[str, Sequence[str]], tuple[float, ...]]
    metric: Metric

    @property
    def greater_is_better(self) -> bool:
        """Whether more of it is better."""
        return self.metric.greater_is_better

    def rows(self, answers: Sequence[str], references: Sequence[Sequence[str]]) -> Tensor:
        """Return (B, S) float64 statistics, the outputs that `metric` takes.

        references  for each answer the texts that are right: one or several; what none at all means
                    is said by the metric

        Raises `DataError` where answers and references differ in number, and where the references
        of a row are one string instead of a list of strings.
        """
        if len(answers) != len(references):
            raise DataError(
                f"{len(answers)} answers and {len(references)} rows of references",
                "one list of references for each answer",
                "check that nothing was dropped on either side",
            )
        for row, right in enumerate(references, 1):
            if isinstance(right, str):
                raise DataError(
                    f"row {row}: the references are one string, {right[:40]!r}",
                    "a list of strings",
                    "put it into a list: its characters would each count as a reference",
                )
        found = [self.statistics(a, r) for a, r in zip(answers, references, strict=True)]
        return torch.tensor(found, dtype=torch.float64).reshape(len(found), -1)

    def score(
        self,
        answers: Sequence[str],
        references: Sequence[Sequence[str]],
        *,
        weight: Tensor | None = None,
    ) -> float:
        """Return the number over all rows; NaN without any."""
        state = self.metric.init("cpu")
        if len(answers) or len(references):
            found = self.rows(answers, references)
            self.metric.update(state, found, found, weight)
        return self.metric.compute(state)


def summed(
    name: str, size: int, compute: Callable[[Tensor], float], *, greater_is_better: bool = True
) -> Metric:
    """Return the metric that adds up (B, S) statistics and computes its number from their sums."""

    def update(state: State, outputs: Tensor, target: Tensor, weight: Tensor | None) -> None:
        del target
        total = state["statistics"]
        values = outputs.to(total.dtype)
        total.add_((values if weight is None else values * weight.to(total.dtype)[:, None]).sum(0))

    return Metric(
        name,
        greater_is_better=greater_is_better,
        init=zeros({"statistics": (size,)}),
        update=update,
        compute=lambda state: compute(state["statistics"].cpu()),
    )


def mean(name: str, score: Callable[[str, Sequence[str]], float]) -> TextMetric:
    """Return the metric that is the mean of a score of single rows."""

    def compute(sums: Tensor) -> float:
        total, count = sums.tolist()
        return total / count if count else float("nan")

    return TextMetric(name, lambda answer, right: (score(answer, right), 1.0),
                      summed(name, 2, compute))  # fmt: skip
