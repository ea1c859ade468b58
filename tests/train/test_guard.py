"""Law 4: what is not finite never reaches the weights, is counted, and is explained."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from gipi import tasks
from gipi.core.batch import Batch
from gipi.core.config import Recipe
from gipi.core.errors import NonFiniteError
from gipi.train import Setup, fit
from gipi.train.begin import begin
from gipi.train.guard import Guard
from tests.train.work import columns, net, rows_of, run


class Root(nn.Module):
    """√|x|: finite at 0, with an infinite derivative there."""

    def forward(self, x: Tensor) -> Tensor:
        return x.abs().sqrt()


def finite(model: nn.Module) -> bool:
    """Whether all weights are finite."""
    return all(bool(p.isfinite().all()) for p in model.parameters())


def test_a_row_with_nan_is_left_out_and_named(tmp_path: Path) -> None:
    data = columns()
    data.inputs["numbers"][13, 2] = float("nan")
    model = net()
    state = run(model, data, out=tmp_path, steps=16, log_every=1)
    assert finite(model)
    assert state.skipped == 4  # row 13 comes once in each of four epochs
    events = [r for r in rows_of(tmp_path) if str(r.get("event", "")).startswith("skipped")]
    assert len(events) == 4
    assert "input 'numbers' holds NaN" in events[0]["reason"]
    assert "first layer with a non-finite output: 0" in events[0]["reason"]
    assert "rows 13" in events[0]["reason"]


def test_the_log_shows_the_nan(tmp_path: Path) -> None:
    data = columns()
    data.inputs["numbers"][:64] = float("nan")
    with pytest.raises(NonFiniteError, match="20 steps in a row"):
        run(net(), data, out=tmp_path, val=False, steps=40, log_every=1)
    rows = [r for r in rows_of(tmp_path) if "lr" in r]
    assert rows
    assert all(r["nonfinite"]["train/loss"] == "nan" for r in rows)


def test_a_finite_loss_with_an_infinite_gradient_is_caught(tmp_path: Path) -> None:
    data = columns()
    data.inputs["numbers"][5] = 0.0
    model = nn.Sequential(nn.Linear(6, 4, bias=False), Root(), nn.Linear(4, 3))
    state = run(model, data, out=tmp_path, val=False, steps=8)
    assert finite(model)
    assert state.skipped == 2
    events = [r for r in rows_of(tmp_path) if str(r.get("event", "")).startswith("skipped")]
    assert "non-finite gradient in 0.weight" in events[0]["reason"]


@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "adam", "rmsprop", "lbfgs"])
def test_no_optimizer_lets_it_through(optimizer: str) -> None:
    data = columns()
    data.inputs["numbers"][13, 2] = float("inf")
    model = net()
    run(model, data, val=False, optimizer=optimizer, steps=8)
    assert finite(model)


def test_explaining_changes_nothing() -> None:
    clean, sick = columns(), columns()
    sick.inputs["numbers"][13, 2] = float("nan")
    torch.manual_seed(4)
    first = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 3))
    before = {k: v.clone() for k, v in first.state_dict().items()}
    from gipi import tasks
    from gipi.core.batch import Batch
    from gipi.train.finite import explain

    rng = torch.get_rng_state()
    batch = Batch({"numbers": sick.inputs["numbers"][8:16]}, sick.target[8:16], None, None, 8)
    said = explain(first, tasks.classify().phases[0], batch, {})
    assert "rows 5" in said
    assert all(torch.equal(before[k], v) for k, v in first.state_dict().items())
    assert torch.equal(rng, torch.get_rng_state())
    assert clean is not sick


def test_the_flag_of_one_bad_element_among_many() -> None:
    guard = Guard(torch.device("cpu"))
    grads = [torch.ones(3, 5), torch.ones(7)]
    assert not guard.check(grads, 1.0, None, (0, 0, 0))
    grads[1][6] = float("inf")
    assert guard.check(grads, 1.0, None, (1, 0, 1))
    assert guard.consecutive == 1
    assert guard.check([torch.ones(2)], float("nan"), None, (2, 0, 2))
    assert not guard.check([torch.ones(2)], 1.0, None, (3, 0, 3))
    assert guard.consecutive == 0


def test_the_factor_scales_gradients_and_not_the_loss() -> None:
    guard = Guard(torch.device("cpu"))
    grads, loss = [torch.ones(3)], torch.tensor(2.0)
    guard.check(grads, loss, torch.tensor(0.25), (0, 0, 0))
    assert grads[0].tolist() == [0.25] * 3
    assert float(loss) == 2.0


def test_float64_gradients_are_scaled_in_float64() -> None:
    guard = Guard(torch.device("cpu"))
    grads = [torch.ones(2, dtype=torch.float64)]
    third = torch.tensor(1.0, dtype=torch.float64) / 3
    guard.check(grads, 1.0, third, (0, 0, 0))
    assert grads[0][0] == third


def test_a_bad_loss_in_any_micro_batch_is_caught_though_gradients_are_finite() -> None:
    x, y = torch.randn(32, 3), torch.randn(32)
    y[0] = torch.inf  # huber's gradient stays within its delta
    model = nn.Linear(3, 1)
    before = model.weight.detach().clone()
    recipe = Recipe(steps=4, batch_size="full", micro_batch=8, optimizer="sgd", lr=0.1)
    state = fit(
        model, tasks.regress(loss="huber"), (x, y), recipe, setup=Setup(), device="cpu"
    )  # fmt: skip
    assert state.skipped == 4
    assert torch.equal(model.weight, before)


def test_the_row_of_a_skipped_step_has_no_norm_of_another(tmp_path: Path) -> None:
    data = columns()
    data.inputs["numbers"][3] = torch.nan
    run(net(), data, out=tmp_path, log_every=1, steps=8)
    rows = [r for r in rows_of(tmp_path) if "lr" in r]
    bad = [set(r["nonfinite"]) for r in rows if "nonfinite" in r]
    assert bad
    assert all({"train/loss", "grad_norm"} <= names for names in bad)


class Found:
    """A stream whose first batch is bad and whose second is not."""

    rows, batch_size, steps = 4, 2, 2

    def epoch(self, epoch: int, skip: int = 0) -> Iterator[Batch]:
        """Yield from batch `skip` on."""
        x = torch.ones(4, 6)
        x[0, 0] = torch.nan
        for i in range(skip, 2):
            yield Batch({"numbers": x[2 * i : 2 * i + 2]}, torch.zeros(2, dtype=torch.long), rows=2)


def test_fp16_overflow_is_no_finding_and_nan_is_one() -> None:
    recipe = Recipe(steps=2, batch_size=2)
    prepared = begin(
        net(), tasks.classify(), Found(), recipe, val=None, observers=(), out=None, schema=None,
        setup=Setup(), resume=False, device=torch.device("cpu"), reserve_s=0.0, reserve_rows=0,
    )  # fmt: skip
    prepared.guard.scaled = True
    prepared.guard.scale.fill_(1024.0)
    one = torch.ones(())
    prepared.guard.flags = [(0, 0, 0, one), (1, 0, 1, one)]
    seen: list[str] = []
    prepared.observers = [lambda step: seen.append(step.row["reason"])]
    prepared.explain_skipped(Found())
    assert prepared.state.skipped == 1
    assert len(seen) == 1
    assert "input 'numbers' holds NaN" in seen[0]
