"""People's own arrays and losses, as they come."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gipi import tasks
from gipi.core.config import Recipe
from gipi.core.errors import DataError, ModelError
from gipi.train import Setup, fit


def train(model: nn.Module, task: Any, data: Any, **more: Any) -> Any:
    """Two plain steps."""
    recipe = Recipe(steps=2, batch_size=8)
    return fit(model, task, data, recipe, setup=Setup(), device="cpu", **more)


def test_several_targets_have_all_metrics() -> None:
    x = torch.randn(40, 3)
    data = (x, x[:, :2])
    state = train(nn.Linear(3, 2), tasks.regress(), data, val=data)
    assert {"val/rmse", "val/mae", "val/r2"} <= set(state.metrics)


def test_tensors_with_a_graph_and_in_half_precision_are_taken() -> None:
    x = torch.randn(16, 3, requires_grad=True)
    assert train(nn.Linear(3, 1), tasks.regress(), (x, x[:, 0])).step == 2
    half = x.detach().bfloat16()
    assert train(nn.Linear(3, 1).bfloat16(), tasks.regress(), (half, half[:, 0])).step == 2


def test_arrays_of_different_lengths_are_named() -> None:
    with pytest.raises(DataError, match="40, 30 rows"):
        train(nn.Linear(3, 1), tasks.regress(), (torch.randn(40, 3), torch.randn(30)))


def test_a_mean_cannot_carry_row_weights() -> None:
    def loss(out: Tensor, target: Tensor) -> Tensor:
        return (out.squeeze(1) - target).square().mean()

    x = torch.randn(16, 3)
    with pytest.raises(ModelError, match="rows that have weights"):
        train(nn.Linear(3, 1), loss, (x, x[:, 0], torch.rand(16)))
