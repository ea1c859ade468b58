"""What watches a run: it looks at rows of the loop, and lets the rows of events pass."""

from __future__ import annotations

from typing import Any, cast

import pytest
import torch

import gipi
from gipi.api.doctoring import examine
from gipi.core.events import Step
from gipi.doctor.attend import Attending
from gipi.doctor.consult import Consultation, forgone
from gipi.doctor.trace import CHECKS, Trace


def test_the_row_of_an_event_is_no_look() -> None:
    """It holds no model, and what an observer answers to it is not heard."""
    nothing = cast("Any", None)
    watching = Attending(nothing, Consultation(), nothing, nothing)
    watching.trace = Trace(10, 1)
    skipped = Step("row", 9, 0, 0.95, {"step": 9, "event": "skipped: not finite", "reason": "?"})
    assert watching(skipped) is None
    assert watching.due == list(CHECKS)


def test_a_doctor_that_fails_ends_no_run(tmp_path, monkeypatch, capsys) -> None:
    def broken(*_: Any, **__: Any) -> None:
        message = "planted"
        raise RuntimeError(message)

    monkeypatch.setattr("gipi.doctor.attend.look_during", broken)
    x = torch.randn(200, 3, generator=torch.Generator().manual_seed(0))
    run = gipi.train((x, (x[:, 0] > 0).long()), epochs=4, out=tmp_path / "run")
    assert run.metrics["test/accuracy"] > 0.6
    assert (
        "could not look at this run any further: RuntimeError: planted" in capsys.readouterr().out
    )


def test_what_fails_before_the_first_step_ends_no_run(tmp_path, monkeypatch, capsys) -> None:
    def broken(*_: Any, **__: Any) -> None:
        message = "planted"
        raise RuntimeError(message)

    x = torch.randn(200, 3, generator=torch.Generator().manual_seed(0))
    data = (x, (x[:, 0] > 0).long())
    monkeypatch.setattr("gipi.doctor.consult.look_before", broken)
    with pytest.raises(RuntimeError, match="planted"):  # these tests see it
        gipi.train(data, epochs=4, out=tmp_path / "seen")
    monkeypatch.setattr("gipi.doctor.consult.forgone", forgone)
    assert gipi.train(data, epochs=4, out=tmp_path / "run").metrics["test/accuracy"] > 0.6
    said = capsys.readouterr().out
    assert "could not look at this run before its first step: RuntimeError: planted" in said


def test_an_optimizer_that_asks_for_the_loss_itself_trains(tmp_path, capsys) -> None:
    settings = {"optimizer": "lbfgs"}
    run = gipi.train("wine", epochs=3, out=tmp_path / "run", settings=settings)
    assert run.metrics["test/accuracy"] > 0.8
    assert "could not" not in capsys.readouterr().out
    looked = examine(tmp_path / "run")
    assert "asks for the loss itself" in " ".join(looked.left_out)
    assert (looked.result.findings, looked.result.broken) == ([], {})


def test_a_resumed_run_is_not_asked_again_whether_it_crawls() -> None:
    nothing = cast("Any", None)
    first, second = (Attending(nothing, Consultation(), nothing, nothing) for _ in range(2))
    first.rehearsed = True
    second.load_state(first.state())
    assert second.rehearsed
    second.load_state({"due": [], "known": []})  # as it was written before
    assert not second.rehearsed
