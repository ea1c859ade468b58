"""What does not fit is said in words before the first step."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import gipi
from gipi import tasks
from gipi.core.errors import DataError, ModelError

X = np.random.default_rng(0).normal(size=(40, 6)).astype("float32")
Y = np.arange(40) % 3


def fit(model: nn.Module, y: np.ndarray = Y, task: object = None) -> object:
    recipe = gipi.Recipe(steps=1, batch_size=8, precision="fp32", threads=1, gemm="native")
    return gipi.fit(model, task or tasks.classify(), (X, y), recipe, device="cpu")


def test_a_wrong_input_width_is_named() -> None:
    with pytest.raises(ModelError) as caught:
        fit(nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3)))
    assert "Sequential cannot take these inputs (numbers float32 (B, 6))" in caught.value.found
    assert "first layer" in caught.value.needed


@pytest.mark.parametrize(("label", "words"), [(3, "label 3"), (-1, "label -1")])
def test_a_label_beyond_the_outputs_is_named_with_its_row(label: int, words: str) -> None:
    y = Y.copy()
    y[33] = label
    with pytest.raises(DataError) as caught:
        fit(nn.Linear(6, 3), y)
    assert f"row 34 has the {words}" in caught.value.found
    assert "labels from 0 to 2" in caught.value.needed


def test_a_loss_that_cannot_compare_is_named() -> None:
    with pytest.raises(ModelError, match="cannot compare outputs"):
        fit(nn.Linear(6, 3), np.ones((40, 7), dtype="float32"), tasks.classify())


def test_a_fitting_model_is_left_as_it_was() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Dropout(), nn.Linear(8, 3))
    fit(model)
    assert int(model[1].num_batches_tracked) == 1  # one step, and no pass before it


def test_labels_that_losses_pass_over_are_no_fault() -> None:
    y = Y.copy()
    y[5] = -100
    fit(nn.Linear(6, 3), y)
