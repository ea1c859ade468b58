"""Clock, observers, trees, evaluation: the pieces around the loop."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from gipi import tasks
from gipi.core.batch import Batch
from gipi.core.config import Recipe
from gipi.core.errors import ConfigError
from gipi.core.events import Step
from gipi.data.stream import RowStream
from gipi.train import begin as begin_
from gipi.train import clock, evaluate, fit
from gipi.train.clock import Clock, make_clock, set_span
from gipi.train.crowd import Crowd
from gipi.train.evaluate import Evaluation
from gipi.train.stopping import EarlyStopping, Plateau
from gipi.train.tree import like, pack, stored_once, unpack
from tests.train.work import SCHEMA, columns, net, streams


def test_clock_counts_steps_and_epochs() -> None:
    train, _ = streams(columns())
    clock = make_clock(Recipe(epochs=2.5), train)
    assert clock.total_steps == 10
    assert (clock.progress(5), clock.done(9), clock.done(10)) == (0.5, False, True)
    assert make_clock(Recipe(steps=7), train).total_steps == 7
    assert make_clock(Recipe(), train).total_steps == 40
    with pytest.raises(ConfigError, match="several budgets"):
        make_clock(Recipe(epochs=1, time=5), train)


def test_a_time_too_short_to_train_is_refused() -> None:
    train, _ = streams(columns())
    recipe = Recipe(time=0.001)
    with pytest.raises(ConfigError, match="before the first step"):
        set_span(make_clock(recipe, train), recipe, 1.0)


def test_a_budget_counts_from_what_people_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clock, "process_start", lambda: 100.0)
    monkeypatch.setattr(clock, "interactive", lambda: False)
    monkeypatch.setattr(clock, "ENDED", [])
    assert clock.counted_from(500.0) == 100.0
    monkeypatch.setattr(clock, "ENDED", [300.0])  # a second run of the same process
    assert clock.counted_from(500.0) == 300.0
    monkeypatch.setattr(clock, "interactive", lambda: True)
    assert clock.counted_from(500.0) == 500.0


def seen(value: float, key: str = "val/accuracy") -> Step:
    return Step("evaluate", 1, 0, 0.5, {key: value})


def test_early_stopping_waits_and_remembers() -> None:
    stopping = EarlyStopping("val/accuracy", greater=True, patience=2)
    assert [stopping(seen(v)) for v in (0.5, 0.6, 0.6)] == [None, None, None]
    other = EarlyStopping("val/accuracy", greater=True, patience=2)
    other.load_state(stopping.state())
    action = other(seen(0.55))
    assert action is not None
    assert action.kind == "stop"
    assert other(Step("row", 1, 0, 0.5, {})) is None


def test_plateau_lowers_the_rate_once_per_plateau() -> None:
    plateau = Plateau(factor=0.1, patience=1)
    answers = [plateau(seen(v, "val/loss")) for v in (1.0, 1.0, 1.0, 1.0, 0.5)]
    assert [a.kind if a else None for a in answers] == [None, None, "scale_lr", None, None]


class Machine:
    """A machine with two threads, seen through a `Crowd`, with a row every two seconds."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, adapt: bool) -> None:
        from gipi.train import crowd as module

        self.now, self.delay, self.step, self.threads = 100.0, 0.0, 0, 2
        monkeypatch.setattr(module.time, "perf_counter", lambda: self.now)
        monkeypatch.setattr(module, "run_delay_s", lambda: self.delay)
        monkeypatch.setattr(torch, "get_num_threads", lambda: self.threads)
        self.crowd = Crowd(adapt=adapt, _wall=self.now, _delay=self.delay)

    def row(self, wait: float, pace: dict[int, int]) -> str:
        """Let two seconds pass; `pace` is steps per window by number of threads."""
        self.now, self.delay = self.now + 2.0, self.delay + 2.0 * wait
        self.step += pace[self.threads]
        action = self.crowd(Step("row", self.step, 0, 0.1, {}))
        if action is None:
            return "-"
        if action.kind == "change":
            self.threads = int(action.value)
            return f"threads {action.value}"
        return action.kind


QUIET, BUSY = {1: 50, 2: 90}, {1: 30, 2: 5}


def test_a_quiet_machine_is_never_called_crowded(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch, adapt=True)
    assert {machine.row(w, QUIET) for w in (0.0, 0.05, 0.1, 0.6, 0.0, 0.6)} == {"-"}


def test_a_crowded_machine_is_named_once(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch, adapt=False)
    assert [machine.row(0.6, BUSY) for _ in range(4)] == ["-", "note", "-", "-"]


def test_one_thread_is_kept_while_it_is_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch, adapt=True)
    crowded = [machine.row(0.6, BUSY) for _ in range(4)]
    assert crowded == ["-", "threads 1", "-", "note"]
    later = [machine.row(0.0, QUIET) for _ in range(12)]  # the neighbours leave
    assert [x for x in later if x != "-"] == ["threads 2", "note"]
    assert machine.threads == 2


