"""What a pass costs is counted: the same on a busy machine, and more for a larger net."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

import torch
from tests.doctor.patients import blobs, cnn, experiment, halves, images, mlp, regression
from torch import Tensor, nn

from gipi.core import resolve
from gipi.doctor import consult as consulting
from gipi.doctor.consult import Consultation, allowance, at_full_rate
from gipi.doctor.diagnose import Diagnosis
from gipi.doctor.facts import Facts
from gipi.doctor.look import LEAST_PASSES, look_before
from gipi.doctor.price import (
    CALL_S,
    FORWARD_AND_BACK,
    calls_of,
    pass_seconds,
    products,
    products_unnamed,
)
from gipi.doctor.rules import RULES
from gipi.doctor.tape import recording

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest


def test_products_are_those_of_weights_and_places() -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.Flatten(), nn.Linear(8 * 36, 5))
    with recording(net) as tape:
        net(torch.zeros(2, 3, 6, 6))
    found = [products(op) for op in tape.ops if op.kind in ("conv", "linear")]
    assert found == [2 * 36 * 8 * 3 * 9, 2 * 8 * 36 * 5]


def test_a_pass_has_one_price_and_no_clock_is_read_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    config = resolve.resolve().config
    small, large = (Facts(experiment(mlp(hidden=h), blobs())) for h in (16, 512))

    def read() -> float:
        message = "a clock was read"
        raise AssertionError(message)

    for clock in ("perf_counter", "time", "monotonic", "process_time", "thread_time"):
        monkeypatch.setattr(time, clock, read)
        monkeypatch.setattr(time, f"{clock}_ns", read)
    price = pass_seconds(small)
    assert 0 < price < pass_seconds(large)
    assert price < pass_seconds(Facts(experiment(cnn(), images())))
    assert allowance(small, config).passes >= allowance(large, config).passes > 0


class Cells(nn.Module):
    """A cell that is called at every place by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.cell, self.head = nn.LSTMCell(4, 16), nn.Linear(16, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = c = torch.zeros(len(x), 16)
        for i in range(x.shape[1]):
            h, c = self.cell(x[:, i], (h, c))
        said: Tensor = self.head(h)
        return said


class Layer(nn.Module):
    """The same as one call."""

    def __init__(self, *, batch_first: bool = True) -> None:
        super().__init__()
        self.body = nn.LSTM(4, 16, batch_first=batch_first)
        self.head, self.batch_first = nn.Linear(16, 1), batch_first

    def forward(self, x: Tensor) -> Tensor:
        said = self.body(x if self.batch_first else x.transpose(0, 1))[0]
        out: Tensor = self.head(said[:, -1] if self.batch_first else said[-1])
        return out


def test_a_loop_of_calls_is_counted_whatever_they_are_called() -> None:
    X, y = torch.zeros(64, 50, 4), torch.zeros(64, 1)
    loop, layer = (Facts(experiment(m, halves(X, y))) for m in (Cells(), Layer()))
    cells = [u for u in loop.tape.unnamed if u.function == "lstm_cell"]
    assert len(cells) == 50
    rows = len(loop.batch[1])
    assert [products_unnamed(u) for u in cells] == [rows * 64 * (4 + 16)] * 50
    assert pass_seconds(layer) / 2 < pass_seconds(loop) < 5 * pass_seconds(layer)
    assert pass_seconds(loop) > 50 * FORWARD_AND_BACK * CALL_S


def test_a_recurrent_layer_has_as_many_calls_as_places() -> None:
    for batch_first in (True, False):
        with recording(net := Layer(batch_first=batch_first)) as tape:
            net(torch.zeros(300, 7, 4))
        assert [calls_of(op) for op in tape.ops if op.kind == "lstm"] == [7]


def test_what_no_rule_asks_for_has_its_price() -> None:
    def price(function: Callable[[Tensor], Tensor]) -> float:
        class Net(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.head = nn.LazyLinear(1)

            def forward(self, x: Tensor) -> Tensor:
                said: Tensor = self.head(function(x))
                return said

        return pass_seconds(
            Facts(experiment(Net(), halves(torch.ones(40, 32, 32), torch.ones(40, 1))))
        )

    plain = price(lambda x: x[:, 0])
    assert price(torch.linalg.svdvals) > 5 * plain
    assert price(lambda x: torch.fft.rfft2(x).abs()[:, 0]) > 2 * plain


def test_the_clock_leaves_out_and_changes_nothing_that_was_found() -> None:
    def look(until: float) -> tuple[list[str], list[str]]:
        exp = experiment(mlp(), blobs())
        for weights in exp.model.parameters():
            nn.init.zeros_(weights)
        notes, doom = Diagnosis(exp, []), "bad_init_symmetric"
        rules = tuple(r for r in RULES if r.code in (doom, "unnormalised_input"))
        found = look_before(Facts(exp), rules, notes, first={doom: 400}, until=until)
        return [f.code for f in found], notes.unlooked

    assert look(math.inf) == (["bad_init_symmetric"], [])
    assert look(-math.inf) == (["bad_init_symmetric"], ["unnormalised_input"])


def test_what_dooms_a_long_run_may_cost_a_share_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    config = resolve.resolve().config
    facts = Facts(experiment(mlp(), blobs(), epochs=500))
    assert allowance(facts, config).rehearsal
    monkeypatch.setattr(consulting, "LOOK_S", 0.0)
    dear = allowance(facts, config)
    assert dear.rehearsal
    assert dear.passes <= dear.of_doom
    assert dear.of_doom >= 0.1 * facts.exp.total_steps or dear.of_doom == LEAST_PASSES
    short = allowance(Facts(experiment(mlp(), blobs(), epochs=1)), config)
    assert not short.rehearsal
    (said,) = Consultation(unrehearsed=True).lines()
    assert "take too long to be tried out" in said


def test_the_highest_rate_of_a_cycle_is_tried() -> None:
    exp = experiment(mlp(out=1), regression())
    optimizer = exp.optimizer
    exp.scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.5, total_steps=100)
    assert optimizer.param_groups[0]["lr"] < 0.03
    peak = at_full_rate(exp)
    assert max(peak.scheduler.base_lrs) == 0.5
