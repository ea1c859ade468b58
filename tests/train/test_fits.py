"""What does not fit is said in words before the first step."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

import gipi
from gipi import tasks
from gipi.core.errors import DataError, ModelError
from gipi.train.fits import check_fits
from gipi.train.inputs import as_stream
from gipi.train.kept import check_last_batch
from gipi.train.precision import Setup

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


def test_the_label_of_unmarked_pixels_is_a_fault_where_rows_have_one_label() -> None:
    """255 means "ignored" in masks alone: a class 255 of ten outputs would end the run."""
    y = Y.copy()
    y[7] = 255
    with pytest.raises(DataError, match="row 8 has the label 255"):
        fit(nn.Linear(6, 3), y)


class Remembers(nn.Module):
    """A module whose forward pass leaves traces: counts, statistics, first-batch scaling."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 3)
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))
        self.register_buffer("turned", torch.zeros(4, 6).t())
        self.register_buffer("large", torch.zeros(70_000))
        self.register_buffer("again", torch.zeros(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            if int(self.calls) == 0:
                self.layer.weight.mul_(2.0)  # as data-dependent initialisations do
            self.calls += 1
            self.turned += 1
            self.large += 1
            self.again = self.again + 1
        return self.layer(x)


@pytest.mark.parametrize("batch_norm", [False, True])
def test_the_checks_leave_no_trace_in_the_model(batch_norm: bool) -> None:
    torch.manual_seed(0)
    model: nn.Module = Remembers()
    if batch_norm:  # of 33 rows the last batch holds one: whether that works is tried
        model = nn.Sequential(nn.Unflatten(1, (1, 6)), nn.BatchNorm1d(1, momentum=None),
                              nn.Flatten(), model)  # fmt: skip
    task, x = tasks.classify(), torch.randn(33, 6)
    stream = as_stream((x.numpy(), Y[:33]), gipi.Recipe(batch_size=8), torch.device("cpu"),
                       shuffle=False)  # fmt: skip
    first = next(iter(stream.epoch(0)))
    before, drawn = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    check_fits(model, task, stream, first)
    check_last_batch(model, task, stream, gipi.Recipe(batch_size=8), first)
    after = model.state_dict()
    assert [k for k in before if not torch.equal(before[k], after[k])] == []
    assert torch.equal(torch.get_rng_state(), drawn)


def test_a_loss_that_needs_rows_in_pairs_is_no_misfit() -> None:
    """One row alone cannot be told apart from its pair: the batch as it is decides."""

    def paired(outputs: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        one, two = outputs.chunk(2)
        return ((one - two) ** 2).mean() + 0 * target.sum()

    recipe = gipi.Recipe(steps=1, batch_size=8, precision="fp32", threads=1, gemm="native")
    gipi.fit(nn.Linear(6, 3), paired, (X, Y), recipe, device="cpu")


def test_weights_in_bf16_fit_where_the_run_casts_its_inputs() -> None:
    recipe = gipi.Recipe(steps=1, batch_size=8, precision="bf16", threads=1, gemm="native",
                         optimizer="sgd")  # fmt: skip
    gipi.fit(nn.Linear(6, 3).bfloat16(), tasks.classify(), (X, Y), recipe, device="cpu",
             setup=Setup(precision="bf16"))  # fmt: skip
