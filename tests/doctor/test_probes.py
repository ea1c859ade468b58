"""Short trainings that differ by one change, and what is read off them."""

from __future__ import annotations

import math

import torch
from tests.doctor.patients import blobs, experiment, mlp
from torch import nn
from torch.optim import lr_scheduler

from gipi.doctor.copies import duplicate
from gipi.doctor.facts import Facts
from gipi.doctor.flow import know_nothing
from gipi.doctor.play import play
from gipi.doctor.probes import Trial, after_steps, compared
from gipi.doctor.rates import lr_trial, times_lr
from gipi.doctor.trials import trial


def made(lr: float = 0.01, **more):
    torch.manual_seed(0)
    return experiment(mlp(), blobs(), lr=lr, **more)


def test_a_trial_is_the_beginning_of_the_run_with_its_schedule() -> None:
    exp = made()
    exp.scheduler, exp.scheduler_every = lr_scheduler.ExponentialLR(exp.optimizer, 0.9), "step"
    losses, twin = after_steps(exp, 30)
    assert losses == play(duplicate(exp)).losses[:30]
    assert math.isclose(twin.optimizer.param_groups[0]["lr"], 0.01 * 0.9**30)
    assert exp.optimizer.param_groups[0]["lr"] == 0.01


def test_rates_are_multiplied_in_every_schedule() -> None:
    for make in (
        lambda o: lr_scheduler.OneCycleLR(o, 0.1, total_steps=100),
        lambda o: lr_scheduler.CosineAnnealingLR(o, 50, eta_min=1e-4),
        lambda o: lr_scheduler.SequentialLR(
            o, [lr_scheduler.LinearLR(o, 0.1), lr_scheduler.StepLR(o, 10)], [20]
        ),
    ):
        exp = made()
        exp.scheduler, exp.scheduler_every = make(exp.optimizer), "step"
        one, two = duplicate(exp), duplicate(exp)
        times_lr(0.1)(two)
        a, b = play(one, steps=60, quiet=True).rates, play(two, steps=60, quiet=True).rates
        assert all(math.isclose(y, 0.1 * x, rel_tol=1e-6) for x, y in zip(a, b, strict=True))


def test_progress_that_is_missed() -> None:
    def trial(begin: float, **ends: float) -> Trial:
        tails = {k: [v, v] for k, v in ends.items()}
        return Trial(begin, tails, dict.fromkeys(ends, begin), {})

    assert trial(2.0, own=1.5, other=1.0).missed("own", "other") == 0.5
    assert trial(2.0, own=1.0, other=1.5).missed("own", "other") < 0
    assert trial(2.0, own=math.inf, other=1.5).missed("own", "other") == math.inf
    little = trial(2.0, own=2.0, other=1.9).missed("own", "other")
    assert math.isclose(little, 0.25)  # of a fifth of the loss
    assert trial(2.0, own=1.5, other=1.0).best() == "other"
    assert trial(2.0, own=math.inf, other=1.0).sure("own", "other")
    assert not trial(2.0, own=1.0, other=1.5).sure("own", "other")
    wild = Trial(2.0, {"own": [900.0, 40.0, 9.0, 3.0, 2.1], "other": [1.0] * 5}, {}, {})
    assert wild.sure("own", "other")
    assert not wild.sure("other", "own")


def test_the_same_rates_are_tried_once_for_all_rules() -> None:
    facts = Facts(made())
    lr_trial(facts, (0.1,), steps=20)
    spent = facts.passes
    lr_trial(facts, (0.1,), steps=20)
    assert facts.passes == spent
    trial = lr_trial(facts, (0.1, 0.01), steps=20)
    assert facts.passes == spent + 20
    assert set(trial.tails) == {1.0, 0.1, 0.01}


def test_the_experiment_stays_as_it_was() -> None:
    exp = made()
    before = [p.detach().clone() for p in exp.model.parameters()]
    compared(exp, {"own": None, "hot": times_lr(100.0)}, steps=10)
    assert all(torch.equal(a, b) for a, b in zip(before, exp.model.parameters(), strict=True))
    assert exp.optimizer.state_dict()["state"] == {}


def test_the_best_answer_that_knows_nothing() -> None:
    (_, y), _ = blobs()
    told = know_nothing(Facts(made()))
    p = torch.bincount(y) / len(y)
    assert math.isclose(told, float(-(p * p.log()).sum()), rel_tol=1e-5)


def test_knowing_nothing_is_measured_by_the_loss_itself() -> None:
    (_, y), _ = blobs()
    p = torch.bincount(y) / len(y)
    exp = made()
    exp.loss = nn.CrossEntropyLoss(reduction="sum")
    told = know_nothing(Facts(exp))
    assert math.isclose(told, -exp.batch_size * float((p * p.log()).sum()), rel_tol=1e-4)
    weight = torch.tensor([1.0, 9.0, 1.0, 1.0])
    exp.loss = nn.CrossEntropyLoss(weight)
    q = weight * p / (weight * p).sum()
    assert math.isclose(know_nothing(Facts(exp)), -float((q * q.log()).sum()), rel_tol=1e-4)
    exp.loss = nn.CrossEntropyLoss(label_smoothing=0.5)
    q = 0.5 * p + 0.5 / len(p)
    assert math.isclose(know_nothing(Facts(exp)), -float((q * q.log()).sum()), rel_tol=1e-4)


def test_the_training_without_a_change_is_run_once() -> None:
    facts = Facts(made())
    one, passes = trial(facts, 10), facts.passes
    assert trial(facts, 10) is one
    assert facts.passes == passes
    assert trial(facts, 10, change=times_lr(0.1)) is not one
    later = Facts(made(), start=facts)
    assert trial(later, 10) is not trial(later, 10)  # weights may have moved in between
