"""Ten sigmoids and a recurrent net that forgets are named before the first step."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from tests.doctor.patients import blobs, experiment, findings, halves, mlp, regression, seen
from torch import nn

from gipi.doctor.facts import Facts
from gipi.doctor.flow import know_nothing, renewed
from gipi.doctor.probes import Trial, after_steps, compared, horizon
from gipi.doctor.reinit import renew
from gipi.doctor.rules.vanishing_gradient import RULE, longer
from gipi.doctor.trace import Trace


def deep(act, depth: int = 10, width: int = 24) -> nn.Module:
    layers: list[nn.Module] = []
    for i in range(depth):
        layers += [nn.Linear(8 if i == 0 else width, width), act()]
    return nn.Sequential(*layers, nn.Linear(width, 4))


class Last(nn.Module):
    def __init__(self, cell) -> None:
        super().__init__()
        self.cell = cell(2, 16, batch_first=True)
        self.head = nn.Linear(16, 4)

    def forward(self, x):
        return self.head(self.cell(x)[0][:, -1])


def first_place(rows: int = 500, length: int = 30):
    """The class stands at the first place alone."""
    g = torch.Generator().manual_seed(0)
    y = torch.randint(4, (rows,), generator=g)
    X = 0.3 * torch.randn(rows, length, 2, generator=g)
    X[:, 0] += torch.stack([(y % 2) * 2.0 - 1, (y // 2) * 2.0 - 1], 1)
    return halves(X, y)


def test_ten_sigmoids_are_named_and_learn_with_other_weights() -> None:
    torch.manual_seed(0)
    exp = experiment(deep(nn.Sigmoid), blobs(), lr=5e-3)
    diagnosis = seen(exp, RULE)
    first = diagnosis.findings[0]
    assert (first.code, first.severity, first.phase) == ("vanishing_gradient", "problem", "before")
    treatment = diagnosis.repair()
    assert treatment is not None
    assert treatment.after["loss"] < 0.7 * treatment.before["loss"]
    assert treatment.undo() is exp


def test_a_plain_recurrent_net_over_many_places_is_named() -> None:
    torch.manual_seed(0)
    found = seen(experiment(Last(nn.RNN), first_place(), lr=0.01), RULE).findings
    assert [f.code for f in found] == ["vanishing_gradient"]


def test_deep_nets_that_learn_are_left_alone() -> None:
    torch.manual_seed(0)
    for net in (deep(nn.ReLU, 6, 48), deep(nn.Tanh, 5, 48), deep(nn.ELU, 6, 48), mlp()):
        assert seen(experiment(net, blobs(), lr=5e-3), RULE, train=True).findings == []


def test_gated_nets_may_forget() -> None:
    torch.manual_seed(0)
    for cell in (nn.LSTM, nn.GRU):
        assert seen(experiment(Last(cell), first_place(length=12), lr=0.01), RULE).findings == []


def test_a_head_that_begins_at_zero_is_healthy() -> None:
    torch.manual_seed(0)
    net = deep(nn.ReLU, 4, 48)
    nn.init.zeros_(net[-1].weight)
    assert seen(experiment(net, blobs(), lr=5e-3), RULE).findings == []


def given_back(depth: int, lr: float):
    """Return a deep net that is to give back rows whose mean it learns in no time."""
    X = blobs()[0][0] + 1.0
    net = deep(nn.Sigmoid, depth)
    net[-1] = nn.Linear(24, 8)
    return experiment(net, halves(X, X.clone()), loss=nn.MSELoss(), lr=lr, epochs=20)


def test_a_loss_that_came_down_to_one_answer_for_all_rows_has_not_moved() -> None:
    torch.manual_seed(0)
    found = seen(given_back(10, 0.01), replace(RULE, before=None), train=True).findings
    assert [(f.code, f.severity) for f in found] == [("vanishing_gradient", "problem")]


def test_a_trial_that_was_too_short_is_made_as_long_as_the_run() -> None:
    torch.manual_seed(0)
    exp = given_back(10, 0.01)
    facts = Facts(exp)
    short = compared(exp, {"own": None, "renewed": renew}, steps=4)
    for done, learns in ((0.25, False), (0.5, True)):
        steps = round(done * exp.total_steps)
        facts.notes["stuck"] = Trace(exp.total_steps, exp.steps_per_epoch, losses=[3.69] * steps)
        found = longer(facts, short, nothing=know_nothing(facts))
        assert (found is not None) == learns


def test_a_trial_shorter_than_the_run_shows_it_as_well_where_no_more_can_be_afforded() -> None:
    torch.manual_seed(0)
    exp = given_back(10, 0.01)
    facts = Facts(exp)
    short = compared(exp, {"own": None, "renewed": renew}, steps=4)
    facts.notes["stuck"] = Trace(1000, exp.steps_per_epoch, losses=[3.69] * 600)
    facts.allowed = facts.passes + 240
    found = longer(facts, short, nothing=know_nothing(facts))
    assert found is not None
    assert found[1] == "renewed"
    assert facts.passes == facts.allowed - 120  # the rest is for the questions of other rules


def test_longer_trials_share_half_of_what_is_left() -> None:
    torch.manual_seed(0)
    X, y = torch.randn(360, 8), torch.randint(4, (360,))  # nobody learns this
    exp = experiment(deep(nn.Sigmoid), halves(X, y))
    facts = Facts(exp)
    short = compared(exp, {"own": None, "renewed": renew}, steps=4)
    facts.notes["stuck"] = Trace(600, exp.steps_per_epoch, losses=[1.39] * 600)
    nothing = know_nothing(facts)
    facts.allowed = facts.passes + 160
    assert longer(facts, short, nothing=nothing) is None
    assert facts.passes == facts.allowed - 80


def test_a_question_that_cannot_be_afforded_leaves_a_hint() -> None:
    torch.manual_seed(0)
    facts = Facts(given_back(10, 0.01))
    (found,) = RULE.before(facts)
    stuck = Trial(3.7, {"own": [3.7] * 9, "renewed": [3.7] * 9}, {"own": 3.7, "renewed": 3.7}, {})
    facts.notes["renewed"], facts.allowed = stuck, facts.passes
    assert RULE.confirm(facts, found).severity == "hint"
    facts.notes["rectified"] = stuck.and_also(replace(stuck, tails={"relu": [3.7] * 9},
                                                      firsts={"relu": 3.7}))  # fmt: skip
    assert RULE.confirm(facts, found) is None


def by_hand(rate: float):
    """Return a suspicion of a net that is a quarter below what knows nothing, and how it goes on.

    It stands still there where the rate is zero.
    """
    torch.manual_seed(0)
    facts = Facts(experiment(Last(nn.RNN), first_place(), lr=0.01))
    (found,) = RULE.before(facts)
    torch.manual_seed(0)
    own = experiment(mlp(), blobs(apart=0.3), lr=rate)
    tails = {"own": [1.4] * 9, "renewed": [0.9] * 9}
    trial = Trial(2.2, tails, {"own": 2.2, "renewed": 2.2}, {"own": own})
    facts.notes |= {"renewed": trial, "knowing nothing": 1.87}
    return facts, found


def test_a_slow_run_is_left_alone_though_another_start_learns_faster() -> None:
    facts, found = by_hand(0.03)
    spent = facts.passes
    assert RULE.confirm(facts, found) is None
    assert facts.passes == spent + 30
    facts, found = by_hand(0.0)
    assert RULE.confirm(facts, found).confirmed
    facts.allowed = facts.passes
    assert RULE.confirm(facts, found).severity == "hint"


def test_what_stands_last_may_be_learned_and_what_stands_first_is_lost() -> None:
    """Such a net is far below what knows nothing, and will never see the first place."""
    for share in (0.6, 1.0):
        torch.manual_seed(0)
        X = 0.3 * torch.randn(800, 30, 1)
        X[:, [0, -1]] /= 0.3
        net = Last(nn.RNN)
        net.cell, net.head = nn.RNN(1, 32, batch_first=True), nn.Linear(32, 1)
        exp = experiment(net, halves(X, X[:, 0] + share * X[:, -1]), lr=0.003, epochs=15)
        facts = Facts(exp)
        (found,) = RULE.before(facts)
        assert RULE.confirm(facts, found).confirmed
        assert facts.notes["renewed"].end("own") < 0.85 * know_nothing(facts)


def test_losses_of_a_loop_of_somebodys_own_are_not_compared_with_a_few_batches() -> None:
    torch.manual_seed(0)
    exp = given_back(10, 0.01)
    for more in ({"open": True}, {"losses": [math.nan, *[3.69] * 199]}, {}):
        facts = Facts(exp)
        facts.notes["stuck"] = Trace(200, exp.steps_per_epoch,
                                     **({"losses": [3.69] * 200} | more))  # fmt: skip
        (found,) = RULE.before(facts)
        found = found.but(evidence={**found.evidence, "ratio": 1e-5})
        before = facts.passes
        told = RULE.cost(facts, found)
        sure = RULE.confirm(facts, found)
        trained = "own" in facts.notes["renewed"].twins
        assert trained == bool(more)
        assert facts.passes - before >= told == (2 if trained else 1) * horizon(exp)
        assert sure is None or math.isfinite(sure.evidence.get("loss_as_is", 0.0))
    facts.notes["stuck"].open = True
    short = compared(exp, {"own": None, "renewed": renew}, steps=4)
    assert longer(facts, short, nothing=know_nothing(facts)) is None


def test_what_the_run_did_is_not_trained_once_more() -> None:
    torch.manual_seed(0)
    exp = given_back(10, 0.01)
    asked, told = Facts(exp), Facts(exp)
    trial = renewed(asked)
    losses, _ = after_steps(exp, len(trial.tails["own"]) * 4)
    known = renewed(told, own=losses)
    assert known.tails == trial.tails
    assert known.firsts == trial.firsts
    assert told.passes == asked.passes / 2


def test_a_deep_autoencoder_without_a_gradient_is_held_against_a_linear_code() -> None:
    g = torch.Generator().manual_seed(0)
    X = torch.randn(400, 2, generator=g) @ torch.randn(2, 128, generator=g)
    for rows, severity in ((X, ["problem"]), (torch.randn(400, 128, generator=g), [])):
        torch.manual_seed(0)
        layers: list[nn.Module] = [nn.Linear(128, 8)]
        for _ in range(16):
            layers += [nn.Sigmoid(), nn.Linear(8, 8)]
        net = nn.Sequential(*layers, nn.Sigmoid(), nn.Linear(8, 128))
        exp = experiment(net, halves(rows, rows.clone()), loss=nn.MSELoss(), epochs=3, lr=3e-4)
        found = seen(exp, RULE, train=True).findings
        assert [f.severity for f in found] == severity


def test_a_gradient_below_the_precision_of_weights_needs_no_training_that_learns() -> None:
    X = torch.randn(600, 2, generator=torch.Generator().manual_seed(0))
    y = (X.norm(dim=1) > 1.18).long()
    for labels, severity in ((y, ["problem"]), (y[torch.randperm(600)], [])):
        torch.manual_seed(0)
        layers: list[nn.Module] = [nn.Linear(2, 8)]
        for _ in range(20):
            layers += [nn.Sigmoid(), nn.Linear(8, 8)]
        net = nn.Sequential(*layers, nn.Sigmoid(), nn.Linear(8, 2))
        exp = experiment(net, halves(X, labels), epochs=2, lr=3e-4)
        found = seen(exp, RULE, train=True).findings
        assert [f.severity for f in found] == severity  # nothing is lost where nobody can learn
        assert all(f.evidence["ratio"] < 1e-7 and "simple_learner" in f.evidence for f in found)


def test_what_it_costs_is_told_and_no_long_trial_is_begun_without_an_allowance() -> None:
    torch.manual_seed(0)
    exp = given_back(10, 0.01)
    facts = Facts(exp)
    (found,) = RULE.before(facts)
    told, before = RULE.cost(facts, found), facts.passes
    RULE.confirm(facts, found)
    assert facts.passes - before <= told <= RULE.passes <= 400
    assert RULE.cost(facts, found) < told  # a trial of which this or another rule has asked is had
    short = compared(exp, {"own": None, "renewed": renew}, steps=4)
    steps = exp.total_steps // 2
    facts.notes["stuck"] = Trace(exp.total_steps, exp.steps_per_epoch, losses=[3.69] * steps)
    facts.allowed = spent = facts.passes
    assert longer(facts, short, nothing=know_nothing(facts)) is None
    assert facts.passes == spent


@pytest.mark.parametrize("seed", range(3))
def test_layers_that_no_gradient_reaches_are_named_before_the_first_step(seed: int) -> None:
    """No start learns through twenty of them in a short trial: that they cannot move is enough."""
    torch.manual_seed(seed)
    layers = [m for i in range(20) for m in (nn.Linear(16 if i else 8, 16), nn.Sigmoid())]
    (X, y), val = regression(seed=seed)
    net = nn.Sequential(*layers, nn.Linear(16, 1))
    (found,) = seen(experiment(net, ((X, y), val), lr=1e-3), RULE).findings
    assert (found.severity, found.confirmed) == ("problem", True)
    noise = torch.randn(len(y), 1), torch.randn(len(val[1]), 1)
    nothing = (X, noise[0]), (val[0], noise[1])
    assert findings(experiment(net, nothing, lr=1e-3), RULE) == []  # there is nothing to learn
