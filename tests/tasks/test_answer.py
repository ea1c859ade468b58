"""The task of answering: which span is the best, and when there is none."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from gipi import losses, tasks
from gipi.core.batch import Batch
from gipi.core.errors import ConfigError, ModelError
from gipi.core.schema import Schema
from gipi.tasks.answer import best_span


def ends(rows: int = 6, width: int = 9) -> Tensor:
    """Return logits, closed at 1 and 2 and at the last position."""
    found = torch.randn(rows, width, 2, generator=torch.Generator().manual_seed(0))
    found[:, [1, 2, width - 1]] = -torch.inf
    return found


@pytest.mark.parametrize("longest", [1, 3, 30])
def test_the_best_span_is_that_of_all_spans(longest: int) -> None:
    found = ends()
    said = best_span(found, longest=longest)
    for row in range(len(found)):
        every = {
            (i, j): float(found[row, i, 0] + found[row, j, 1])
            for i in range(1, 9) for j in range(i, min(i + longest, 9))
        }  # fmt: skip
        best = max(every, key=every.__getitem__)
        assert tuple(said[row, :2].int().tolist()) == best
        margin = every[best] - float(found[row, 0].sum())
        assert float(said[row, 2]) == pytest.approx(margin, abs=1e-5)


def test_wider_padding_changes_nothing() -> None:
    closed = torch.full((6, 4, 2), -torch.inf)
    wide = best_span(torch.cat([ends(), closed], 1), longest=5)
    torch.testing.assert_close(wide, best_span(ends(), longest=5))


def test_where_nothing_is_open_the_margin_is_none() -> None:
    shut = torch.full((1, 4, 2), -torch.inf)
    shut[:, 0] = 0
    assert best_span(shut, longest=3).tolist() == [[0.0, 0.0, -float("inf")]]
    assert best_span(torch.zeros(1, 1, 2), longest=3).tolist() == [[0.0, 0.0, -float("inf")]]


class Given(nn.Module):
    def forward(self, tokens: Tensor) -> Tensor:
        return ends(len(tokens))


def test_the_loss_is_that_of_spans() -> None:
    task = tasks.answer(longest=4)
    target = torch.tensor([[3, 4], [0, 0], [5, 5]])
    batch = Batch({"tokens": torch.ones(3, 9, dtype=torch.long)}, target, rows=3)
    loss = task.phases[0].loss(Given(), batch)
    total, count = losses.span(ends(3), target)
    assert float(loss.total) == float(total)
    assert loss.count == count
    assert torch.equal(loss.outputs, task.forward(Given(), batch))
    said = task.decode(loss.outputs, Schema(()))
    assert said["first"].tolist() == loss.outputs[:, 0].int().tolist()
    assert [m.name for m in task.metrics(None)] == [task.primary] == ["span_f1"]


def test_options_and_shapes() -> None:
    assert tasks.build(*tasks.answer(longest=7).spec).spec == ("answer", {"longest": 7})
    with pytest.raises(ConfigError, match="at least one token"):
        tasks.answer(longest=0)
    with pytest.raises(ModelError, match="width 2 over its positions"):
        best_span(torch.zeros(2, 5, 3), longest=3)
