"""Answers of a task that writes, within a run: few rows while it runs, all at its end."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from gipi import models, tasks
from gipi.core.config import Recipe
from gipi.train import Setup, fit
from gipi.train.begin import _answer_s
from gipi.train.said import Reader
from tests.data.pairs import dataset


def counted(calls: list[tuple[int, bool]]) -> tasks.Task:
    """Return a task that notes how many rows it is asked to answer, and whether quickly."""
    task = tasks.translate(beams=2)
    inner = task.predict
    assert inner is not None

    def predict(model: Any, batch: Any, schema: Any, *, quick: bool = False) -> torch.Tensor:
        calls.append((len(batch), quick))
        return inner(model, batch, schema, quick=quick)

    return replace(task, predict=predict, judged_rows=6)


def run(**budget: Any) -> tuple[list[tuple[int, bool]], Any]:
    data = dataset(120)
    calls: list[tuple[int, bool]] = []
    task = counted(calls)
    model = models.build("transformer", data.signature(task.outputs(data.schema)), options={
        "width": 8, "layers": 1, "heads": 2})  # fmt: skip
    val = data.stream("val", batch_size=8, shuffle=False)
    stream = data.stream("train", batch_size=16)
    state = fit(model, task, stream, Recipe(batch_size=16, **budget), val=val, schema=data.schema,
                setup=Setup(), device="cpu")  # fmt: skip
    return calls, state


def test_few_rows_are_answered_while_it_runs_and_all_at_the_end() -> None:
    calls, state = run(epochs=2)
    quick = sum(n for n, hurried in calls if hurried)
    assert quick == 2 * 6
    assert sum(n for n, hurried in calls if not hurried) == len(dataset(120).splits["val"])
    assert {"loss", "token_accuracy", "bleu"} == {name[4:] for name in state.metrics}
    assert all("val/bleu" in row for row in state.history)


def test_a_time_budget_keeps_what_the_answers_will_take(monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[float] = []
    monkeypatch.setattr("gipi.train.begin.set_span", lambda clock, recipe, s: kept.append(s))
    monkeypatch.setattr("gipi.train.begin._answer_s", lambda run, stream: 0.0)
    with pytest.raises(Exception):  # noqa: B017  a clock without a span cannot run
        run(time=5.0)
    monkeypatch.setattr("gipi.train.begin._answer_s", lambda run, stream: 100.0)
    with pytest.raises(Exception):  # noqa: B017
        run(time=5.0)
    assert kept[1] - kept[0] == pytest.approx(100.0 * len(dataset(120).splits["val"]), rel=0.05)


def test_the_time_of_an_answer_is_measured() -> None:
    data = dataset(60)
    task = tasks.translate()
    model = models.build("transformer", data.signature(task.outputs(data.schema)), options={
        "width": 8, "layers": 1, "heads": 2})  # fmt: skip
    some = SimpleNamespace(task=task, schema=data.schema, net=model, device=torch.device("cpu"))
    stream: Any = data.stream("val", batch_size=8, shuffle=False)
    assert 0 < _answer_s(some, stream) < 5  # type: ignore[arg-type]
    assert model.training
    some.task = tasks.classify()
    assert _answer_s(some, stream) == 0  # type: ignore[arg-type]


def test_tasks_that_write_nothing_have_no_reader() -> None:
    data = dataset(60)
    stream = data.stream("val", batch_size=8)
    device = torch.device("cpu")
    writing = tasks.translate()
    assert Reader.of(tasks.classify(), data.schema, stream, device, None) is None
    assert Reader.of(writing, data.schema, stream, device, 0) is None
    assert Reader.of(writing, None, stream, device, None) is None
    found = Reader.of(writing, data.schema, stream, device, None)
    assert found is not None
    assert (found.share, found.quick) == (1.0, False)
