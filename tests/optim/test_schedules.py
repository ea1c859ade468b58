"""Schedules as functions of progress."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gipi.core.errors import ConfigError, UnknownName
from gipi.optim import SCHEDULES, build_schedule

NAMES = SCHEDULES.names()


@pytest.mark.parametrize("record", list(SCHEDULES), ids=lambda r: r.name)
def test_every_record_says_what_it_is(record):
    assert record.summary
    assert record.citation


@given(
    name=st.sampled_from(NAMES),
    warmup=st.floats(0, 0.9),
    progress=st.floats(0, 1),
)
def test_a_multiplier_is_a_share_and_a_pure_function(name, warmup, progress):
    schedule = build_schedule(name, warmup=warmup)
    assert 0.0 <= schedule(progress) <= 1.0
    assert schedule(progress) == build_schedule(name, warmup=warmup)(progress)


@pytest.mark.parametrize("name", NAMES)
def test_the_peak_is_the_learning_rate_itself(name):
    schedule = build_schedule(name)
    assert max(schedule(i / 1000) for i in range(1001)) == 1.0


@pytest.mark.parametrize(
    ("name", "progress", "expected"),
    [
        ("constant", 0.7, 1.0),
        ("plateau", 0.7, 1.0),
        ("step", 0.4999, 1.0),
        ("step", 0.5, 0.1),
        ("step", 0.75, 0.01),
        ("cosine", 0.0, 1.0),
        ("cosine", 0.5, 0.5),
        ("cosine", 1.0, 0.0),
        ("linear", 0.25, 0.75),
        ("linear", 1.0, 0.0),
        ("exponential", 0.5, 0.1),
        ("exponential", 1.0, 0.01),
        ("one-cycle", 0.0, 0.04),
        ("one-cycle", 0.15, 0.52),
        ("one-cycle", 0.3, 1.0),
        ("one-cycle", 0.65, 0.5),
        ("one-cycle", 1.0, 0.0),
    ],
)
def test_values(name, progress, expected):
    assert build_schedule(name)(progress) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("name", ["cosine", "one-cycle", "linear"])
def test_against_torch(name):
    """The same rates as torch's schedulers over 40 steps (progress = step / 40)."""
    import torch

    steps, optimizer = 40, torch.optim.SGD([torch.zeros(1)], lr=1.0)
    make = {
        "cosine": lambda: torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps),
        "linear": lambda: torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 1e-12, steps),
        "one-cycle": lambda: torch.optim.lr_scheduler.OneCycleLR(
            optimizer, 1.0, total_steps=steps + 1, pct_start=12 / 40 + 1 / 41 - 12 / 40 / 41,
            cycle_momentum=False, final_div_factor=1e12,
        ),
    }  # fmt: skip
    reference = make[name]()
    schedule = build_schedule(name)
    for t in range(steps):
        rate = optimizer.param_groups[0]["lr"]
        assert schedule(t / steps) == pytest.approx(rate, abs=0.02 if name == "one-cycle" else 1e-9)
        optimizer.step()
        reference.step()


def test_warmup_rises_to_the_start_of_the_schedule_and_then_plays_it_in_full():
    plain, warm = build_schedule("cosine"), build_schedule("cosine", warmup=0.2)
    assert warm(0.0) == pytest.approx(0.01)
    assert warm(0.1) == pytest.approx(0.505)
    assert warm(0.2) == 1.0
    for i in range(11):
        assert warm(0.2 + 0.08 * i) == pytest.approx(plain(i / 10), abs=1e-12)


def test_warmup_is_continuous_for_every_schedule():
    for name in NAMES:
        schedule = build_schedule(name, warmup=0.25)
        assert schedule(0.25 - 1e-9) == pytest.approx(schedule(0.25), abs=1e-6)


def test_options_and_own_functions():
    assert build_schedule("step", options={"drops": [0.2], "factor": 0.5})(0.3) == 0.5
    assert build_schedule(lambda p: math.sqrt(1 - p))(0.75) == 0.5


@pytest.mark.parametrize(
    ("name", "options", "warmup", "error", "words"),
    [
        ("cosin", {}, 0.0, UnknownName, "'cosine'"),
        ("cosine", {"endd": 0.1}, 0.0, ConfigError, "'end'"),
        ("constant", {"end": 0.1}, 0.0, ConfigError, "no options"),
        ("cosine", {"end": 2}, 0.0, ConfigError, "end=2"),
        ("cosine", {"end": "low"}, 0.0, ConfigError, "low"),
        ("step", {"drops": [1.5]}, 0.0, ConfigError, "drops=1.5"),
        ("step", {"drops": 3}, 0.0, ConfigError, "drops"),
        ("exponential", {"end": 0}, 0.0, ConfigError, "end=0"),
        ("cosine", {}, 1.0, ConfigError, "warmup=1"),
        ("cosine", {}, -0.1, ConfigError, "warmup=-0.1"),
    ],
)
def test_wrong_requests_are_named(name, options, warmup, error, words):
    with pytest.raises(error, match=words):
        build_schedule(name, warmup=warmup, options=options)
