"""Decay that outweighs the gradient is named; a little on everything is not."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tests.doctor.patients import blobs, experiment, halves, mlp, regression, seen
from torch import nn

from gipi.doctor.begun import WATCHED
from gipi.doctor.copies import duplicate
from gipi.doctor.facts import Facts
from gipi.doctor.rules.weight_decay_too_high import RULE


def decayed(kind, decay: float, lr: float, splits=None):
    torch.manual_seed(0)
    exp = experiment(mlp(), splits or blobs(), lr=lr)
    exp.optimizer = kind(exp.model.parameters(), lr=lr, weight_decay=decay)
    return exp


@pytest.mark.parametrize(
    ("kind", "decay", "lr"),
    [(torch.optim.SGD, 1.0, 0.1), (torch.optim.Adam, 0.5, 0.01), (torch.optim.AdamW, 20.0, 0.01)],
)
def test_decay_that_wins_is_named_and_lowered(kind, decay: float, lr: float) -> None:
    exp = decayed(kind, decay, lr)
    diagnosis = seen(exp, RULE)
    first = diagnosis.findings[0]
    assert (first.code, first.severity) == ("weight_decay_too_high", "problem")
    treatment = diagnosis.repair()
    assert treatment is not None
    assert treatment.after["loss"] < 0.5 * treatment.before["loss"]
    assert exp.optimizer.param_groups[0]["weight_decay"] == decay
    assert treatment.undo() is exp


def test_usual_decay_is_left_alone() -> None:
    for kind, decay, lr in (
        (torch.optim.SGD, 5e-4, 0.1),
        (torch.optim.AdamW, 0.01, 0.01),
        (torch.optim.AdamW, 0.1, 0.01),
        (torch.optim.Adam, 1e-3, 0.01),
    ):
        assert seen(decayed(kind, decay, lr), RULE, train=True).findings == []


def test_decay_that_keeps_a_low_loss_from_falling_is_named_late() -> None:
    for severity in ("problem", "hint"):
        torch.manual_seed(0)
        (X, _), (Xv, _) = regression()
        slope = torch.linspace(-0.5, 0.5, X.shape[1])[:, None]
        exp = experiment(mlp(out=1), ((X, X @ slope), (Xv, Xv @ slope)), epochs=20)
        exp.optimizer = torch.optim.AdamW(exp.model.parameters(), lr=0.01, weight_decay=6.0)
        if severity == "hint":  # nothing but training rows says so
            exp.val = None
        diagnosis = seen(exp, RULE, train=True)
        assert [(f.code, f.severity, f.phase) for f in diagnosis.findings] == [
            ("weight_decay_too_high", severity, "steps")
        ]


def test_a_rate_that_makes_a_usual_decay_shrink_weights_is_not_called_decay() -> None:
    exp = decayed(torch.optim.AdamW, 0.01, 1.0)
    assert seen(exp, RULE, train=True).findings == []


def test_decay_that_noise_asks_for_is_healthy() -> None:
    torch.manual_seed(0)
    exp = experiment(mlp(out=1, hidden=64), regression(200, noise=1.0), lr=0.01)
    exp.optimizer = torch.optim.AdamW(exp.model.parameters(), lr=0.01, weight_decay=1.0)
    assert seen(exp, RULE, train=True).problems == []


@pytest.mark.parametrize("epochs", [10, 100])
def test_what_it_costs_is_told(epochs: int) -> None:
    exp = decayed(torch.optim.AdamW, 20.0, 0.01)
    exp.epochs = epochs
    facts = Facts(exp)
    (found,) = RULE.before(facts)
    told, before = RULE.cost(facts, found), facts.passes
    assert RULE.confirm(facts, found) is not None
    assert facts.passes - before <= told <= RULE.passes <= 400
    late = replace(found, phase="steps", evidence={**found.evidence, "low": True})
    assert RULE.cost(facts, late) <= RULE.passes


class Tables(nn.Module):
    """Two tables before a net."""

    def __init__(self) -> None:
        super().__init__()
        self.tables = nn.ModuleList(nn.Embedding(20, 8) for _ in range(2))
        self.net = mlp(16, 1)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.net(torch.cat([t(ids[:, i]) for i, t in enumerate(self.tables)], 1))


@pytest.mark.parametrize(("decay", "told"), [(0.05, [("steps", "problem")]), (1e-4, [])])
def test_decay_that_shrank_tables_is_judged_by_a_run_from_the_start(decay, told) -> None:
    """Few steps from where they have shrunk do not make them grow again."""
    g = torch.Generator().manual_seed(0)
    X = torch.randint(20, (2000, 2), generator=g)
    a, b, c = torch.randn(3, 20, generator=g)
    y = (a[X[:, 0]] + c[X[:, 0]] * b[X[:, 1]])[:, None]
    torch.manual_seed(0)
    exp = experiment(Tables(), halves(X, y / y.std()), epochs=12)
    exp.optimizer = torch.optim.Adam(exp.model.parameters(), 0.015, weight_decay=decay)
    late = replace(RULE, before=None)
    found = seen(exp, late, train=True).findings
    assert [(f.phase, f.severity) for f in found] == told


def test_losses_of_the_run_so_far_are_not_trained_for_again() -> None:
    exp = decayed(torch.optim.Adam, 0.5, 0.01)
    exp.epochs = 100
    facts = Facts(duplicate(exp), start=Facts(exp))
    late = replace(next(iter(RULE.before(facts))), phase="steps")
    dear = RULE.cost(facts, late)
    for steps, cheaper in ((20, False), (100, True), (300, False)):
        facts.notes[WATCHED] = [1.0] * steps
        assert (RULE.cost(facts, late) < dear) is cheaper
    facts.notes[WATCHED] = [0.0] * 100
    facts.allowed = facts.passes + RULE.cost(facts, late)
    assert RULE.confirm(facts, late) is None  # a loss of nothing cannot be lowered
    assert facts.passes <= facts.allowed


def with_penalty(size: float):
    torch.manual_seed(0)
    model = mlp()

    def loss(said, y):
        squares = sum(p.pow(2).sum() for p in model.parameters())
        return nn.functional.cross_entropy(said, y) + size * squares

    return experiment(model, blobs(), lr=0.01, loss=loss)


def test_a_penalty_within_the_loss_is_named_and_lowered() -> None:
    diagnosis = seen(with_penalty(0.5), RULE)
    first = diagnosis.findings[0]
    assert (first.code, first.severity) == ("weight_decay_too_high", "problem")
    assert first.evidence["weight_decay"] == pytest.approx(1.0, rel=1e-3)
    treatment = diagnosis.repair()
    assert treatment is not None
    assert "the loss pulls weights to zero by 0." in treatment.changes[0]
    assert seen(with_penalty(1e-3), RULE, train=True).findings == []
