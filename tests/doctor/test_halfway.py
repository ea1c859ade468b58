"""A run that is far behind at half of its steps is not trained to its end for a comparison."""

from __future__ import annotations

import math

import torch
from tests.doctor.patients import blobs, experiment, mlp

from gipi.doctor.diagnose import Diagnosis
from gipi.doctor.finding import Finding, Repair
from gipi.doctor.halfway import behind
from gipi.doctor.rates import times_lr
from gipi.doctor.trace import Trace


def trace(*losses: float, start: float = 2.0, noise: float = 0.01) -> Trace:
    """A run of four epochs of ten steps, of which the first ones were taken."""
    rows = [
        {"step": 10 * i, "val": v, "val_parts": [v + noise * (k % 3 - 1) for k in range(10)]}
        for i, v in enumerate(losses, 1)
    ]
    return Trace(40, 10, losses=[1.0] * (10 * len(rows)), epochs=rows, start={"val": start})


def test_a_run_that_missed_most_of_the_progress_at_half_is_behind() -> None:
    good = trace(1.0, 0.5, 0.3, 0.2)
    assert behind(trace(2.0, 1.9), good)
    assert behind(trace(2.0, math.nan), good)
    assert not behind(trace(1.9), good)  # a quarter is too early
    assert not behind(trace(1.5, 1.0), good)
    assert not behind(trace(2.0, 1.9), trace(2.0, 1.9, 1.0, 0.2))  # the other learns late as well
    assert not behind(trace(2.0, 1.9), trace(1.0, 0.5, 1.0, 1.8))  # and did not stay so good
    assert not behind(trace(2.0, 1.9, noise=3.0), good)
    assert not behind(trace(2.0, 1.9), trace(1.0, 0.5))  # the other broke off


def treated(lr: float, factor: float, **more):
    torch.manual_seed(0)
    exp = experiment(mlp(), blobs(600), lr=lr, **more)
    change = Repair(f"x {factor:g}", times_lr(factor))
    diagnosis = Diagnosis(exp, [Finding("lr_too_low", "", "", confirmed=True, repairs=(change,))])
    return diagnosis, diagnosis.repair()


def test_it_is_trained_to_half_of_its_steps_and_that_is_said() -> None:
    diagnosis, treatment = treated(1e-5, 1000.0)
    assert treatment is not None
    assert treatment.passes <= 1.6 * diagnosis.experiment.total_steps
    assert "it was far behind" in treatment.grounds[0]
    assert diagnosis.trace is not None
    assert diagnosis.trace.done < 1


def test_it_is_trained_to_its_end_where_the_change_is_no_better_or_its_best_epoch_counts() -> None:
    diagnosis, treatment = treated(0.01, 0.5)
    assert treatment is None
    assert diagnosis.trace is not None
    assert diagnosis.trace.done == 1
    diagnosis, treatment = treated(1e-5, 1000.0, keep_best=True)
    assert treatment is not None
    assert treatment.passes == 2 * diagnosis.experiment.total_steps
