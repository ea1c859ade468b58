"""Clock, observers, trees, evaluation: the pieces around the loop."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from gipi import tasks
from gipi.core.config import Recipe
from gipi.core.errors import ConfigError
from gipi.core.events import Step
from gipi.data.stream import RowStream
from gipi.train import evaluate
from gipi.train.clock import make_clock, set_span
from gipi.train.crowd import Crowd
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


def rows(monkeypatch: pytest.MonkeyPatch, crowd: Crowd, waits: list[float], paces: list[int]):
    """What `crowd` answers when rows come two seconds apart."""
    from gipi.train import crowd as module

    now, delay, step, answers = 100.0, 0.0, 0, []
    crowd._wall, crowd._delay = now, delay
    for wait, pace in zip(waits, paces, strict=True):
        now, delay, step = now + 2.0, delay + 2.0 * wait, step + pace
        monkeypatch.setattr(module.time, "perf_counter", lambda now=now: now)
        monkeypatch.setattr(module, "run_delay_s", lambda delay=delay: delay)
        answers.append(crowd(Step("row", step, 0, 0.1, {})))
    return answers


def test_a_quiet_machine_is_never_called_crowded(monkeypatch: pytest.MonkeyPatch) -> None:
    assert rows(monkeypatch, Crowd(adapt=True), [0.0, 0.05, 0.1], [9, 9, 9]) == [None] * 3


def test_a_crowded_machine_is_named_once(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = rows(monkeypatch, Crowd(adapt=False), [0.6, 0.6], [9, 9])
    assert first.kind == "note"
    assert "crowded" in first.reason
    assert second is None


@pytest.mark.parametrize(("pace", "kind"), [(30, "note"), (8, "change")])
def test_one_thread_is_tried_and_kept_only_if_faster(
    monkeypatch: pytest.MonkeyPatch, pace: int, kind: str
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    tried, judged = rows(monkeypatch, Crowd(adapt=True), [0.6, 0.5], [9, pace])
    assert (tried.kind, tried.field, tried.value) == ("change", "threads", 1)
    assert "bit-identical" in tried.reason
    assert judged.kind == kind
    if kind == "change":
        assert judged.value == 2


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
