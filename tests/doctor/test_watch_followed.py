"""What a watch cannot follow it says; what it can it follows; and it never harms the loop."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from tests.doctor.patients import blobs
from torch import Tensor, nn

import gipi
from gipi.doctor.heldback import once

(X, Y), (VX, VY) = blobs(500, width=10, apart=1.2)
WORDS = 11


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(10, 48), nn.ReLU(), nn.Linear(48, 24), nn.ReLU(),
                         nn.Linear(24, 4))  # fmt: skip


def text(lr: float, *, loss: Any = F.cross_entropy, steps: int = 60) -> gipi.doctor.watch.Watch:
    """Watch the usual loop of a language model: every place of every row in one."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(WORDS, 8), nn.Linear(8, WORDS))
    optimizer = torch.optim.SGD(model.parameters(), lr)
    with gipi.watch(model, optimizer, loss) as doctor:
        for _ in range(steps):
            x = torch.randint(0, WORDS, (8, 6))
            y = (x + 1) % WORDS
            optimizer.zero_grad()
            F.cross_entropy(model(x).view(-1, WORDS), y.view(-1)).backward()
            optimizer.step()
    return doctor


def own(said: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(said.reshape(-1, said.shape[-1]), y.reshape(-1))


@pytest.mark.parametrize("loss", [F.cross_entropy, nn.CrossEntropyLoss(), own])
def test_a_loss_of_all_places_in_one_is_followed(loss: Any) -> None:
    doctor = text(1e9, loss=loss)
    assert doctor.record.heard[0].target.shape == (8, 6)
    assert doctor.findings[0].code in ("nan_inf", "lr_too_high")
    assert doctor.findings[0].severity == "problem"
    healthy = text(1.0, loss=loss)
    assert healthy.findings == []
    assert not healthy.diagnosis.broken


@pytest.mark.parametrize("way", ["module", "function", "view"])
def test_steps_between_looks_are_heard_whatever_way_the_loss_is_asked(way: str) -> None:
    """Of a module the target is taken at its door, without listening to torch."""
    model, criterion = nn.Linear(10, 4), nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    with gipi.watch(model, optimizer, criterion) as doctor:
        for step in range(61):
            x, y = X[8 * step : 8 * step + 8], Y[8 * step : 8 * step + 8]
            said = model(x).reshape(-1, 4) if way == "view" else model(x)
            optimizer.zero_grad()
            (F.cross_entropy if way == "function" else criterion)(said, y).backward()
            optimizer.step()
    missed = {"module": set(), "function": {8}, "view": {8}}[way]  # once, then torch is heard
    assert {8, 16, 24, 32, 40, 48, 56} - set(doctor.record.heard) == missed
    for step, heard in doctor.record.heard.items():
        assert torch.equal(heard.inputs[0], X[8 * step : 8 * step + 8])
        assert torch.equal(heard.target, Y[8 * step : 8 * step + 8])
    assert all(isinstance(loss, float) for loss in doctor.record.losses)
    assert len(doctor.record.between) >= 7


def test_what_was_not_seen_is_not_called_sound() -> None:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with gipi.watch(model, optimizer, F.cross_entropy) as doctor:
        for _ in range(3):
            optimizer.zero_grad()
            F.cross_entropy(model.forward(X), Y).backward()
            optimizer.step()
    assert doctor.findings == []
    assert str(doctor).startswith("nothing was judged: of 3 steps none was seen whole")
    assert "where it is called, not by model.forward(...)" in str(doctor)
    assert "nothing was judged" in repr(doctor)
    doctor.diagnosis.broken["plateau"] = "ValueError: so it went"
    assert "could not be looked for, by an error: plateau (ValueError: so it went)" in str(doctor)
    assert repr(doctor.diagnosis).endswith("; failed plateau>")


def test_a_net_that_is_judged_by_another_is_not_followed() -> None:
    torch.manual_seed(0)
    made, judge = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 10)), nn.Linear(10, 1)
    optimizer = torch.optim.Adam(made.parameters(), 1e-3)
    for loss in (nn.BCEWithLogitsLoss(), nn.MSELoss()):
        with gipi.watch(made, optimizer, loss) as doctor:
            for _ in range(20):
                optimizer.zero_grad()
                loss(judge(made(torch.randn(32, 4))), torch.ones(32, 1)).backward()
                optimizer.step()
        assert doctor.findings == []
        assert "this loss is not followed" in str(doctor)
        assert not doctor.diagnosis.broken


