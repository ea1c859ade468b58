"""A schedule that is used up in a tenth of the run is seen on paper; usual ones are not."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tests.doctor.patients import blobs, experiment, halves, mlp, regression, seen
from torch.optim import lr_scheduler

from gipi.doctor.facts import Facts
from gipi.doctor.probes import Trial
from gipi.doctor.rates import paper_rates
from gipi.doctor.rules import lr_decay_too_fast as rule
from gipi.doctor.rules.lr_decay_too_fast import (
    RULE,
    STRETCHED,
    TRIED,
    before,
    confirm,
    cost,
    during,
)
from gipi.doctor.schedules import constant
from gipi.doctor.trace import Trace


def scheduled(make, every="step", lr=3e-3):
    torch.manual_seed(0)
    exp = experiment(mlp(), blobs(), lr=lr)
    exp.scheduler, exp.scheduler_every = make(exp.optimizer), every
    return exp


def test_an_epochs_decay_made_every_step_is_named_before_the_first() -> None:
    exp = scheduled(lambda o: lr_scheduler.ExponentialLR(o, 0.8))
    before = exp.scheduler.state_dict()
    diagnosis = seen(exp, RULE)
    first = diagnosis.findings[0]
    assert (first.code, first.severity, first.phase) == ("lr_decay_too_fast", "problem", "before")
    assert first.advice.startswith("call scheduler.step() once an epoch, not after every batch")
    assert exp.scheduler.state_dict() == before
    assert exp.optimizer.param_groups[0]["lr"] == 3e-3
    treatment = diagnosis.repair()
    assert treatment is not None
    assert treatment.after["loss"] < 0.5 * treatment.before["loss"]
    assert treatment.undo() is exp


def test_a_schedule_that_is_too_fast_by_epochs_too_is_to_be_stretched() -> None:
    exp = scheduled(lambda o: lr_scheduler.ExponentialLR(o, 0.3))
    (found,) = RULE.before(Facts(exp))
    assert found.advice.startswith("stretch the schedule over the whole run")


@pytest.mark.parametrize(("factor", "found"), [(1 / 6, True), (1 / 3, False)])
def test_few_epochs_that_each_take_most_of_the_rate_are_asked_about(factor, found) -> None:
    """Six epochs with a sixth of the rate before: its mean is a fifth of the highest."""
    torch.manual_seed(0)
    exp = experiment(mlp(), blobs(), lr=3e-3, epochs=6)
    exp.scheduler = lr_scheduler.ExponentialLR(exp.optimizer, factor)
    assert bool(list(RULE.before(Facts(exp)))) is found


@pytest.mark.parametrize(
    "make",
    [
        lambda o: lr_scheduler.CosineAnnealingLR(o, 120),
        lambda o: lr_scheduler.OneCycleLR(o, 0.01, total_steps=200),
        lambda o: lr_scheduler.StepLR(o, 60, 0.1),
        lambda o: lr_scheduler.CosineAnnealingWarmRestarts(o, 30),
        lambda o: lr_scheduler.ReduceLROnPlateau(o, patience=2),
    ],
)
def test_usual_schedules_are_left_alone(make) -> None:
    assert seen(scheduled(make), RULE).findings == []


def test_a_fast_decay_that_sufficed_is_healthy() -> None:
    exp = scheduled(lambda o: lr_scheduler.ExponentialLR(o, 0.4), "epoch", lr=0.05)
    assert seen(exp, RULE).findings == []


def waiting(splits, **more):
    torch.manual_seed(0)
    width = splits[0][0].shape[1]
    model = mlp(width) if splits[0][1].dtype == torch.int64 else mlp(width, 1)
    exp = experiment(model, splits, lr=3e-3, epochs=20)
    exp.scheduler = lr_scheduler.ReduceLROnPlateau(exp.optimizer, **more)
    return exp


def test_a_schedule_that_gives_up_is_named_as_the_run_goes() -> None:
    g = torch.Generator().manual_seed(0)  # what is learned more is learned for new rows, too
    X = torch.randn(600, 4, generator=g)
    exp = waiting(halves(X, 2 * X.sum(1, keepdim=True).tanh()), patience=0, threshold=0.9)
    diagnosis = seen(exp, RULE, train=True)
    first = diagnosis.findings[0]
    assert (first.code, first.severity, first.phase) == ("lr_decay_too_fast", "problem", "epoch")
    assert first.confirmed
    treatment = diagnosis.repair()
    assert treatment is not None
    assert treatment.proof.holds("better")
    assert treatment.undo() is exp


def test_what_no_validation_row_proves_is_a_hint() -> None:
    exp = waiting(regression(), patience=0, threshold=0.3)
    exp.val = None
    found = seen(exp, RULE, train=True).findings
    assert [(f.code, f.severity) for f in found] == [("lr_decay_too_fast", "hint")]


@pytest.mark.parametrize("splits", [blobs(), regression(noise=2.0)])
def test_a_rate_that_fell_where_the_loss_stood_is_healthy(splits) -> None:
    exp = waiting(splits, patience=1, threshold=1e-3)
    exp.optimizer.param_groups[0]["lr"] = 0.02
    assert seen(exp, RULE, train=True).findings == []


def test_a_schedule_that_is_too_fast_on_paper_is_asked_again_at_the_end_for_longer() -> None:
    exp = scheduled(lambda o: lr_scheduler.ExponentialLR(o, 0.5), "step")
    facts = Facts(exp, start=Facts(exp))
    total = exp.total_steps
    rates = [3e-3 * 0.5**i for i in range(total)]
    half, whole = (
        Trace(total, exp.steps_per_epoch, losses=[1.0] * n, rates=rates[:n])
        for n in (total // 2, total)
    )
    (found,) = during(facts, half)
    facts.notes[TRIED] = found.evidence["tried"]
    assert list(during(facts, half)) == []
    (again,) = during(facts, whole)
    assert again.evidence["tried"] >= 1.5 * found.evidence["tried"]
    assert RULE.cost(facts, again) == 2 * again.evidence["tried"] + 2
    waits = scheduled(lr_scheduler.ReduceLROnPlateau)  # it has waited for the loss
    facts = Facts(waits, start=Facts(waits), notes={TRIED: found.evidence["tried"]})
    assert list(during(facts, whole)) == []


def test_one_rate_for_the_whole_run_keeps_the_proportions_of_groups() -> None:
    exp = waiting(blobs(), patience=0)
    exp.optimizer.add_param_group({"params": [torch.zeros(2, requires_grad=True)], "lr": 6e-3})
    assert constant(0.01)(exp) == "the learning rate stays at 0.01"
    assert exp.scheduler is None
    assert [g["lr"] for g in exp.optimizer.param_groups] == pytest.approx([0.01, 0.02])


def test_rates_on_paper_are_those_of_the_run() -> None:
    exp = scheduled(lambda o: lr_scheduler.StepLR(o, 1, 0.5), "epoch")
    rates = paper_rates(exp)
    assert rates is not None
    assert len(rates) == exp.total_steps
    assert rates[0] == 3e-3
    assert rates[exp.steps_per_epoch] == 1.5e-3


@pytest.mark.parametrize(("reached", "again"), [(0.985, True), (0.999, False)])
def test_a_schedule_that_a_longer_one_beat_by_too_little_is_asked_about_again(
    monkeypatch, reached, again
) -> None:
    tails = {"own": [1.0] * 9, "stretched": [reached] * 9}
    trial = Trial(1.0, tails, {"own": 1.0, "stretched": 1.0}, {})
    monkeypatch.setattr(rule, "compared", lambda *_, **__: trial)
    facts = Facts(scheduled(lambda o: lr_scheduler.ExponentialLR(o, 0.8)))
    (finding,) = before(facts)
    assert confirm(facts, finding) is None
    later = replace(finding, phase="epoch", evidence={**finding.evidence, "tried": 30})
    assert (cost(facts, later) == 0) is again
    assert cost(facts, finding) > 0


@pytest.mark.parametrize("noise", [0.0, 1.0])
def test_a_low_loss_that_a_longer_schedule_had_sooner_is_named_at_the_end(noise: float) -> None:
    g = torch.Generator().manual_seed(0)
    X = torch.randn(600, 4, generator=g)
    y = X.sum(1, keepdim=True) / 2 + noise * torch.randn(600, 1, generator=g)
    torch.manual_seed(0)
    exp = experiment(mlp(4, 1), halves(X, y), epochs=60)
    exp.scheduler = lr_scheduler.StepLR(exp.optimizer, 4, 0.2)
    diagnosis = seen(exp, RULE, train=True)
    if noise:  # a longer schedule learns no more
        assert diagnosis.findings == []
        return
    first = diagnosis.findings[0]
    assert (first.code, first.severity, first.phase) == ("lr_decay_too_fast", "problem", "epoch")
    assert 0 < first.evidence["loss_of_the_end"] < 0.01
    assert first.evidence["loss_stretched"] < 0.7 * first.evidence["loss_of_the_end"]
    treatment = diagnosis.repair()
    assert treatment is not None
    assert treatment.after["loss"] < 0.5 * treatment.before["loss"]
    assert treatment.undo() is exp


def test_a_short_training_that_is_kept_holds_one_net_where_somebody_will_ask_it() -> None:
    for held in (True, False):
        g = torch.Generator().manual_seed(0)
        X = torch.randn(600, 4, generator=g)
        y = X.sum(1, keepdim=True) / 2 + torch.randn(600, 1, generator=g)
        torch.manual_seed(0)
        train, val = halves(X, y)
        exp = experiment(mlp(4, 1), (train, val if held else None), epochs=60)
        exp.scheduler = lr_scheduler.StepLR(exp.optimizer, 4, 0.2)
        facts = Facts(exp)
        (finding,) = RULE.before(facts)
        assert confirm(facts, finding) is None
        kept = facts.notes.get(STRETCHED)
        assert (list(kept.twins) if kept is not None else []) == ["stretched"] * held
