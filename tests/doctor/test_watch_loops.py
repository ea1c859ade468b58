"""Loops whose bug is in what they call, and when: each is named; loops that look alike are not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from tests.doctor.patients import blobs
from torch import Tensor, nn
from torch.optim import lr_scheduler

import gipi
from gipi.doctor.causes import ranked
from gipi.doctor.finding import Finding
from gipi.doctor.rules import RULES

(X, Y), (VX, VY) = blobs(500, width=10, apart=1.2)


def net(*, drop: float = 0.0, norm: bool = False) -> nn.Sequential:
    """Return an MLP with what rests in evaluation mode."""
    torch.manual_seed(0)
    extra = [*([nn.BatchNorm1d(48)] if norm else []), *([nn.Dropout(drop)] if drop else [])]
    return nn.Sequential(nn.Linear(10, 48), *extra, nn.ReLU(), nn.Linear(48, 24), nn.ReLU(),
                         nn.Linear(24, 4))  # fmt: skip


def watched(
    model: nn.Module, *, lr: float = 3e-3, kind: Any = torch.optim.Adam, epochs: int = 8,
    schedule: Any = None, every: str = "batch", zero: str = "first", step: bool = True,
    clip: float = 0.0, mode: Callable[[nn.Module, int], object] = lambda m, _: m.train(),
    judge: Callable[[nn.Module], object] | None = None, gather: int = 1,
    weigh: Callable[[int], float] = lambda _: 1.0,
) -> gipi.doctor.watch.Watch:  # fmt: skip
    """Run the loop of every tutorial with one thing changed."""
    torch.manual_seed(0)
    optimizer = kind(model.parameters(), lr)
    rates = schedule(optimizer) if schedule is not None else None
    with gipi.watch(model, optimizer, F.cross_entropy) as doctor:
        for epoch in range(epochs):
            mode(model, epoch)
            for i, chosen in enumerate(torch.randperm(len(X)).split(30)):
                if zero == "first" and i % gather == 0:
                    optimizer.zero_grad()
                share = weigh(10 * epoch + i) / gather
                (share * F.cross_entropy(model(X[chosen]), Y[chosen])).backward()
                if zero == "between":
                    optimizer.zero_grad()
                if zero == "zeros":
                    optimizer.zero_grad(set_to_none=False)
                if clip:
                    nn.utils.clip_grad_norm_(model.parameters(), clip)
                if step and i % gather == gather - 1:
                    optimizer.step()
                if rates is not None and every == "batch":
                    rates.step()
            if rates is not None and every == "epoch":
                rates.step()
            if judge is not None:
                judge(model)
    assert not doctor.diagnosis.broken
    return doctor


def problems(doctor: gipi.doctor.watch.Watch) -> list[str]:
    return [f.code for f in doctor.findings if f.severity == "problem"]


def judged(model: nn.Module) -> None:
    model.eval()
    with torch.no_grad():
        F.cross_entropy(model(VX), VY)


def once(model: nn.Module, epoch: int) -> None:
    if not epoch:
        model.train()


SICK: dict[str, tuple[str, Callable[[], Any]]] = {
    "StepLR every batch": ("lr_decay_too_fast", lambda: watched(
        net(), lr=1e-3, schedule=lambda o: lr_scheduler.StepLR(o, 8, 0.1))),
    "ExponentialLR every batch": ("lr_decay_too_fast", lambda: watched(
        net(), lr=1e-3, schedule=lambda o: lr_scheduler.ExponentialLR(o, 0.85))),
    "batch norm at rest": ("eval_in_train_mode", lambda: watched(
        net(norm=True), mode=lambda m, _: m.eval())),
    "at rest after the first evaluation": ("eval_in_train_mode", lambda: watched(
        net(norm=True), mode=once, judge=judged)),
    "gradients thrown away": ("graph_detached", lambda: watched(net(), zero="between")),
    "gradients made zero": ("graph_detached", lambda: watched(net(), zero="zeros")),
    "no step": ("params_not_in_optimizer", lambda: watched(net(), step=False)),
    "clipped to nothing": ("grad_clip_too_small", lambda: watched(
        net(), kind=torch.optim.SGD, lr=0.1, clip=1e-6)),
    "SGD hardly moves": ("lr_too_low", lambda: watched(net(), kind=torch.optim.SGD, lr=1e-6)),
    "Adam hardly moves": ("lr_too_low", lambda: watched(net(), lr=1e-7)),
}  # fmt: skip


@pytest.mark.parametrize("name", list(SICK))
def test_what_a_loop_does_wrong_is_named(name: str) -> None:
    code, run = SICK[name]
    doctor = run()
    assert problems(doctor)[:1] == [code]
    assert doctor.findings[0].confirmed


@pytest.mark.parametrize("lr", [1e-3, 1e-2])
def test_a_schedule_of_epochs_stepped_at_batches_is_told_so_and_no_rate_is_called_too_high(
    lr: float,
) -> None:
    """Steps were large while there was a rate; what stands still since stands for want of one."""
    doctor = watched(net(), lr=lr, epochs=60, schedule=lambda o: lr_scheduler.ExponentialLR(o, 0.8))
    first, *others = doctor.findings
    assert (first.code, first.severity) == ("lr_decay_too_fast", "problem")
    assert first.advice.startswith("call scheduler.step() once an epoch, not after every batch")
    assert "lr_too_high" not in {f.code for f in others}


def test_a_short_loop_is_not_called_a_net_too_small() -> None:
    """It lacks steps: where it is gone on with it comes as far as any."""
    for lr, epochs in ((1e-3, 1), (1e-3, 3), (3e-4, 5)):
        doctor = watched(net(), lr=lr, epochs=epochs)
        assert "underfit" not in {f.code for f in doctor.findings}


def test_a_net_that_is_too_small_is_worth_a_hint_however_long_it_went_on() -> None:
    torch.manual_seed(0)
    small = nn.Sequential(nn.Linear(10, 1), nn.Tanh(), nn.Linear(1, 4))
    doctor = watched(small, lr=1e-2, epochs=80)
    (found,) = (f for f in doctor.findings if f.code == "underfit")
    assert (found.severity, found.confirmed) == ("hint", True)
    assert "wider" in found.advice


HEALTHY: dict[str, Callable[[], Any]] = {
    "cosine": lambda: watched(net(), schedule=lambda o: lr_scheduler.CosineAnnealingLR(o, 80)),
    "one cycle": lambda: watched(
        net(), schedule=lambda o: lr_scheduler.OneCycleLR(o, 0.01, total_steps=81)),
    "linear": lambda: watched(net(), schedule=lambda o: lr_scheduler.LinearLR(o, 1, 1e-3, 80)),
    "falls at 30 and 60 per cent": lambda: watched(
        net(), kind=torch.optim.SGD, lr=0.1, epochs=20, every="epoch",
        schedule=lambda o: lr_scheduler.MultiStepLR(o, [6, 12], 0.1)),
    "loss weighed 0 at first": lambda: watched(net(), weigh=lambda i: float(i >= 3)),
    "gathered for a step to come": lambda: watched(net(), epochs=2, gather=32),
    "every epoch": lambda: watched(
        net(), schedule=lambda o: lr_scheduler.StepLR(o, 4, 0.1), every="epoch"),
    "judged within": lambda: watched(net(drop=0.3, norm=True), judge=judged),
    "nothing that rests": lambda: watched(net(), mode=lambda m, _: m.eval()),
    "gathered": lambda: watched(net(), gather=5),
    "clipped at one": lambda: watched(net(), kind=torch.optim.SGD, lr=0.1, clip=1.0),
    "two epochs": lambda: watched(net(), kind=torch.optim.SGD, lr=0.01, epochs=2),
}  # fmt: skip


@pytest.mark.parametrize("name", list(HEALTHY))
def test_a_loop_that_looks_like_it_is_left_alone(name: str) -> None:
    assert problems(HEALTHY[name]()) == []


class Headed(nn.Module):
    """A frozen body in evaluation mode, and a head that learns."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = net(norm=True, drop=0.2), nn.Linear(4, 4)
        self.body.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))


