"""Running statistics: untouched by steps left out, refused where there are none to take."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from gipi import tasks
from gipi.core.config import Recipe
from gipi.core.errors import ConfigError
from gipi.train import Setup, fit
from gipi.train.kept import kept_of
from tests.train.work import columns, run


def test_a_bad_batch_leaves_the_running_statistics_alone() -> None:
    data = columns()
    data.inputs["numbers"][3] = torch.nan
    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))
    state = run(model, data)
    assert state.skipped > 0
    assert all(bool(b.isfinite().all()) for b in model.buffers())
    assert state.history[-1]["val/loss"] < 10


def test_on_a_device_a_flag_decides() -> None:
    model = nn.Sequential(nn.BatchNorm1d(3), nn.BatchNorm1d(2))
    kept = kept_of(model)
    assert kept is not None
    before = [b.clone() for b in kept.buffers]
    for flag in (0.0, 1.0):
        kept.keep()
        for b in kept.buffers:
            b.add_(1.0)
        kept.restore(torch.tensor(flag))
        expected = [b + (1.0 - flag) for b in before]
        assert all(torch.equal(b, e) for b, e in zip(kept.buffers, expected, strict=True))
        for b, old in zip(kept.buffers, before, strict=True):
            b.copy_(old)


def test_models_without_statistics_keep_nothing() -> None:
    assert kept_of(nn.Linear(2, 2)) is None


@pytest.mark.parametrize(("rows", "batch", "micro"), [(33, 32, None), (20, 20, 19)])
def test_a_last_batch_of_one_row_is_refused_by_name(
    rows: int, batch: int, micro: int | None
) -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
    recipe = Recipe(steps=2, batch_size=batch, micro_batch=micro, accept_mixing=True)
    given = (torch.randn(rows, 3), torch.randn(rows))
    with pytest.raises(ConfigError, match="one row"):
        fit(model, tasks.regress(), given, recipe, setup=Setup(), device="cpu")


def test_one_row_of_an_image_is_enough() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(32, 1))
    before = [b.clone() for b in model.buffers()]
    recipe = Recipe(steps=1, batch_size=4, optimizer="sgd", lr=1e-3)
    x = torch.randn(5, 1, 4, 4)
    fit(model, tasks.regress(), (x, torch.randn(5)), recipe, setup=Setup(), device="cpu")
    assert int(model.get_buffer("1.num_batches_tracked")) >= 1
    assert not torch.equal(model.get_buffer("1.running_mean"), before[0])
