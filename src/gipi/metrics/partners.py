"""Retrieval among the pairs themselves: every first text looks for its partner among all.

N pairs, D channels.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch.nn import functional as F

if TYPE_CHECKING:
    from torch import Tensor

    from gipi.metrics.metric import Metric, State

CHUNK = 1 << 22  # scores held at once


def among_partners(metric: Metric, *, name: str | None = None) -> Metric:
    """Return a metric of retrieval as one of pairs of embeddings.

    metric  over scores (B, C) and the relevant candidate (B,), such as `mrr`
    name    what it is called; None: as `metric`

    Outputs are (B, 2, D), targets (B,) groups: candidates are the second vectors of all N pairs,
    and those of other rows of the query's group are neither right nor wrong. The state keeps
    the embeddings, N · 2D floats: what is nearest is known when all are there.
    """

    def init(device: torch.device | str) -> State:
        return {
            "pairs": torch.zeros(0, 2, 0, device=device),
            "groups": torch.zeros(0, dtype=torch.int64, device=device),
            "weight": torch.zeros(0, device=device),
        }

    def update(state: State, outputs: Tensor, target: Tensor, weight: Tensor | None) -> None:
        w = torch.ones(len(outputs), device=outputs.device) if weight is None else weight
        pairs = outputs.float()
        old = state["pairs"]
        state["pairs"] = torch.cat([old, pairs]) if len(old) else pairs
        state["groups"] = torch.cat([state["groups"], target])
        state["weight"] = torch.cat([state["weight"], w.float()])

    def compute(state: State) -> float:
        pairs, groups, weight = state["pairs"], state["groups"], state["weight"]
        inner = metric.init(pairs.device)
        if not len(pairs):
            return metric.compute(inner)
        one, two = F.normalize(pairs, dim=2).unbind(1)
        rows = max(1, CHUNK // len(pairs))
        for start in range(0, len(pairs), rows):
            part = slice(start, start + rows)
            own = torch.arange(start, min(start + rows, len(pairs)), device=pairs.device)
            scores = one[part] @ two.t()
            same = groups[part, None] == groups[None, :]
            same[torch.arange(len(own), device=own.device), own] = False
            metric.update(inner, scores.masked_fill(same, -torch.inf), own, weight[part])
        return metric.compute(inner)

    return replace(metric, name=name or metric.name, init=init, update=update, compute=compute)