def gathered(said: Tensor, y: Tensor) -> Tensor:
    return F.log_softmax(said, -1).gather(1, y[:, None]).mean()


def test_classes_are_heard_as_the_loss_takes_them() -> None:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with gipi.watch(model, optimizer, gathered) as doctor:
        for chosen in torch.arange(len(X)).split(30):
            optimizer.zero_grad()
            gathered(model(X[chosen]), Y[chosen]).backward()
            optimizer.step()
    assert doctor.findings[0].code == "loss_sign_flipped"
    assert not doctor.diagnosis.broken


@pytest.mark.parametrize("inside", [False, True])
def test_one_column_may_be_dropped_by_the_loop_or_by_the_loss(inside: bool) -> None:
    torch.manual_seed(0)
    model, y = nn.Linear(10, 1), X @ torch.randn(10)

    def own(said: Tensor, truth: Tensor) -> Tensor:
        return F.mse_loss(said.squeeze(1), truth)

    loss = own if inside else nn.MSELoss()
    optimizer = torch.optim.SGD(model.parameters(), 0.02)
    with gipi.watch(model, optimizer, loss) as doctor:
        for chosen in torch.randperm(len(X)).split(10):
            optimizer.zero_grad()
            F.mse_loss(model(X[chosen]).squeeze(1), y[chosen]).backward()
            optimizer.step()
    assert not [f for f in doctor.findings if f.code == "loss_broadcast"]


def test_nothing_of_a_graph_is_held() -> None:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with gipi.watch(model, optimizer, F.cross_entropy) as doctor:
        for chosen in torch.arange(len(X)).split(8):
            optimizer.zero_grad()
            F.cross_entropy(model(X[chosen]), Y[chosen]).backward()
            optimizer.step()
    held = [v for h in doctor.record.heard.values() for v in (*h.inputs, *vars(h).values())]
    assert len(doctor.record.heard) > 3
    assert not any(isinstance(v, Tensor) and v.grad_fn is not None for v in held)


def test_a_state_that_cannot_be_kept_does_not_end_the_loop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = net()
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)

    def full(*_: Any) -> dict[str, Any]:
        raise torch.OutOfMemoryError

    with gipi.watch(model, optimizer, F.cross_entropy) as doctor:
        for chosen in torch.arange(len(X)).split(30):
            optimizer.zero_grad()
            F.cross_entropy(model(X[chosen]), Y[chosen]).backward()
            optimizer.step()
        monkeypatch.setattr(optimizer, "state_dict", full)
    monkeypatch.undo()
    assert [f for f in doctor.findings if f.severity == "problem"] == []


