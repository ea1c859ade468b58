"""Dropout that leaves next to nothing is named; usual dropout is not."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from tests.doctor.patients import blobs, experiment, regression, seen
from torch import nn

from gipi.doctor.rules.dropout_too_high import RULE


def dropping(p: float, hidden: int = 32) -> nn.Module:
    return nn.Sequential(nn.Linear(8, hidden), nn.ReLU(), nn.Dropout(p), nn.Linear(hidden, 4))


class Called(nn.Module):
    def __init__(self, p: float) -> None:
        super().__init__()
        self.one, self.two, self.p = nn.Linear(8, 32), nn.Linear(32, 4), p

    def forward(self, x):
        return self.two(F.dropout(self.one(x).relu(), self.p, self.training))


def test_dropout_of_most_is_named_and_lowered() -> None:
    torch.manual_seed(0)
    exp = experiment(dropping(0.96), blobs(), lr=3e-3)
    diagnosis = seen(exp, RULE)
    first = diagnosis.findings[0]
    assert (first.code, first.severity, first.where) == ("dropout_too_high", "problem", ("2",))
    treatment = diagnosis.repair()
    assert treatment is not None
    assert treatment.after["loss"] < treatment.before["loss"]
    assert treatment.experiment.model[2].p == 0.2
    assert exp.model[2].p == 0.96
    assert treatment.undo() is exp


def test_usual_dropout_is_left_alone() -> None:
    torch.manual_seed(0)
    for p in (0.0, 0.2, 0.5):
        assert seen(experiment(dropping(p), blobs(), lr=0.01), RULE).findings == []


def test_much_dropout_of_a_wide_layer_may_do_no_harm() -> None:
    torch.manual_seed(0)
    exp = experiment(dropping(0.7, hidden=256), blobs(), lr=0.01)
    assert seen(exp, RULE).problems == []


def test_dropout_called_as_a_function_is_seen_and_left_to_a_person() -> None:
    torch.manual_seed(0)
    found = seen(experiment(Called(0.96), blobs(), lr=3e-3), RULE).findings
    assert [(f.code, f.severity) for f in found] == [("dropout_too_high", "hint")]


def test_of_a_long_run_what_a_short_training_shows_in_part_is_a_hint() -> None:
    torch.manual_seed(0)
    found = seen(experiment(dropping(0.85), blobs(), lr=3e-3, epochs=20), RULE).findings
    assert [(f.code, f.severity) for f in found] == [("dropout_too_high", "hint")]
    assert found[0].evidence["loss_as_is"] > found[0].evidence["loss_usual"]


def test_of_a_high_rate_that_a_short_training_does_not_show_the_end_is_asked() -> None:
    def found(p):
        torch.manual_seed(1)
        net = nn.Sequential(
            nn.Linear(8, 64), nn.SiLU(), nn.Dropout(p), nn.Linear(64, 64), nn.SiLU(),
            nn.Linear(64, 1),
        )  # fmt: skip
        exp = experiment(net, regression(1200, seed=1), lr=3e-3, epochs=20)
        return [(f.severity, "loss_at_the_end" in f.evidence) for f in
                seen(exp, RULE, train=True).findings]  # fmt: skip

    assert found(0.75) == [("problem", True)]
    assert found(0.3) == []


def test_inputs_that_are_dropped_are_kept_whole_where_that_is_better() -> None:
    torch.manual_seed(0)
    parts = [nn.Dropout(0.85), nn.Linear(8, 32), nn.ReLU(), nn.Dropout(0.7), nn.Linear(32, 4)]
    exp = experiment(nn.Sequential(*parts), blobs(apart=0.8), lr=3e-3)
    first = seen(exp, RULE).findings[0]
    assert [r.name for r in first.repairs] == ["dropout 0.2", "no dropout of the inputs"]
    assert first.repairs[1].change(exp) == "dropout 0 0.85 -> 0, dropout 3 0.7 -> 0.2"
    assert (exp.model[0].p, exp.model[3].p) == (0.0, 0.2)
    hidden = seen(experiment(dropping(0.96), blobs(), lr=3e-3), RULE).findings[0]
    assert len(hidden.repairs) == 1
