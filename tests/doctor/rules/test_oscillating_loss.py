"""A loss that swings around what could be lower is named; noise around the lowest is not."""

from __future__ import annotations

import pytest
import torch
from tests.doctor.patients import blobs, experiment, mlp, regression, seen

from gipi.doctor.facts import Facts
from gipi.doctor.rules.oscillating_loss import RULE, during
from gipi.doctor.trace import Trace


def heavy(momentum: float, lr: float):
    torch.manual_seed(0)
    exp = experiment(mlp(out=1), regression(), epochs=20)
    exp.optimizer = torch.optim.SGD(exp.model.parameters(), lr=lr, momentum=momentum)
    return exp


def test_heavy_momentum_that_swings_is_named_and_cured() -> None:
    exp = heavy(0.99, 0.03)
    diagnosis = seen(exp, RULE, train=True)
    first = diagnosis.findings[0]
    assert (first.code, first.severity) == ("oscillating_loss", "problem")
    treatment = diagnosis.repair()
    assert treatment is not None
    assert treatment.proof.holds("better")  # as it was it may have come to no number at all
    assert treatment.undo() is exp


def test_usual_momentum_and_noise_are_left_alone() -> None:
    assert seen(heavy(0.9, 0.02), RULE, train=True).findings == []
    torch.manual_seed(0)
    noisy = experiment(mlp(out=1, hidden=8), regression(noise=2.0), lr=0.01, batch_size=8)
    assert seen(noisy, RULE, train=True).problems == []
    easy = experiment(mlp(), blobs(), lr=0.03, batch_size=4)
    assert seen(easy, RULE, train=True).problems == []


def test_means_of_few_noisy_steps_swing_by_chance_alone() -> None:
    exp = heavy(0.9, 0.02)
    for seed in range(5):
        noise = torch.randn(60, generator=torch.Generator().manual_seed(seed))
        trace = Trace(240, 60, losses=[2.3, 2.3, *(1.0 + 0.5 * noise).tolist()[2:]])
        assert list(during(Facts(exp), trace)) == []
        trace.losses = [1.0 + 0.4 * (i // 3 % 2) + 0.05 * float(v) for i, v in enumerate(noise)]
        assert [f.code for f in during(Facts(exp), trace)] == ["oscillating_loss"]


def test_whole_epochs_of_unlike_batches_swing_by_no_chance() -> None:
    """Every one has each row once: what batches differ by is in all of their means alike."""
    exp = heavy(0.9, 0.02)
    unlike = torch.randn(10, generator=torch.Generator().manual_seed(0)).tolist()
    swing = [2.0 + v + (0.25 if e % 2 else -0.25) for e in range(20) for v in unlike]
    assert [f.code for f in during(Facts(exp), Trace(200, 10, losses=swing))] == [RULE.code]
    even = [2.0 + v for _ in range(20) for v in unlike]
    assert list(during(Facts(exp), Trace(200, 10, losses=even))) == []
    loop = Trace(200, 10, losses=swing, open=True)  # of one's own: what an epoch is nobody knows
    assert list(during(Facts(exp), loop)) == []


def test_a_swing_of_a_few_steps_is_no_noise_of_its_own() -> None:
    exp = heavy(0.9, 0.02)
    for per_epoch, planned in ((2, 400), (150, 400)):
        steps = 200 if per_epoch == 2 else 36
        losses = [3.0] * 4 + [1 + 0.5 * (-1) ** (i // 2) for i in range(steps - 4)]
        trace = Trace(planned, per_epoch, losses=losses)
        assert [f.code for f in during(Facts(exp), trace)] == [RULE.code]


def test_momentum_that_outlasts_the_run_is_named_though_no_epoch_shows_a_swing() -> None:
    exp = heavy(0.99, 0.01)
    steps, trace = exp.total_steps, Trace(exp.total_steps, exp.steps_per_epoch)
    trace.losses, trace.rates = (
        [1.0 - 0.5 * i / steps for i in range(steps // 2)],
        [0.01] * 5 * steps,
    )
    assert [f.evidence["memory"] for f in during(Facts(exp), trace)] == [pytest.approx(100)]
    exp.optimizer.param_groups[0]["momentum"] = 0.95
    assert list(during(Facts(exp), trace)) == []
    exp.optimizer.param_groups[0]["momentum"] = 0.99
    trace.planned *= 10  # a run that is long enough to use it
    trace.losses = [1.0 - 0.05 * i / steps for i in range(5 * steps)]
    assert list(during(Facts(exp), trace)) == []


def test_a_schedule_that_ends_the_swings_by_itself_is_waited_for() -> None:
    exp = heavy(0.99, 0.03)
    steps, trace = exp.total_steps, Trace(exp.total_steps, exp.steps_per_epoch)
    swing = [1.0 + 0.5 * (i // trace.per_epoch % 2) for i in range(steps // 2)]
    trace.losses, trace.rates = swing, [0.03] * len(swing)
    assert list(during(Facts(exp), trace))
    exp.scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(exp.optimizer, 20)
    assert list(during(Facts(exp), trace)) == []
