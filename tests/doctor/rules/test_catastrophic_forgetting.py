"""An old task that is lost is named and kept by replay; one that is kept is left alone."""

from __future__ import annotations

import torch
from tests.doctor.patients import blobs, experiment, findings, mlp, seen

from gipi.doctor.play import play
from gipi.doctor.rules.catastrophic_forgetting import RULE, score


def after_an_old_task():
    torch.manual_seed(0)
    old, model = blobs(400, seed=100), mlp()
    play(experiment(model, old, epochs=6))
    return model, old[1]


def test_a_lost_task_is_named_replayed_and_undone() -> None:
    model, old = after_an_old_task()
    exp = experiment(model, blobs(400), declared={"old_task": old}, epochs=8)
    diagnosis = seen(exp, RULE, train=True)
    first = diagnosis.findings[0]
    assert (first.code, first.severity) == ("catastrophic_forgetting", "problem")
    assert first.evidence["before"] > 0.9 > first.evidence["now"]
    treatment = diagnosis.repair()
    assert treatment is not None
    kept = score(treatment.experiment, old)
    assert kept is not None
    assert kept[0] > first.evidence["now"] + 0.1
    assert treatment.undo() is exp


def test_a_kept_task_is_left_alone() -> None:
    splits = blobs(400)
    exp = experiment(mlp(), splits, declared={"old_task": splits[1]}, epochs=3)
    assert findings(exp, RULE, train=True) == []
    assert findings(experiment(mlp(), splits, epochs=2), RULE, train=True) == []
