"""A copy without a third of the rows goes as the run went, or is not made."""

from __future__ import annotations

import pytest
import torch
from tests.doctor.patients import blobs, experiment, mlp
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, OneCycleLR, ReduceLROnPlateau
from torch.utils.data import DataLoader, TensorDataset

from gipi.doctor.copies import duplicate
from gipi.doctor.experiment import Experiment
from gipi.doctor.facts import Facts
from gipi.doctor.play import play
from gipi.doctor.spared import price, spared


def short(rows: int = 120, **more: object) -> Experiment:
    torch.manual_seed(0)
    X, y = blobs(300)[0]
    return experiment(mlp(), ((X[:rows], y[:rows]), None), epochs=6, **more)  # type: ignore[arg-type]


def scheduled(kind: str, every: str, *, batch_size: int = 120) -> Experiment:
    exp = short(batch_size=batch_size)
    times = exp.total_steps if every == "step" else 6
    exp.scheduler = {
        "one cycle": lambda: OneCycleLR(exp.optimizer, 0.02, total_steps=times),
        "cosine": lambda: CosineAnnealingLR(exp.optimizer, times),
        "plateau": lambda: ReduceLROnPlateau(exp.optimizer),
    }[kind]()
    exp.scheduler_every = every  # type: ignore[assignment]
    return exp


def facts_of(exp: Experiment) -> Facts:
    return Facts(duplicate(exp), start=Facts(exp))


@pytest.mark.parametrize("kind", ["one cycle", "cosine"])
@pytest.mark.parametrize("batch_size", [120, 50])
@pytest.mark.parametrize("every", ["step", "epoch"])
def test_a_schedule_ends_with_the_copy_as_with_the_run(
    kind: str, batch_size: int, every: str
) -> None:
    exp = scheduled(kind, every, batch_size=batch_size)
    run = play(duplicate(exp), quiet=True)
    found = spared(facts_of(exp), longer=every == "step")
    assert found is not None
    assert found[0].rates[-1] == pytest.approx(run.rates[-1])
    if every == "step":
        assert found[0].rates == pytest.approx(run.rates)
    assert spared(facts_of(exp), longer=every == "epoch") is None


def test_rows_that_are_asked_steer_no_schedule() -> None:
    assert spared(facts_of(scheduled("plateau", "epoch"))) is None


def test_a_copy_is_as_long_as_it_is_said_to_be_and_costs_what_it_was_priced() -> None:
    exp = short(batch_size=50)
    for longer in (False, True):
        facts = facts_of(exp)
        found = spared(facts, longer=longer)
        assert found is not None
        assert found[0].step == (18 if longer else 12)
        assert found[0].epochs[-1]["epoch"] == (9 if longer else 6)
        assert facts.passes == price(facts, longer=longer)


def test_no_batch_of_one_row_is_left_to_a_batch_norm() -> None:
    exp = short(batch_size=79)  # 80 of 120 rows are kept
    exp.model = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 4))
    exp.optimizer = torch.optim.Adam(exp.model.parameters(), lr=0.01)
    for train in (exp.train, DataLoader(TensorDataset(*exp.train), 79, shuffle=True)):
        exp.train = train
        found = spared(facts_of(exp))
        assert found is not None
        assert found[0].step == 6
        assert len(found[1].val[1]) == 40


def test_a_copy_that_would_take_no_step_or_fails_is_none() -> None:
    exp = short()
    whole = exp.train
    exp.train = DataLoader(TensorDataset(*whole), 100, shuffle=True, drop_last=True)
    assert spared(facts_of(exp)) is None
    exp = short(batch_size=120)
    weights = torch.ones(120)  # a loss that fits the rows of the run alone
    exp.loss = lambda said, y: (
        weights * nn.functional.cross_entropy(said, y, reduction="none")
    ).mean()
    assert spared(facts_of(exp)) is None
