"""Tanhs that begin flat are named; a sure sigmoid at the end is not."""

from __future__ import annotations

import pytest
import torch
from tests.doctor.patients import Recurrent, blobs, experiment, halves, seen, waves
from tests.doctor.rules.test_vanishing_gradient import deep
from torch import nn

from gipi.doctor.facts import Facts
from gipi.doctor.late import KEY
from gipi.doctor.rules.saturated_activation import RULE, before, confirm


def flat(gain: float) -> nn.Module:
    net = deep(nn.Tanh, 2)
    with torch.no_grad():
        net[0].weight.mul_(gain)
        net[2].weight.mul_(gain)
    return net


def test_flat_units_are_named_and_drawn_anew() -> None:
    torch.manual_seed(0)
    exp = experiment(flat(60.0), blobs(apart=1.0), lr=3e-3)
    diagnosis = seen(exp, RULE)
    first = diagnosis.findings[0]
    assert (first.code, first.severity) == ("saturated_activation", "problem")
    assert first.where[0] == "1"
    treatment = diagnosis.repair()
    assert treatment is not None
    assert treatment.after["loss"] < treatment.before["loss"]
    assert treatment.undo() is exp


def test_where_nobody_has_begun_to_learn_the_end_of_the_run_decides() -> None:
    torch.manual_seed(0)
    exp = experiment(flat(60.0), blobs(apart=1.0), lr=3e-5, epochs=4)  # too slow for both
    facts = Facts(exp)
    (suspected,) = before(facts)
    assert confirm(facts, suspected) is None
    assert [q.finding.code for q in facts.notes[KEY]] == ["saturated_activation"]


def test_tanhs_that_learn_are_left_alone() -> None:
    torch.manual_seed(0)
    assert seen(experiment(flat(1.0), blobs(), lr=5e-3), RULE, train=True).findings == []


def test_a_sigmoid_that_answers_is_no_hidden_unit() -> None:
    torch.manual_seed(0)
    g = torch.Generator().manual_seed(0)
    X = torch.randn(500, 8, generator=g)
    splits = halves(X, (X[:, :1] > 0).float())
    net = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 1), nn.Sigmoid())
    exp = experiment(net, splits, loss=nn.BCELoss(), lr=0.02, epochs=20)
    assert seen(exp, RULE, train=True).findings == []


@pytest.mark.parametrize("kind", [nn.RNN, nn.GRU, nn.LSTM])
def test_tanhs_within_recurrent_layers_are_looked_at(kind) -> None:
    torch.manual_seed(0)
    net = Recurrent(hidden=24)
    net.body = kind(2, 24, batch_first=True)
    splits = waves(rows=800)
    assert seen(experiment(net, splits, lr=3e-3), RULE).findings == []
    with torch.no_grad():
        net.body.weight_ih_l0.mul_(80.0)
    (found,) = seen(experiment(net, splits, lr=3e-3), RULE).findings
    assert (found.code, found.severity, found.where) == (RULE.code, "problem", ("body",))
