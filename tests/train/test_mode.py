"""Frozen normalisation stays as it is; evaluation gives every module its mode back."""

from __future__ import annotations

import torch
from torch import nn

from gipi.core.config import Recipe
from gipi.train import fit
from gipi.train.mode import eval_mode, train_mode


def net() -> nn.Sequential:
    """Two dense layers with a batch norm after each."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2), nn.BatchNorm1d(2)
    )


def rows() -> tuple[torch.Tensor, torch.Tensor]:
    """32 rows far from mean 0, with their classes."""
    x = torch.randn(32, 3, generator=torch.Generator().manual_seed(1)) + 5
    return x, (x.sum(1) > 15).long()


def test_a_frozen_norm_keeps_its_running_statistics() -> None:
    """The first norm is frozen whole, the second is not; validation runs in between."""
    model = net()
    before = model[1].running_mean.clone()
    recipe = Recipe(epochs=2, batch_size=8, lr=0.01, freeze=("0", "1"))
    fit(model, nn.functional.cross_entropy, rows(), recipe, val=rows())
    assert torch.equal(model[1].running_mean, before)
    assert int(model[1].num_batches_tracked) == 0
    assert int(model[4].num_batches_tracked) > 0


def test_a_norm_with_one_free_parameter_trains() -> None:
    """Freezing the weight alone leaves the layer in training mode."""
    model = net()
    model[1].weight.requires_grad = False
    train_mode(model)
    assert model[1].training
    model[1].bias.requires_grad = False
    train_mode(model)
    assert not model[1].training
    assert model[0].training


def test_eval_mode_restores_each_module() -> None:
    """Modules that were in evaluation mode stay there."""
    model = net()
    model.train()
    model[1].eval()
    with eval_mode(model):
        assert not any(m.training for m in model.modules())
    assert [m.training for m in model] == [True, False, True, True, True]
