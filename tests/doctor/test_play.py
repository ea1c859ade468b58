"""A run that is played leaves a trace, keeps what it was asked to keep, and repeats itself."""

from __future__ import annotations

import math

import pytest
import torch
from tests.doctor.patients import blobs, experiment, mlp, regression
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from gipi.core.errors import ConfigError
from gipi.doctor import diagnose
from gipi.doctor.copies import duplicate, restore
from gipi.doctor.play import KEPT, play
from gipi.doctor.trace import CHECKS


def dropping() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Dropout(0.5), nn.Linear(32, 4))


def test_two_runs_draw_the_same_numbers_and_touch_no_generator() -> None:
    exp = experiment(dropping(), blobs())
    before = torch.get_rng_state()
    one, two = play(duplicate(exp)), play(duplicate(exp), quiet=True)
    assert one.losses == two.losses
    assert torch.equal(torch.get_rng_state(), before)


def test_a_loader_with_its_own_generator_gives_the_same_order_every_time() -> None:
    loader = DataLoader(
        TensorDataset(*blobs()[0]), 32, shuffle=True, generator=torch.Generator().manual_seed(3)
    )
    exp = experiment(mlp(), (loader, blobs()[1]))
    assert play(duplicate(exp)).losses == play(duplicate(exp)).losses


def test_rows_units_and_layers_are_looked_at_at_the_checks() -> None:
    exp = experiment(mlp(), blobs())
    seen = []
    trace = play(exp, check=lambda t: bool(seen.append((t.step, t.looks[-1], t.epochs[-1]))))
    due = sorted({max(1, round(trace.planned * share)) for share in CHECKS})
    assert [step for step, _, _ in seen] == due
    for step, look, row in seen:
        assert look.step == row["step"] == step
        assert set(look.units) == {"1"}
        assert len(row["val_parts"]) == 10
        assert abs(sum(row["val_parts"]) / 10 - row["val"]) < 0.05
    assert 0.9 < trace.epochs[-1]["val_right"] <= 1.0
    assert all(math.isfinite(v) for v in (trace.ratio(), trace.scale))


def test_a_kept_state_and_its_batches_lead_to_the_step_that_broke() -> None:
    (X, y), val = blobs()
    torch.manual_seed(0)
    exp = experiment(mlp(), ((X, y), val), lr=0.01)
    count = [0]

    def loss(said, target):
        count[0] += said.requires_grad
        return nn.functional.cross_entropy(said, target) * (math.nan if count[0] > 80 else 1.0)

    exp.loss = loss
    twin = duplicate(exp)
    trace = play(twin)
    assert trace.broken == 80
    assert trace.step == 80 + 10
    assert not trace.diverged
    assert trace.kept is not None
    assert trace.kept.step <= 80 < trace.kept.step + KEPT
    restore(twin, trace.kept.saved)
    assert all(bool(torch.isfinite(p).all()) for p in twin.model.parameters())


def test_the_best_weights_are_kept_where_they_are_wanted() -> None:
    torch.manual_seed(0)
    exp = experiment(mlp(out=1, hidden=96), regression(120, noise=1.0), lr=0.02, epochs=40)
    last, best = duplicate(exp), duplicate(exp)
    best.keep_best = True
    rows = play(last).epochs
    play(best)
    X, y = exp.val
    with torch.no_grad():
        assert float(best.loss(best.model(X), y)) <= min(r["val"] for r in rows) + 1e-6
        assert float(last.loss(last.model(X), y)) > 1.1 * min(r["val"] for r in rows)


def lbfgs(exp):
    exp.optimizer = torch.optim.LBFGS(exp.model.parameters(), max_iter=4)
    exp.batch_size = 4096
    return exp


def test_an_optimizer_that_asks_for_the_loss_is_given_it() -> None:
    exp = lbfgs(experiment(mlp(), blobs(), epochs=5))
    diagnosis = diagnose(exp)
    assert diagnosis.findings == []
    assert diagnosis.broken == {}
    assert diagnosis.trace is not None
    assert diagnosis.trace.losses[-1] < 0.5 * diagnosis.trace.losses[0]


def test_a_step_that_does_not_give_it_the_loss_is_said_in_words() -> None:
    def step(exp, xb, yb):
        loss = exp.loss(exp.model(xb), yb)
        loss.backward()
        exp.optimizer.step()
        return loss

    exp = lbfgs(experiment(mlp(), blobs(), step=step))
    with pytest.raises(ConfigError, match="closure"):
        diagnose(exp)
