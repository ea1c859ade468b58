"""Spans of tokens: how far the answer that was found and the true one overlap.

B windows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gipi.metrics.metric import Metric, State, add, add_rows, ratio, zeros

if TYPE_CHECKING:
    from torch import Tensor


def span_f1(classes: int = 0) -> Metric:  # noqa: ARG001  one signature for all builders
    """Return the mean F1 of the tokens of found and true spans, over windows that hold the answer.

        F1 = 2 shared / (found + true), tokens from first to last

    outputs  (B, 2 or more) first and last token in the first two columns
    target   (B, 2) int64 first and last token; 0 and 0: the window has no answer and counts nowhere

    For choosing weights while a run goes on; what is reported is `answer_f1`, over questions and in
    words. NaN where no window holds an answer.
    """

    def update(state: State, outputs: Tensor, target: Tensor, weight: Tensor | None) -> None:
        first, last = outputs[:, 0], outputs[:, 1]
        begin, end = target[:, 0].to(first.dtype), target[:, 1].to(first.dtype)
        shared = (last.minimum(end) - first.maximum(begin) + 1).clamp_min(0)
        both = (last - first + 1) + (end - begin + 1)
        holds = (target[:, 0] > 0).to(outputs.dtype)
        counted = holds if weight is None else holds * weight
        add(state, "f1", 2 * shared / both, counted)
        add_rows(state, "rows", len(target), counted)

    return Metric("span_f1", greater_is_better=True, init=zeros({"f1": (), "rows": ()}),
                  update=update, compute=lambda state: ratio(state, "f1", "rows"))  # fmt: skip
