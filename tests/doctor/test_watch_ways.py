"""Whatever way a loop asks its model, its loss and its optimizer, what it does wrong is named."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from tests.doctor.patients import blobs
from torch import Tensor, nn

import gipi
from gipi.doctor.watch import Watch

(X, Y), _ = blobs(400, width=10, apart=1.2)
ROWS = 25
BACK = Tensor.backward


class Net(nn.Module):
    """A net whose bugs and outputs are chosen."""

    def __init__(self, bug: str, says: Callable[..., Any] = lambda said, *_: said) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = nn.Linear(10, 32), nn.Linear(32, 4)
        self.bug, self.says = bug, says
        if bug == "frozen":
            self.first.requires_grad_(False)

    def forward(self, x: Tensor, y: Tensor | None = None) -> Any:
        hidden = self.first(x).relu()
        said = self.last(hidden)
        return self.says(said.softmax(1) if self.bug == "softmax" else said, hidden, y)


def gone(
    net: Net, *, loss: Any, value: Callable[[Net, Tensor, Tensor], Tensor], closure: bool = False,
    gather: int = 1, kind: Any = torch.optim.Adam, zero: bool = True, sign: float = 1.0,
    back: Callable[[Tensor], object] = lambda cost: cost.backward(),
) -> Watch:  # fmt: skip
    """Run a loop that asks for its loss in a way of its own."""
    torch.manual_seed(0)
    optimizer = kind(net.parameters(), lr=3e-2 if kind is torch.optim.SGD else 3e-3)
    with gipi.watch(net, optimizer, loss) as doctor:
        for _ in range(2):
            for i, chosen in enumerate(torch.randperm(len(X)).split(ROWS)):

                def told(rows: Tensor = chosen, first: bool = i % gather == 0) -> Tensor:
                    if zero and first:
                        optimizer.zero_grad()
                    cost = sign * value(net, X[rows], Y[rows]) / gather
                    back(cost)
                    return cost

                if closure:
                    optimizer.step(told)
                else:
                    told()
                    if i % gather == gather - 1:
                        optimizer.step()
    assert not torch.overrides._get_current_function_mode_stack()
    assert not doctor.diagnosis.broken
    return doctor


def plain(net: Net, x: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(net(x), y)


def by_rows(net: Net, x: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(net(x), y, reduction="none").mean()


def within(said: Tensor, _: Tensor, y: Tensor) -> Any:
    return SimpleNamespace(loss=F.cross_entropy(said, y), logits=said)


WAYS: dict[str, dict[str, Any]] = {

    "a closure": {"closure": True},
    "a closure of momentum": {"closure": True, "kind": torch.optim.SGD},
    "torch.autograd.backward": {"back": torch.autograd.backward},
    "a way backward that was known before": {"back": BACK},
    "a list of losses": {"back": lambda cost: torch.autograd.backward([cost])},
    "gathered": {"gather": 4},
    "no loss given": {"loss": None},
    "no loss given, of log-probabilities": {
        "loss": None, "value": lambda net, x, y: F.nll_loss(F.log_softmax(net(x), 1), y)},
    "no loss given, by rows": {"loss": None, "value": by_rows},
    "a tuple": {"says": lambda said, hidden, _: (hidden, said),
                "value": lambda net, x, y: F.cross_entropy(net(x)[1], y)},
    "a mapping": {"says": lambda said, hidden, _: {"logits": said, "hidden": hidden},
                  "value": lambda net, x, y: F.cross_entropy(net(x)["logits"], y)},
    "names": {"says": lambda said, hidden, _: SimpleNamespace(hidden=hidden, said=said),
              "value": lambda net, x, y: F.cross_entropy(net(x).said, y)},
    "the model's own loss": {
        "loss": None, "says": within, "value": lambda net, x, y: net(x, y).loss},
    "the model's own loss alone": {
        "loss": None, "says": lambda said, _, y: F.cross_entropy(said, y),
        "value": lambda net, x, y: net(x, y)},
}  # fmt: skip
BUGS = {
    "softmax": "double_softmax", "frozen": "frozen_layer", "zero": "missing_zero_grad",
    "sign": "loss_sign_flipped",
}  # fmt: skip
HIDDEN = {("the model's own loss", "softmax"), ("the model's own loss alone", "softmax"),
          ("the model's own loss alone", "sign")}  # fmt: skip
"""What cannot be known from outside: what a model compares within, and whether less is better."""


def run(way: str, bug: str) -> list[str]:
    asked = {"loss": F.cross_entropy, "value": plain} | WAYS[way]
    net = Net(bug, **{"says": asked.pop("says")} if "says" in asked else {})
    doctor = gone(net, **asked, zero=bug != "zero", sign=-1.0 if bug == "sign" else 1.0)
    assert "nothing was judged" not in str(doctor)
    return [f.code for f in doctor.findings if f.severity == "problem"]


@pytest.mark.parametrize("bug", BUGS)
@pytest.mark.parametrize("way", WAYS)
def test_a_bug_is_named_whatever_way_the_loss_is_asked(way: str, bug: str) -> None:
    if (way, bug) not in HIDDEN:
        assert run(way, bug)[:1] == [BUGS[bug]]


@pytest.mark.parametrize("way", WAYS)
def test_a_healthy_loop_is_left_alone(way: str) -> None:
    assert run(way, "") == []


def test_a_closure_is_called_as_often_as_its_optimizer_asks_and_its_loss_returned() -> None:
    asked = []

    def twin(watched: bool) -> tuple[list[float], Tensor]:
        net = Net("")
        optimizer = torch.optim.LBFGS(net.parameters(), max_iter=4)
        seen: list[float] = []

        def closure() -> Tensor:
            optimizer.zero_grad()
            cost = plain(net, X, Y)
            cost.backward()
            asked.append(watched)
            return cost

        def loop() -> None:
            seen.extend(optimizer.step(closure).item() for _ in range(3))

        if watched:
            with gipi.watch(net, optimizer, F.cross_entropy) as doctor:
                loop()
            assert doctor.record.step == 3
            assert [f for f in doctor.findings if f.severity == "problem"] == []
        else:
            loop()
        return seen, net.last.weight.detach()

    (ours, w), (theirs, v) = twin(True), twin(False)
    assert ours == theirs
    assert torch.equal(w, v)
    assert asked.count(True) == asked.count(False) > 6


def test_nothing_listens_within_a_model() -> None:
    """A compiled model would be compiled anew for every mode that it is called within."""
    seen: list[int] = []
    told: list[int] = []

    def noted(said: Tensor, *_: Any) -> Tensor:
        seen.append(len(torch.overrides._get_current_function_mode_stack()))
        return said

    def twice(net: Net, x: Tensor, y: Tensor) -> Tensor:
        seen.clear()
        cost = plain(net, x, y) + 0 * plain(net, x, y)
        told.extend(seen)
        return cost

    gone(Net("", noted), loss=F.cross_entropy, value=twice)
    assert len(told) == 2 * 2 * len(X.split(ROWS))
    assert not any(told)