class Sparse(nn.Module):
    """A linear layer for sparse rows."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(0.1 * torch.randn(10, 4))

    def forward(self, x: Tensor) -> Tensor:
        return torch.sparse.mm(x, self.weight)


def test_sparse_rows_do_not_raise() -> None:
    torch.manual_seed(0)
    model = Sparse()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with gipi.watch(model, optimizer, F.cross_entropy) as doctor:
        for chosen in torch.arange(len(X)).split(30):
            optimizer.zero_grad()
            F.cross_entropy(model(X[chosen].to_sparse()), Y[chosen]).backward()
            optimizer.step()
    assert [f for f in doctor.findings if f.severity == "problem"] == []


def test_rows_that_come_twice_are_told_by_what_they_hold() -> None:
    first, second = (X[:20], Y[:20]), (X[15:40], Y[15:40])
    kept = once([first, second, first])
    assert [len(x) for x, _ in kept] == [20, 20]
    assert torch.equal(kept[1][0], X[20:40])
    flags = (X[:20] > 0, Y[:20])
    assert len(once([flags])) == 1


def tuned(optimizer: Callable[[Any], torch.optim.Optimizer], val: Any = None) -> Any:
    """Watch a net that has learned 40 % wrong classes being tuned at a very low rate."""
    g = torch.Generator().manual_seed(1)
    drawn = torch.randint(0, 4, (len(Y),), generator=g)
    wrong = torch.where(torch.rand(len(Y), generator=g) < 0.4, drawn, Y)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(10, 256), nn.ReLU(), nn.Linear(256, 128), nn.ReLU(),
                          nn.Linear(128, 4))  # fmt: skip

    def train(by: torch.optim.Optimizer, epochs: int) -> None:
        for _ in range(epochs):
            for c in torch.randperm(len(X)).split(30):
                by.zero_grad()
                F.cross_entropy(model(X[c]), wrong[c]).backward()
                by.step()

    train(torch.optim.Adam(model.parameters(), 1e-3), 6)
    slow = optimizer(model.parameters())
    with gipi.watch(model, slow, F.cross_entropy, val=val) as doctor:
        train(slow, 8)
    return doctor


@pytest.mark.parametrize(
    "make", [lambda p: torch.optim.AdamW(p, 1e-6), lambda p: torch.optim.SGD(p, 1e-5)]
)
def test_a_trained_net_may_be_tuned_at_a_low_rate(make: Any) -> None:
    assert tuned(make).findings == []
    assert [f for f in tuned(make, (VX, VY)).findings if f.severity == "problem"] == []


def test_layers_without_weights_as_yet_are_said() -> None:
    model = nn.Sequential(nn.LazyLinear(8), nn.ReLU(), nn.Linear(8, 4))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with gipi.watch(model, optimizer, F.cross_entropy) as doctor:
        for _ in range(5):
            optimizer.zero_grad()
            F.cross_entropy(model(X), Y).backward()
            optimizer.step()
    assert "layers had no weights yet" in str(doctor)


def test_a_diagnosis_in_the_middle_of_a_loop_leaves_it_as_it_was() -> None:
    model = net()
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    with gipi.watch(model, optimizer, F.cross_entropy) as doctor:
        for _ in range(12):
            optimizer.zero_grad()
            F.cross_entropy(model(X), Y).backward()
            optimizer.step()
        weights, drawn = copy.deepcopy(model.state_dict()), torch.get_rng_state()
        assert [f for f in doctor.findings if f.severity == "problem"] == []
        assert torch.equal(drawn, torch.get_rng_state())
        assert all(torch.equal(v, weights[n]) for n, v in model.state_dict().items())


def test_a_state_that_a_step_is_added_to_is_no_target() -> None:
    torch.manual_seed(0)
    S, U = 2 * torch.randn(512, 4), torch.randn(512, 2)
    Y = S + torch.tanh(torch.cat([S, U], 1) @ (0.3 * torch.randn(6, 4)))
    model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 4))
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    with gipi.watch(model, optimizer, nn.MSELoss()) as doctor:
        for chosen in torch.arange(512).repeat(3).split(64):
            optimizer.zero_grad()
            said = model(torch.cat([S[chosen], U[chosen]], 1)) + S[chosen]
            doctor.loss(said, Y[chosen]).backward()
            optimizer.step()
    assert doctor.findings == []
    assert "this loss is not followed" in str(doctor)


def test_weights_of_a_frozen_judge_are_no_target() -> None:
    torch.manual_seed(0)
    made = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 16))
    judge = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 1)).requires_grad_(False)
    optimizer = torch.optim.Adam(made.parameters(), 1e-3)
    loss = nn.BCEWithLogitsLoss()
    with gipi.watch(made, optimizer, loss) as doctor:
        for _ in range(20):
            optimizer.zero_grad()
            loss(judge(made(torch.randn(64, 8))), torch.ones(64, 1)).backward()
            optimizer.step()
    assert doctor.findings == []


def test_whatever_goes_backward_the_loop_goes_on() -> None:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with gipi.watch(model, optimizer, F.cross_entropy) as doctor:
        edge = torch.autograd.graph.get_gradient_edge(F.cross_entropy(model(X), Y))
        torch.autograd.backward([edge], [torch.tensor(1.0)])
        optimizer.step()
        F.cross_entropy(model(X), Y, reduction="none").backward(torch.ones(len(X)))
        optimizer.step()
    assert len(doctor.record.trace.losses) == 2


def test_watches_that_are_left_as_they_were_entered_hear_no_more() -> None:
    ways = torch.Tensor.backward, torch.autograd.backward
    models = [net(), net()]
    first, last = (gipi.watch(m, torch.optim.SGD(m.parameters(), 0.1), F.cross_entropy)
                   for m in models)  # fmt: skip
    first.__enter__()
    last.__enter__()
    first.__exit__(None, None, None)
    F.cross_entropy(models[0](X), Y).backward()
    last.__exit__(None, None, None)
    F.cross_entropy(models[0](X), Y).backward()
    assert (first.record.backwards, last.record.backwards) == (0, 1)
    torch.Tensor.backward, torch.autograd.backward = ways  # type: ignore[method-assign]