def test_what_is_not_faster_is_taken_back_and_tried_less_and_less(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    machine = Machine(monkeypatch, adapt=True)
    even = {1: 10, 2: 10}
    said = [machine.row(0.6, even) for _ in range(60)]
    tries = [i for i, x in enumerate(said) if x == "threads 1"]
    gaps = [b - a for a, b in itertools.pairwise(tries)]
    assert said.count("threads 1") == said.count("threads 2") >= 3
    assert gaps == sorted(gaps)
    assert gaps[-1] > gaps[0]
    assert machine.threads == 2


def test_the_word_says_that_resuming_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Machine(monkeypatch, adapt=True)
    machine.row(0.6, BUSY)
    machine.now, machine.delay, machine.step = machine.now + 2, machine.delay + 1.2, 99
    action = machine.crowd(Step("row", 99, 0, 0.1, {}))
    assert action is not None
    assert "60% of the time" in action.reason
    assert "no longer bit-identical" in action.reason


def test_trees_survive_packing() -> None:
    shared = torch.randn(3)
    tree = {"a": [1, 2.5, None, "x"], 3: (shared, {"t": shared}), "nan": math.inf}
    tensors: dict[str, torch.Tensor] = {}
    packed = pack(tree, "root", tensors)
    kept, alias = stored_once(tensors)
    assert len(kept) == 1
    kept.update({name: kept[source] for name, source in alias.items()})
    back = unpack(packed, kept)
    assert back["a"] == tree["a"]
    assert torch.equal(back[3][1]["t"], shared)
    with pytest.raises(TypeError, match="root.x"):
        pack({"x": object()}, "root", {})


def test_like_follows_the_layout_of_its_pattern() -> None:
    pattern = torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last)
    source = torch.randn(2, 3, 4, 5)
    made = like(source, pattern)
    assert made.stride() == pattern.stride()
    assert torch.equal(made, source)


def test_evaluation_is_the_weighted_mean_over_rows() -> None:
    data, model = columns(weight=True), net()
    stream = RowStream(data, np.arange(37), batch_size=16, shuffle=False)
    found = evaluate(model, tasks.classify(), stream, schema=SCHEMA, keep=True)
    model.eval()
    with torch.no_grad():
        out = model(data.inputs["numbers"][:37])
    each = F.cross_entropy(out, data.target[:37], reduction="none")
    weight = data.weight[:37]
    assert found.metrics["loss"] == pytest.approx(float((each * weight).sum() / weight.sum()))
    torch.testing.assert_close(found.outputs, out)
    assert found.ids.tolist() == list(range(37))


def test_evaluation_switches_dropout_off_and_the_mode_back() -> None:
    model = nn.Sequential(nn.Linear(6, 8), nn.Dropout(0.9), nn.Linear(8, 3)).train()
    _, held = streams(columns())
    values = [evaluate(model, tasks.classify(), held, schema=SCHEMA).metrics for _ in range(2)]
    assert values[0] == values[1]
    assert model.training


class Passes:
    """A stream of one batch."""

    rows, batch_size, steps = 50, 50, 1

    def epoch(self, epoch: int, skip: int = 0):
        x = torch.randn(50, 6, generator=torch.Generator().manual_seed(0))
        yield Batch({"x": x}, torch.arange(50) % 3, rows=50)


@pytest.mark.parametrize("validation", [False, True])
def test_the_rows_still_to_be_judged_are_paid_for(
    monkeypatch: pytest.MonkeyPatch, validation: bool
) -> None:
    """10,000 rows after the last step take time also where no row validates, and a first pass,
    which is slow for other reasons, does not count where few rows validate."""
    kept: list[float] = []
    seconds = iter([1.0, *[0.5] * 20])

    def evaluation(*_: object, **__: object) -> Evaluation:
        return Evaluation({"loss": 1.0, "accuracy": 0.5}, 50, next(seconds))

    def span(clock: Clock, recipe: Recipe, reserve_s: float) -> None:
        kept.append(reserve_s)
        clock.span_s = 1e-3

    monkeypatch.setattr(begin_, "evaluate", evaluation)
    monkeypatch.setattr(begin_, "set_span", span)
    recipe = Recipe(time=60, batch_size=50, precision="fp32", threads=1, gemm="native")
    fit(nn.Linear(6, 3), tasks.classify(), Passes(), recipe, val=Passes() if validation else None,
        device="cpu", reserve_s=1.0, reserve_rows=10_000)  # fmt: skip
    rows = 10_000 + (100 if validation else 0)
    assert kept == [pytest.approx(1.0 + rows * 0.5 / 50)]
