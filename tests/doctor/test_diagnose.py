"""From an experiment to a proof: what is found, what is left as it was, what is kept."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch import nn

from gipi.doctor import Experiment, diagnose
from gipi.doctor.copies import duplicate, restore, save
from gipi.doctor.facts import Facts
from gipi.doctor.finding import Finding
from gipi.doctor.play import play
from gipi.doctor.rules import lr_too_high, plateau, underfit
from gipi.doctor.trace import Trace


def blobs(rows: int = 600, classes: int = 4, width: int = 8, seed: int = 0):
    """Return classes as clouds around random centres."""
    generator = torch.Generator().manual_seed(seed)
    centres = 2.0 * torch.randn(classes, width, generator=generator)
    y = torch.randint(classes, (rows,), generator=generator)
    X = centres[y] + torch.randn(rows, width, generator=generator)
    return (X[: rows // 2], y[: rows // 2]), (X[rows // 2 :], y[rows // 2 :])


def experiment(lr: float = 0.1, *, scale: float = 1.0, softmax: bool = False, **more) -> Experiment:
    """Return an MLP on clouds."""
    torch.manual_seed(0)
    train, val = blobs()
    layers = [nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 4), *([nn.Softmax(-1)] if softmax else [])]
    model = nn.Sequential(*layers)
    return Experiment(
        model,
        train=(train[0] * scale, train[1]),
        val=(val[0] * scale, val[1]),
        loss=nn.CrossEntropyLoss(),
        optimizer=torch.optim.SGD(model.parameters(), lr=lr),
        **{"epochs": 8, **more},
    )


def weights(exp: Experiment) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in exp.model.parameters()])


def test_a_healthy_run_is_left_alone_and_as_it_was() -> None:
    exp = experiment()
    before, grads = weights(exp), [p.grad for p in exp.model.parameters()]
    rng = torch.get_rng_state()
    diagnosis = diagnose(exp)
    assert diagnosis.findings == []
    assert not diagnosis.broken
    assert torch.equal(weights(exp), before)
    assert [p.grad for p in exp.model.parameters()] == grads
    assert torch.equal(torch.get_rng_state(), rng)
    assert diagnosis.repair() is None
    assert diagnosis.why_not == ("nothing was found that needs a repair")


def test_a_rate_a_hundred_times_too_high_is_named_repaired_and_undone() -> None:
    exp = experiment(lr=30.0)
    before = weights(exp)
    diagnosis = diagnose(exp)
    first = diagnosis.findings[0]
    assert (first.code, first.severity, first.confirmed) == ("lr_too_high", "problem", True)
    treatment = diagnosis.repair()
    assert treatment is not None
    assert treatment.cured == ["lr_too_high"]
    assert not treatment.before["score"] >= treatment.after["score"]  # NaN before
    assert treatment.after["score"] > -0.5
    assert torch.equal(weights(exp), before)
    assert torch.equal(weights(treatment.undo()), before)


def test_a_softmax_before_cross_entropy_is_found_before_the_first_step() -> None:
    diagnosis = diagnose(experiment(softmax=True))
    assert [f.code for f in diagnosis.problems] == ["double_softmax"]
    assert diagnosis.trace is None
    treatment = diagnosis.repair()
    assert treatment is not None
    assert treatment.proof.gain > 0
    assert treatment.after["loss"] < treatment.before["loss"]


def test_a_copy_trains_as_the_original_would() -> None:
    exp = experiment(scale=1.0)
    exp.scheduler = torch.optim.lr_scheduler.StepLR(exp.optimizer, 1, 0.5)
    twin = duplicate(exp)
    saved = save(exp)
    play(exp), play(twin)
    assert torch.equal(weights(exp), weights(twin))
    assert exp.optimizer.param_groups[0]["lr"] == twin.optimizer.param_groups[0]["lr"] < 0.1
    restore(exp, saved)
    assert exp.optimizer.param_groups[0]["lr"] == 0.1
    play(exp)
    assert torch.equal(weights(exp), weights(twin))


@pytest.mark.parametrize(("promised", "stays"), [(1.2, False), (1e-4, True)])
def test_a_standstill_that_the_run_left_by_itself_is_taken_back(promised, stays) -> None:
    def half_way(_: Facts, trace: Trace) -> Iterator[Finding]:
        if trace.done < 1:
            evidence = {"loss_at": {"1.0": 1.3, "8.0": promised}}
            yield Finding("plateau", "stands still", "go on", evidence=evidence, confirmed=True)

    rule = replace(plateau.RULE, during=half_way, confirm=None)
    found = diagnose(experiment(), rules=(rule,)).findings
    assert [f.code for f in found] == ["plateau"] * stays


@pytest.mark.parametrize("lr", [0.1, 1e-5])
def test_a_net_that_learns_late_is_not_called_too_small(lr) -> None:
    def half_way(_: Facts, trace: Trace) -> Iterator[Finding]:
        if trace.done < 1:
            evidence = {"net_on_training_rows": 0.3, "simple_on_new_rows": 0.9}
            yield Finding("underfit", "knows little", "wider", evidence=evidence, confirmed=True)

    rule = replace(underfit.RULE, during=half_way, confirm=None)
    found = diagnose(experiment(lr), rules=(rule,)).findings
    assert [f.code for f in found] == ["underfit"] * (lr < 0.1)


@pytest.mark.parametrize(("promised", "stays"), [(1.2, False), (1e-4, True)])
def test_a_rate_that_brought_the_run_as_far_as_a_lower_one_is_not_too_high(promised, stays) -> None:
    def early(_: Facts, trace: Trace) -> Iterator[Finding]:
        if trace.done < 1:
            evidence = {"went_on": True, "loss_at": {"lr x 0.1": promised},
                        "first_loss": trace.scale, "update_ratio": 0.03}  # fmt: skip
            yield Finding("lr_too_high", "jumps", "lower", evidence=evidence, confirmed=True)

    rule = replace(lr_too_high.RULE, during=early, confirm=None)
    found = diagnose(experiment(), rules=(rule,)).findings
    assert [f.code for f in found] == ["lr_too_high"] * stays
