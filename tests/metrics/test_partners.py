"""Every first text looks for its partner among all: batches do not matter, groups are left out."""

from __future__ import annotations

import math

import pytest
import torch

from gipi import metrics
from gipi.metrics import among_partners
from gipi.train import window


def score(metric: metrics.Metric, *parts: tuple[torch.Tensor, torch.Tensor], weight=None) -> float:
    state = metric.init("cpu")
    for outputs, groups in parts:
        metric.update(state, outputs, groups, weight)
    return metric.compute(state)


def pairs(rows: int = 12) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(rows, 2, 5, generator=generator), torch.arange(rows)


def test_all_candidates_count_whatever_the_batches() -> None:
    out, groups = pairs()
    metric = among_partners(metrics.build("mrr"))
    whole = score(metric, (out, groups))
    parts = score(metric, (out[:5], groups[:5]), (out[5:], groups[5:]))
    assert whole == pytest.approx(parts)
    one, two = torch.nn.functional.normalize(out, dim=2).unbind(1)
    scores = one @ two.t()
    places = [1 + int((row > row[i]).sum()) for i, row in enumerate(scores)]
    assert whole == pytest.approx(sum(1 / p for p in places) / len(places))


def test_states_of_ranks_are_put_side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    """Adding them up would add the vectors of one pair to those of another."""
    out, groups = pairs()
    metric = among_partners(metrics.build("mrr"))
    states = []
    for rows in (slice(0, 6), slice(6, 12), slice(0, 0)):
        states.append(metric.init("cpu"))
        if rows.stop:
            metric.update(states[-1], out[rows], groups[rows], None)
    whole = score(metric, (out, groups))
    assert metric.join is not None
    assert metric.compute(metric.join(states)) == pytest.approx(whole)
    monkeypatch.setattr(window.dist, "world", lambda: 3)
    monkeypatch.setattr(window.dist, "gather", lambda mine: [mine, *states[1:]])
    assert window.read_metrics([metric], states[:1], "val") == {"val/mrr": pytest.approx(whole)}


def test_rows_of_one_group_are_no_wrong_partners() -> None:
    a = torch.eye(3)
    out = torch.stack([a, a[[1, 0, 2]]], 1)  # the first two partners are exchanged
    metric = among_partners(metrics.build("recall_at_k", options={"k": 1}), name="recall_at_1")
    assert metric.name == "recall_at_1"
    out[:, 1] += 0.1 * a
    assert score(metric, (out, torch.arange(3))) == pytest.approx(1 / 3)
    assert score(metric, (out, torch.tensor([0, 0, 1]))) == pytest.approx(1.0)


def test_weights_weigh_queries_and_nothing_gives_nan() -> None:
    a = torch.eye(3)
    out = torch.stack([a, a[[1, 0, 2]]], 1)
    metric = among_partners(metrics.build("recall_at_k", options={"k": 1}))
    weight = torch.tensor([0.0, 0.0, 2.0])
    assert score(metric, (out, torch.arange(3)), weight=weight) == pytest.approx(1.0)
    assert math.isnan(metric.compute(metric.init("cpu")))
