"""Rates far too high are named at a tenth of the run, repaired, and undone; high ones that do no
harm are not."""

from __future__ import annotations

from importlib import import_module

import pytest
import torch
from tests.doctor.patients import blobs, experiment, mlp, problems, regression, seen

from gipi.doctor.copies import duplicate
from gipi.doctor.facts import Facts
from gipi.doctor.finding import Finding
from gipi.doctor.play import play
from gipi.doctor.rates import best_rate, paper_rates
from gipi.doctor.rules import lr_too_high
from gipi.doctor.rules.lr_too_high import RULE, during, from_range
from gipi.doctor.trace import Trace


@pytest.mark.parametrize("lr", [10.0, 100.0])
def test_a_rate_far_too_high_is_named_early_and_cured(lr: float) -> None:
    torch.manual_seed(0)
    # Clouds that overlap: a net of huge weights may tell those that do not.
    exp = experiment(mlp(), blobs(apart=1.0), lr=lr, optimizer="adam")
    diagnosis = seen(exp, RULE, train=True)
    first = diagnosis.findings[0]
    assert (first.code, first.severity, first.confirmed) == ("lr_too_high", "problem", True)
    assert first.step <= 0.1 * exp.total_steps + 1
    treatment = diagnosis.repair()
    assert treatment is not None
    assert treatment.cured == ["lr_too_high"]
    assert treatment.after["loss"] < 0.7
    assert treatment.experiment.optimizer.param_groups[0]["lr"] < lr / 5
    assert treatment.undo() is exp


def test_a_loss_that_grows_beyond_numbers_is_named() -> None:
    torch.manual_seed(0)
    exp = experiment(mlp(out=1), regression(), lr=3.0, optimizer="sgd")
    assert problems(exp, RULE, train=True) == ["lr_too_high"]


@pytest.mark.parametrize("lr", [0.03, 0.3])
def test_rates_that_learn_are_left_alone(lr: float) -> None:
    torch.manual_seed(0)
    exp = experiment(mlp(), blobs(), lr=lr, optimizer="sgd" if lr > 0.1 else "adam")
    assert seen(exp, RULE, train=True).findings == []


def test_the_bump_of_one_cycle_is_healthy() -> None:
    torch.manual_seed(0)
    exp = experiment(mlp(), blobs(), lr=0.01)
    exp.scheduler = torch.optim.lr_scheduler.OneCycleLR(
        exp.optimizer, 0.1, total_steps=exp.total_steps + 1
    )
    exp.scheduler_every = "step"
    assert seen(exp, RULE, train=True).findings == []


def test_targets_without_any_pattern_are_no_matter_of_the_rate() -> None:
    torch.manual_seed(0)
    (X, _), (Xv, _) = blobs()
    noise = (X, torch.randint(4, (len(X),))), (Xv, torch.randint(4, (len(Xv),)))
    exp = experiment(mlp(), noise, lr=3e-3)
    assert problems(exp, RULE, train=True) == []


def test_a_rate_from_a_range_test_is_the_highest_of_the_schedule() -> None:
    torch.manual_seed(0)
    exp = experiment(mlp(), blobs(), lr=1e-5, scheduler_every="step")
    exp.scheduler = torch.optim.lr_scheduler.LambdaLR(
        exp.optimizer, lambda i: min(1.0, (i + 1) / 100)
    )
    rate = best_rate(exp)
    from_range(exp)
    planned = paper_rates(exp)
    assert planned is not None
    assert max(planned) == pytest.approx(rate, rel=1e-6)


def test_the_highest_rate_of_a_schedule_is_named() -> None:
    start = Facts(experiment(mlp(), blobs()))
    trace = Trace(40, 20, losses=[1.0, *[9.0] * 39], rates=[0.1, 0.5, *[0.001] * 38])
    (found,) = during(start, trace)
    assert found.evidence["lr"] == 0.5
    assert found.message.startswith("at a learning rate of 0.5 the loss is 9 after 40 steps")


def test_what_was_left_open_at_the_beginning_is_asked_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(lr_too_high, "EARLY_MISSED", torch.inf)  # a tenth of the run never decides
    module = import_module("gipi.doctor.diagnose")
    monkeypatch.setattr(module, "LEAST_PASSES", 130)  # of one question, not of two
    monkeypatch.setattr(module, "SHARE", 0.0)
    torch.manual_seed(0)
    exp = experiment(mlp(), blobs(apart=1.0), lr=10.0, optimizer="adam")
    first = seen(exp, RULE, train=True).findings[0]
    assert (first.code, first.severity, first.confirmed) == ("lr_too_high", "problem", True)
    assert 0.1 * exp.total_steps + 1 < first.step <= 0.25 * exp.total_steps + 1


def test_a_run_that_ends_behind_the_first_steps_of_a_lower_rate_has_too_high_a_one() -> None:
    torch.manual_seed(0)
    exp = experiment(mlp(), blobs(), lr=0.02, epochs=10)
    for lost in (True, False):
        twin = duplicate(exp)
        trace = play(twin)
        assert min(trace.smooth(5)) < 0.3
        if lost:  # what a step far too long does late in a run
            with torch.no_grad():
                for p in twin.model.parameters():
                    p.copy_(p[torch.randperm(len(p), generator=torch.Generator().manual_seed(1))])
            trace.losses[-trace.step // 5 :] = [1.5] * (trace.step // 5)
        facts = Facts(twin, start=Facts(exp))
        found = [RULE.confirm(facts, f) for f in during(facts, trace)]
        assert [f.code for f in found if f is not None] == ["lr_too_high"] * lost


def test_lower_rates_are_tried_for_as_long_as_it_takes_to_come_to_the_worst(monkeypatch) -> None:
    asked = []

    def trial(_facts, _factors, *, steps):
        asked.append(steps)
        raise LookupError

    monkeypatch.setattr(lr_too_high, "lr_trial", trial)
    start = experiment(mlp(), blobs(2000), epochs=12)
    facts = Facts(start, start=Facts(start), allowed=400)
    for worst in (0, 60, 100, 300):
        found = Finding("lr_too_high", "", "", evidence={"steps": 400, "highest_at": worst})
        with pytest.raises(LookupError):
            lr_too_high._from_start(facts, found)
    assert asked == [80, 80, 125, 133]  # as far as can be paid, with two lower rates and itself


def test_where_lower_rates_did_not_win_a_loss_below_zero_is_not_asked_about_again() -> None:
    exp = experiment(mlp(), blobs())
    losses = [-0.4, -0.3, -0.3, *[-2.0, -0.5] * 60]
    trace = Trace(246, 20, losses=losses, rates=[0.01] * len(losses))
    notes = {lr_too_high.SOUND: max(trace.smooth(10))}
    assert list(during(Facts(exp), trace))
    assert list(during(Facts(exp, notes=notes), trace)) == []
    trace.losses[-10:] = [0.5] * 10  # worse has come since
    assert list(during(Facts(exp, notes=notes), trace))