@pytest.mark.parametrize("mode", [lambda m, _: m.train().body.eval(), lambda m, _: m.eval()])
def test_a_frozen_body_may_rest(mode: Callable[[nn.Module, int], object]) -> None:
    assert "eval_in_train_mode" not in problems(watched(Headed(), mode=mode, epochs=3))


def test_norms_that_learned_before_may_keep_their_means() -> None:
    model = net(norm=True)
    watched(model, epochs=2)
    found = watched(model, mode=lambda m, _: m.eval(), epochs=3).findings
    assert [f.severity for f in found if f.code == "eval_in_train_mode"] == ["hint"]


def test_dropout_may_be_left_out_on_purpose() -> None:
    found = watched(net(drop=0.3), mode=lambda m, _: m.eval()).findings
    assert [f.severity for f in found if f.code == "eval_in_train_mode"] == ["hint"]


def test_a_second_watch_of_norms_at_rest_says_it_again() -> None:
    model = net(norm=True)
    for _ in range(2):
        assert problems(watched(model, mode=lambda m, _: m.eval(), epochs=3))[:1] == [
            "eval_in_train_mode"
        ]


def test_zero_gradients_are_told_though_weights_decay() -> None:
    doctor = watched(net(), kind=torch.optim.AdamW, zero="zeros", epochs=30)
    assert doctor.counted.moved
    assert problems(doctor)[:1] == ["graph_detached"]


