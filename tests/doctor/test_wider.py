"""A net of too few weights is told by several of it side by side; one that suffices is not."""

from __future__ import annotations

import math

import pytest
import torch
from tests.doctor.patients import experiment, mlp, seen, token_rows
from torch import nn

from gipi.doctor.facts import Facts
from gipi.doctor.look import LEAST_PASSES
from gipi.doctor.play import play
from gipi.doctor.rules import underfit
from gipi.doctor.rules.underfit import RULE
from gipi.doctor.wider import RUNS, TIMES, SideBySide, may_be_small, side_by_side


def waves(rows: int = 1500):
    """Return a curved function of three numbers that two hidden units cannot follow."""
    g = torch.Generator().manual_seed(0)
    X = 3 * torch.rand(rows, 3, generator=g) - 1.5
    y = ((1.6 * X).cumsum(1).cos() * torch.tensor([1.0, 0.8, 0.5])).sum(1, keepdim=True)
    y = (y - y.mean()) / y.std()
    return (X[:1000], y[:1000]), (X[1000:], y[1000:])


def narrow(hidden: int) -> nn.Module:
    return nn.Sequential(nn.Linear(3, hidden), nn.Tanh(), nn.Linear(hidden, 1))


def test_two_hidden_units_are_named_and_forty_are_not(monkeypatch) -> None:
    monkeypatch.setattr(underfit, "leftover", lambda _: None)  # it tells as much at once
    torch.manual_seed(0)
    exp = experiment(narrow(2), waves(), lr=0.03, epochs=8)
    (found,) = seen(exp, RULE, train=True).findings
    assert (found.code, found.severity, found.confirmed) == ("underfit", "problem", True)
    assert found.evidence["val_of_several"] < 0.85 * found.evidence["val"]
    assert "11 weights" in found.message
    assert TIMES * found.evidence["steps_of_several"] <= max(LEAST_PASSES, RUNS * exp.total_steps)
    torch.manual_seed(0)
    assert seen(experiment(narrow(40), waves(), lr=0.03, epochs=8), RULE, train=True).findings == []


def test_a_question_that_few_weights_answer_is_left_alone() -> None:
    (X, _), (V, _) = waves()
    g = torch.Generator().manual_seed(1)
    line = [(Z @ torch.tensor([[0.6], [-0.5], [0.3]]) + 0.4 * torch.randn(len(Z), 1, generator=g))
            for Z in (X, V)]  # fmt: skip
    torch.manual_seed(0)
    exp = experiment(narrow(2), ((X, line[0]), (V, line[1])), lr=0.03, epochs=8)
    diagnosis = seen(exp, RULE, train=True)
    assert diagnosis.trace is not None
    assert diagnosis.trace.epochs[-1]["val"] > 0.1  # noise: high, alike, and of eleven weights
    assert diagnosis.findings == []
    assert diagnosis.passes < 50  # nor are several trained: a simple learner does no better


def test_nets_of_frozen_weights_or_of_several_rates_are_not_asked() -> None:
    torch.manual_seed(0)
    exp = experiment(narrow(2), waves(), lr=0.03, epochs=2)
    facts = Facts(exp, start=Facts(exp))
    trace = play(exp, quiet=True)
    assert may_be_small(facts, trace)
    exp.model[2].bias.requires_grad_(False)
    assert not may_be_small(facts, trace)
    exp.model[2].bias.requires_grad_(True)
    exp.optimizer = torch.optim.Adam(
        [{"params": exp.model[0].parameters(), "lr": 0.1}, {"params": exp.model[2].parameters()}]
    )
    assert not may_be_small(facts, trace)


def test_copies_say_as_much_as_one_and_learn_with_its_optimizer() -> None:
    torch.manual_seed(0)
    splits = waves()
    exp = experiment(narrow(2), splits)
    old = list(exp.model.parameters())
    rows, lone = splits[0][0][:4], exp.model
    side_by_side(exp)
    assert isinstance(exp.model, SideBySide)
    assert exp.model.nets[0] is lone
    said = torch.stack([net(rows) for net in exp.model.nets]).sum(0) * exp.model.scale
    assert torch.equal(exp.model(rows), said)
    for ours, theirs in zip(old, exp.model.nets[1].parameters(), strict=True):
        assert torch.equal(ours.flatten().sort().values, theirs.flatten().sort().values)
    held = {id(p) for g in exp.optimizer.param_groups for p in g["params"]}
    assert held == {id(p) for p in exp.model.parameters()}
    adapts = type(exp.optimizer).__name__ != "SGD"
    assert exp.model.scale == pytest.approx(1 / TIMES if adapts else 1 / math.sqrt(TIMES))


def test_nets_whose_outputs_cannot_be_added_are_left_alone() -> None:
    class Pair(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = mlp()

        def forward(self, x):
            return self.net(x), x

    with pytest.raises(TypeError):
        SideBySide([Pair(), Pair()], 0.5)(torch.randn(4, 8))


def test_words_are_asked_too() -> None:
    (X, _), (V, _) = token_rows(900, 16, 30)
    nxt = [(Z[:, :-1], (Z[:, :-1] * 7 + 3) % 32) for Z in (X, V)]

    class Words(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.table, self.head = nn.Embedding(32, width), nn.Linear(width, 32)

        def forward(self, t):
            return self.head(self.table(t))

    torch.manual_seed(0)
    exp = experiment(Words(1), (nxt[0], nxt[1]), lr=0.03, epochs=8)
    exp.loss = lambda said, y: nn.functional.cross_entropy(said.flatten(0, 1), y.flatten())
    assert Facts(exp).kind == "tokens"
    assert [f.code for f in seen(exp, RULE, train=True).problems] == ["underfit"]
