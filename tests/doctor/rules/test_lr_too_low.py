"""A run that goes hardly anywhere is named at its first tenth; one that is short is not."""

from __future__ import annotations

import pytest
import torch
from tests.doctor.patients import blobs, experiment, halves, mlp, problems, regression, seen
from torch import nn

from gipi.doctor.finding import Finding
from gipi.doctor.rules.lr_too_low import RULE
from gipi.doctor.trace import LayerLook, Look, Trace


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_a_rate_far_too_low_is_named_and_cured(optimizer: str) -> None:
    torch.manual_seed(0)
    exp = experiment(mlp(), blobs(), lr=1e-5, optimizer=optimizer)
    diagnosis = seen(exp, RULE, train=True)
    first = diagnosis.findings[0]
    assert (first.code, first.severity, first.confirmed) == ("lr_too_low", "problem", True)
    assert first.step <= 0.1 * exp.total_steps + 1
    treatment = diagnosis.repair()
    assert treatment is not None
    assert treatment.after["loss"] < 0.3
    assert treatment.undo() is exp


@pytest.mark.parametrize("lr", [3e-3, 1e-2])
def test_rates_that_learn_are_left_alone(lr: float) -> None:
    torch.manual_seed(0)
    assert seen(experiment(mlp(), blobs(), lr=lr), RULE, train=True).findings == []
    assert seen(experiment(mlp(out=1), regression(), lr=lr), RULE, train=True).findings == []


def test_a_warm_up_from_zero_is_healthy() -> None:
    torch.manual_seed(0)
    exp = experiment(mlp(), blobs(), lr=0.01)
    warm = exp.total_steps // 4
    exp.scheduler = torch.optim.lr_scheduler.LambdaLR(exp.optimizer, lambda s: min(1.0, s / warm))
    exp.scheduler_every = "step"
    assert seen(exp, RULE, train=True).findings == []


def test_a_small_rate_for_what_is_learned_already_is_healthy() -> None:
    torch.manual_seed(0)
    model = mlp()
    first = experiment(model, blobs(), lr=0.01)
    for _ in range(150):
        loss = first.loss(model(first.train[0]), first.train[1])
        first.optimizer.zero_grad()
        loss.backward()
        first.optimizer.step()
    assert seen(experiment(model, blobs(), lr=1e-5), RULE, train=True).findings == []


class Towers(nn.Module):
    """A product of two tables, and a bias of each, which begins at zero."""

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.tables = nn.ModuleList(nn.Embedding(20, k) for k in (width, width, 1, 1))
        for table, std in zip(self.tables, (0.5, 0.5, 0.0, 0.0), strict=True):
            nn.init.normal_(table.weight, 0, std)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        u, v, a, b = (table(ids[:, i % 2]) for i, table in enumerate(self.tables))
        return (u * v).sum(1, keepdim=True) + a + b


@pytest.mark.parametrize(("lr", "told"), [(5e-4, ["lr_too_low"]), (0.3, [])])
def test_what_began_at_zero_says_nothing_of_the_pace_of_tables(lr: float, told: list[str]) -> None:
    g = torch.Generator().manual_seed(0)
    X = torch.randint(20, (1600, 2), generator=g)
    u, v = torch.randn(2, 20, 2, generator=g)
    y = ((u[X[:, 0]] * v[X[:, 1]]).sum(1, keepdim=True) > 0).float()
    torch.manual_seed(0)
    exp = experiment(Towers(), halves(X, y), loss=nn.BCEWithLogitsLoss(), epochs=12)
    exp.optimizer = torch.optim.Adagrad(exp.model.parameters(), lr)
    assert [f.code for f in seen(exp, RULE, train=True).problems] == told


def test_pace_is_of_all_matrices_where_all_began_at_zero() -> None:
    now = {"head": LayerLook(1.0, 0.1, 0.01), "body": LayerLook(1.0, 1.0, 0.001)}
    first = {name: LayerLook(1.0, 0.0, 0.01) for name in now}
    mixed = {"head": LayerLook(1.0, 0.0, 0.01), "body": LayerLook(1.0, 1.0, 0.001)}
    for begun, pace in ((first, 0.0505), (mixed, 0.001), (now, 0.0505)):
        trace = Trace(10, 10, looks=[Look(1, begun, {}), Look(5, now, {})])
        assert trace.pace(trace.looks[-1]) == pytest.approx(pace)


@pytest.mark.parametrize(("lr", "found"), [(5e-4, ["lr_too_low"]), (0.01, [])])
def test_the_way_of_added_squares_grows_with_the_root_of_the_steps(
    lr: float, found: list[str]
) -> None:
    torch.manual_seed(0)
    # A stand-in for all steps that goes as many times further as there are steps would go too far.
    exp = experiment(mlp(), blobs(apart=1.0), lr=lr, epochs=60)
    exp.optimizer = torch.optim.Adagrad(exp.model.parameters(), lr)
    assert problems(exp, RULE, train=True) == found


def test_a_run_that_comes_as_far_as_a_higher_rate_did_was_not_too_slow() -> None:
    found = Finding(
        "lr_too_low", "", "", confirmed=True, phase="steps", step=12,
        evidence={"first_loss": 0.7, "loss_at": {"lr x 8": 0.12, "lr x 25": 0.04}},
    )  # fmt: skip
    assert RULE.outgrown is not None
    for end, gone in ((0.1, True), (0.15, True), (0.2, False), (0.69, False)):
        trace = Trace(120, 10, losses=[0.7] * 60 + [end] * 60)
        assert RULE.outgrown(None, trace, found) is gone
    assert RULE.outgrown(None, trace, found.but(evidence={"first_loss": 0.7})) is False