def test_what_happened_is_said_in_words() -> None:
    lost, idle = (watched(net(), **k).findings[0] for k in ({"zero": "between"}, {"step": False}))
    assert "set to zero between backward() and step()" in lost.message
    assert "optimizer.step() was never called, and loss.backward() 80 times" in idle.message


def test_rows_that_are_judged_between_steps_are_not_taken_for_training_rows() -> None:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with gipi.watch(model, optimizer, F.cross_entropy) as doctor:
        for chosen in torch.arange(len(X)).split(30):
            judged(model)
            model.eval(), model(VX), model.train()  # and once more with gradients
            optimizer.zero_grad()
            F.cross_entropy(model(X[chosen]), Y[chosen]).backward()
            optimizer.step()
    assert all(len(h.target) == 30 for h in doctor.record.heard.values() if h.target is not None)
    assert torch.equal(doctor.record.heard[0].inputs[0], X[:30])


def test_where_no_step_follows_nothing_goes_on_listening() -> None:
    model = net()
    with gipi.watch(model, torch.optim.SGD(model.parameters(), 0.1), F.cross_entropy):
        F.cross_entropy(model(X), Y).backward()
        assert not torch.overrides._get_current_function_mode_stack()


def test_a_watch_reads_well() -> None:
    doctor = watched(net(), zero="between", epochs=2)
    assert str(doctor).startswith("problem: graph_detached: loss.backward() gives a gradient")
    assert repr(doctor).startswith("<Watch of Sequential, 20 steps: problem graph_detached")
    assert repr(doctor.findings[0]).startswith("<Finding graph_detached: problem, confirmed; ")
    assert len(repr(doctor.findings[0])) < 130


def test_a_hint_at_a_cause_stands_before_a_hint_at_what_it_brings_about() -> None:
    effect = Finding("underfit", "", "", severity="hint", confirmed=True, phase="epoch")
    cause = Finding("lr_decay_too_fast", "", "", severity="hint", phase="epoch")
    assert [f.code for f in ranked([effect, cause], RULES)] == ["lr_decay_too_fast", "underfit"]
