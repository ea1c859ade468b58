"""A question that a short training left open is answered by the end of the run, and only then."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from tests.doctor.patients import blobs, experiment, mlp

from gipi.doctor import late
from gipi.doctor.copies import duplicate
from gipi.doctor.experiment import Experiment
from gipi.doctor.facts import Facts
from gipi.doctor.finding import Finding
from gipi.doctor.late import Question, leave_open, settled
from gipi.doctor.look import LEAST_PASSES
from gipi.doctor.play import play
from gipi.doctor.rates import times_lr
from gipi.doctor.trace import Trace

ASKED = Finding("padding", "it is read", "mask it")
HINT = ASKED.but(severity="hint")


FASTER = times_lr(1e4)


def ended(lr: float, change=FASTER, **asked) -> tuple[Facts, Experiment, Trace]:
    """Return a run that was trained to its end with a question open."""
    torch.manual_seed(0)
    exp = experiment(mlp(), blobs(), lr=lr, epochs=4)
    start, twin = Facts(exp), duplicate(exp)
    leave_open(start, Question(ASKED, change, **asked))
    return start, twin, play(twin, quiet=True)


def test_who_learns_what_the_run_did_not_is_a_problem_and_stands_once() -> None:
    start, twin, trace = ended(1e-6)
    (told,) = settled(start, twin, trace, [HINT])
    assert (told.code, told.severity, told.confirmed) == ("padding", "problem", True)
    assert told.evidence["loss_changed_at_the_end"] < 0.5 * told.evidence["loss_at_the_end"]
    assert f"after {trace.step} steps" in told.message


def test_a_change_that_does_not_help_takes_the_hint_back() -> None:
    start, twin, trace = ended(1e-6, times_lr(0.5))
    other = Finding("plateau", "it stands", "move", severity="hint", phase="steps")
    assert settled(start, twin, trace, [HINT, other]) == [other]


def test_one_that_helps_too_little_leaves_things_as_they_are() -> None:
    start, twin, trace = ended(1e-6, share=2.0)
    assert settled(start, twin, trace, [HINT]) == [HINT]


def test_a_run_that_has_learned_nearly_all_is_not_trained_again() -> None:
    start, twin, trace = ended(0.03)
    start.notes["questions left open"][0] = replace(
        start.notes["questions left open"][0], change=lambda _: pytest.fail("it was trained")
    )
    before = start.passes
    assert settled(start, twin, trace, [HINT]) == []
    assert start.passes - before < 5


@pytest.mark.parametrize("code", ["dead_relu", "underfit", "plateau"])
def test_what_explains_the_run_comes_first_and_a_symptom_explains_nothing(code) -> None:
    start, twin, trace = ended(1e-6)
    sure = Finding(code, "so it is", "mend it", confirmed=True, phase="epoch")
    found = settled(start, twin, trace, [HINT, sure])
    assert found[0].severity == ("hint" if code == "dead_relu" else "problem")


@pytest.mark.parametrize("changed", [0.72, 0.66, 0.4])
def test_chance_is_no_change_where_none_of_both_has_begun(monkeypatch, changed) -> None:
    start, twin, trace = ended(1e-6, times_lr(1.0))
    trace.start["val"] = 0.693
    for row in trace.epochs:
        row["val"] = 0.74
    told = replace(trace, epochs=[{**trace.epochs[-1], "val": changed}])
    monkeypatch.setattr(late, "play", lambda *_, **__: told)
    monkeypatch.setattr(late, "compare", lambda *_: SimpleNamespace(holds=lambda _: True))
    (found,) = settled(start, twin, trace, [HINT])
    assert found.confirmed == (changed < 0.5)


def test_who_was_tried_never_before_is_tried_only_where_passes_are_left() -> None:
    start, twin, trace = ended(1e-6, late=True)
    start.passes = LEAST_PASSES
    assert settled(start, twin, trace, [HINT]) == [HINT]
    assert start.passes - LEAST_PASSES < 5
    start.passes = 0
    assert settled(start, twin, trace, [HINT])[0].confirmed


def test_where_nothing_is_open_nothing_is_done() -> None:
    start, twin, trace = ended(1e-6)
    start.notes.clear()
    passes = start.passes
    assert settled(start, twin, trace, [HINT]) == [HINT]
    assert start.passes == passes


def by_heart(change, epochs: int = 30) -> tuple[Facts, Experiment, Trace]:
    """Return a run that learned, and then for hundreds of steps learned its rows by heart."""
    torch.manual_seed(0)
    (X, y), val = blobs(1500, apart=0.35)
    y = torch.where(torch.rand(len(y)) < 0.2, torch.randint(4, y.shape), y)
    exp = experiment(mlp(hidden=64), ((X, y), val), lr=0.01, epochs=epochs, batch_size=20)
    start, twin = Facts(exp), duplicate(exp)
    leave_open(start, Question(ASKED, change))
    return start, twin, play(twin, quiet=True)


def test_who_had_no_time_to_learn_by_heart_is_not_the_better_one() -> None:
    start, twin, trace = by_heart(times_lr(0.3))
    assert trace.step > 1000
    low = min(row["val"] for row in trace.epochs)
    assert trace.epochs[-1]["val"] > low + 0.1
    assert settled(start, twin, trace, [HINT]) == [HINT]
    trace.epochs[-1]["val"] = low + 0.001  # nor where the rise is too small to be told
    assert settled(start, twin, trace, [HINT]) == []  # in as many steps it is not ahead


def test_an_error_of_the_model_leaves_the_question_open() -> None:
    def broken(exp: Experiment) -> None:
        exp.model[0] = torch.nn.Linear(3, 32)

    for change in (broken, FASTER):
        start, twin, trace = ended(1e-6, change)
        if change is FASTER:
            broken(twin)  # what the run has become cannot be asked any more
        assert settled(start, twin, trace, [HINT]) == [HINT]


def test_all_looking_costs_no_more_than_a_run() -> None:
    start, twin, trace = by_heart(times_lr(1.0), epochs=10)
    for row in trace.epochs:
        row["val"] = trace.epochs[-1]["val"]
    start.passes = 20
    asked = start.passes
    settled(start, twin, trace, [HINT])
    assert start.passes - asked == max(LEAST_PASSES, trace.step - 20)
