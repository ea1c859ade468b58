"""Running statistics that never arrive are named before the first step; usual momentum is not."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from tests.doctor.patients import blobs, experiment, seen
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from gipi.doctor.facts import Facts
from gipi.doctor.rules.bn_stats_mismatch import LUCK, RULE, _last_batches, confirm


def normed(momentum: float | None, shift: float = 0.0) -> nn.Module:
    torch.manual_seed(0)
    norm = nn.BatchNorm1d(32, momentum=momentum)
    norm.running_mean.add_(shift)
    return nn.Sequential(nn.Linear(8, 32), norm, nn.ReLU(), nn.Linear(32, 4))


def test_a_momentum_that_is_too_small_is_named_and_cured() -> None:
    exp = experiment(normed(1e-4, shift=3.0), blobs(), lr=0.01)
    diagnosis = seen(exp, RULE)
    first = diagnosis.findings[0]
    assert (first.code, first.severity, first.where) == ("bn_stats_mismatch", "problem", ("1",))
    treatment = diagnosis.repair()
    assert treatment is not None
    assert treatment.after["loss"] < 0.5 * treatment.before["loss"]
    assert treatment.experiment.model[1].momentum == 0.1
    assert treatment.undo() is exp


def deep(momentum: float, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    norms = [nn.BatchNorm1d(32, momentum=momentum) for _ in range(2)]
    return nn.Sequential(nn.Linear(8, 32), norms[0], nn.ReLU(), nn.Linear(32, 32), norms[1],
                         nn.ReLU(), nn.Linear(32, 4))  # fmt: skip


@pytest.mark.parametrize("seed", range(3))
def test_a_momentum_that_remembers_the_last_batch_alone_is_named_where_that_costs(seed) -> None:
    exp = experiment(deep(0.99, seed), blobs(apart=0.8, seed=seed), lr=0.01, batch_size=4)
    assert [f.code for f in seen(exp, RULE).problems] == ["bn_stats_mismatch"]
    exp = experiment(normed(0.9), blobs(apart=0.8, seed=seed), lr=0.01, batch_size=32)
    assert [f.code for f in seen(exp, RULE).problems] == ["bn_stats_mismatch"]
    exp = experiment(normed(0.99), blobs(seed=seed), lr=0.01, batch_size=64)
    assert seen(exp, RULE).findings == []
    for rows in (180, 360):  # two batches an epoch, and one
        exp = experiment(normed(0.9), blobs(apart=0.8, seed=seed), lr=0.01, batch_size=rows)
        assert seen(exp, RULE).findings == []


def waves(rows: int):
    """Return signals of three frequencies under noise, and 100 more to judge by."""
    g = torch.Generator().manual_seed(0)
    y = torch.randint(3, (rows + 100,), generator=g)
    phase = 6.28 * torch.rand(rows + 100, 1, generator=g)
    X = torch.sin(torch.arange(24.0) * (0.4 + 0.25 * y[:, None]) + phase)
    X = (X + 0.6 * torch.randn(X.shape, generator=g))[:, None]
    return (X[:rows], y[:rows]), (X[rows:], y[rows:])


def over_time(momentum: float) -> nn.Module:
    torch.manual_seed(0)
    body = [part for c in (1, 8) for part in (nn.Conv1d(c, 8, 5, padding=2),
            nn.BatchNorm1d(8, momentum=momentum), nn.ReLU())]  # fmt: skip
    return nn.Sequential(*body, nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(8, 3))


def test_a_last_batch_of_two_rows_that_now_and_then_costs_much_is_named() -> None:
    exp = experiment(over_time(0.99), waves(402), lr=0.01, batch_size=20, epochs=8)
    assert [f.code for f in seen(exp, RULE).problems] == ["bn_stats_mismatch"]
    for momentum, rows in ((0.1, 402), (0.99, 600)):
        exp = experiment(over_time(momentum), waves(rows), lr=0.01, batch_size=rows // 3, epochs=8)
        assert seen(exp, RULE).findings == []


@pytest.mark.parametrize("own", [False, True])
def test_a_loader_is_asked_the_same_each_time_and_generators_stay_as_they_are(own) -> None:
    train, val = blobs(apart=0.8)
    mine = torch.Generator().manual_seed(3)
    loader = DataLoader(TensorDataset(*train), 180, shuffle=True, generator=mine if own else None)
    exp = experiment(deep(0.99), (loader, val), lr=0.01)
    states = torch.get_rng_state(), mine.get_state()
    one, two = (_last_batches(exp, train) for _ in range(2))
    assert one == two
    assert len(set(one)) == len(one) == LUCK
    assert torch.equal(torch.get_rng_state(), states[0])
    assert torch.equal(mine.get_state(), states[1])


def test_usual_momentum_is_left_alone() -> None:
    for momentum in (0.1, 0.03, 0.3, None):
        exp = experiment(normed(momentum), blobs(), lr=0.01, epochs=15)
        assert seen(exp, RULE, train=True).findings == []


def test_statistics_that_are_frozen_on_purpose_are_healthy() -> None:
    net = normed(1e-5)
    net[1].requires_grad_(requires_grad=False)
    assert seen(experiment(net, blobs(), lr=0.01), RULE).findings == []


@pytest.mark.parametrize(("momentum", "found"), [(1e-3, ["bn_stats_mismatch"]), (5e-3, [])])
def test_statistics_that_lag_are_asked_about_at_the_end_of_the_run(momentum, found) -> None:
    """What a short trial leaves in doubt; 30 % of a first value may do no harm that counts."""
    diagnosis = seen(
        experiment(deep(momentum), blobs(apart=1.2), lr=0.01, epochs=20), RULE, train=True
    )
    assert [f.code for f in diagnosis.problems] == found
    assert all(f.phase == "epoch" for f in diagnosis.findings)


@pytest.mark.parametrize("seed", range(2))
def test_what_remembers_the_last_batch_alone_is_asked_again_when_the_net_knows_more(seed) -> None:
    def found(momentum):
        torch.manual_seed(seed)
        net = nn.Sequential(
            nn.Linear(20, 48), nn.BatchNorm1d(48, momentum=momentum), nn.ReLU(),
            nn.Linear(48, 48), nn.BatchNorm1d(48, momentum=momentum), nn.ReLU(), nn.Linear(48, 8),
        )  # fmt: skip
        data = blobs(2340, 8, 20, apart=0.6, seed=seed)
        exp = experiment(net, data, lr=1e-3, batch_size=16, epochs=4)
        return [(f.code, f.severity, f.phase) for f in seen(exp, RULE, train=True).findings]

    assert found(0.99) == [("bn_stats_mismatch", "problem", "epoch")]
    assert found(0.1) == []


def test_what_was_in_doubt_costs_little_to_ask_and_is_not_said_unasked() -> None:
    def exp():
        return experiment(deep(5e-3), blobs(apart=1.2), lr=0.01, epochs=20)

    facts = Facts(exp())
    (early,) = RULE.before(facts)
    assert confirm(facts, early) is None
    late = replace(early, phase="epoch", evidence={**early.evidence, "first_loss": 1.0})
    begun = facts.passes
    assert confirm(facts, late) is None
    assert facts.passes - begun <= RULE.cost(facts, late) < RULE.cost(facts, early) / 4
    dear = replace(RULE, cost=lambda _, finding: 0 if finding.phase == "before" else 10_000)
    assert seen(exp(), dear, train=True).findings == []
