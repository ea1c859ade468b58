"""Retrieval among the pairs themselves: every first text looks for its partner among all.

N pairs, D channels.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from gipi.metrics.metric import Metric, State

CHUNK = 1 << 22  # scores held at once
PARTS = ("pairs", "groups", "weight")  # of a batch, in the state


def among_partners(metric: Metric, *, name: str | None = None) -> Metric:
    """Return a metric of retrieval as one of pairs of embeddings.

    metric  over scores (B, C) and the relevant candidate (B,), such as `mrr`
    name    what it is called; None: as `metric`

    Outputs are (B, 2, D), targets (B,) groups: candidates are the second vectors of all N pairs,
    and those of other rows of the query's group are neither right nor wrong. The state keeps
    the embeddings, N · 2D floats: what is nearest is known when all are there. So states of ranks
    are put side by side, where those of other metrics are added.
    """

    def init(device: torch.device | str) -> State:  # noqa: ARG001  nothing lies anywhere yet
        return {}

    def update(state: State, outputs: Tensor, target: Tensor, weight: Tensor | None) -> None:
        # A key a batch: growing one tensor would copy all rows in every batch.
        number = len(state) // len(PARTS)
        w = torch.ones(len(outputs), device=outputs.device) if weight is None else weight.float()
        for part, values in zip(PARTS, (outputs.float(), target, w), strict=True):
            state[f"{part} {number}"] = values

    def compute(state: State) -> float:
        number = len(state) // len(PARTS)
        if not number:
            return metric.compute(metric.init("cpu"))
        pairs, groups, weight = (
            torch.cat([state[f"{part} {i}"] for i in range(number)]) for part in PARTS
        )
        inner = metric.init(pairs.device)
        one, two = F.normalize(pairs, dim=2).unbind(1)
        rows = max(1, CHUNK // max(len(pairs), 1))
        for start in range(0, len(pairs), rows):
            part = slice(start, start + rows)
            own = torch.arange(start, min(start + rows, len(pairs)), device=pairs.device)
            scores = one[part] @ two.t()
            same = groups[part, None] == groups[None, :]
            same[torch.arange(len(own), device=own.device), own] = False
            metric.update(inner, scores.masked_fill(same, -torch.inf), own, weight[part])
        return metric.compute(inner)

    def join(states: Sequence[State]) -> State:
        batches = [list(s.values())[i : i + len(PARTS)] for s in states
                   for i in range(0, len(s), len(PARTS))]  # fmt: skip
        return {f"{part} {i}": values for i, batch in enumerate(batches)
                for part, values in zip(PARTS, batch, strict=True)}  # fmt: skip

    return replace(metric, name=name or metric.name, init=init, update=update, compute=compute,
                   join=join)  # fmt: skip
