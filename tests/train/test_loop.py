"""The loop: what it computes, what it writes, what it may be told."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from gipi import tasks
from gipi.core.config import Recipe
from gipi.core.errors import ConfigError
from gipi.core.events import Action, Step
from gipi.train import Setup, evaluate, fit
from tests.train.work import SCHEMA, columns, net, rows_of, run, streams


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd", "momentum", "rmsprop", "nadam"])
def test_steps_equal_a_hand_written_loop(name: str) -> None:
    data = columns()
    train, _ = streams(data)
    ours, theirs = net(), net()
    options = {"weight_decay": 0.0}
    run(ours, data, val=False, optimizer=name, schedule="constant", steps=12, lr=0.01)
    make = {
        "adam": lambda p: torch.optim.Adam(p, lr=0.01, fused=True),
        "adamw": lambda p: torch.optim.AdamW(p, lr=0.01, fused=True, **options),
        "sgd": lambda p: torch.optim.SGD(p, lr=0.01),
        "momentum": lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9),
        "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.01),
        "nadam": lambda p: torch.optim.NAdam(p, lr=0.01),
    }[name]
    optimizer, done = make(theirs.parameters()), 0
    for epoch in range(3):
        for batch in train.epoch(epoch):
            optimizer.zero_grad()
            F.cross_entropy(theirs(batch.inputs["numbers"]), batch.target).backward()
            optimizer.step()
            done += 1
    assert done == 12
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_learns_and_restores_the_best_weights(tmp_path: Path) -> None:
    model, data = net(), columns()
    state = run(model, data, out=tmp_path, epochs=20, steps=None, lr=0.03)
    assert state.best is not None
    assert state.metrics["val/accuracy"] == state.best.score > 0.7
    _, held = streams(data)
    again = evaluate(model, tasks.classify(), held, schema=SCHEMA)
    assert again.metrics["accuracy"] == state.best.score
    evaluations = [r for r in rows_of(tmp_path) if "val/accuracy" in r]
    assert len(evaluations) == 20
    assert max(r["val/accuracy"] for r in evaluations) == state.best.score


def test_ties_go_to_the_lower_loss(tmp_path: Path) -> None:
    state = run(net(), columns(), out=tmp_path, epochs=40, steps=None, lr=0.05)
    assert state.best is not None
    tied = [r for r in rows_of(tmp_path) if r.get("val/accuracy") == state.best.score]
    assert state.best.loss == min(r["val/loss"] for r in tied)


def test_the_mean_loss_of_a_window_is_over_rows_not_batches(tmp_path: Path) -> None:
    data = columns(weight=True)
    model, still = net(), net()
    run(model, data, out=tmp_path, val=False, lr=1e-12, optimizer="sgd", schedule="constant",
        steps=4, log_every=4)  # fmt: skip
    row = [r for r in rows_of(tmp_path) if "train/loss" in r][-1]
    out = still(data.inputs["numbers"][:64]).detach()
    each = F.cross_entropy(out, data.target[:64], reduction="none")
    expected = (each * data.weight[:64]).sum() / data.weight[:64].sum()
    assert row["train/loss"] == pytest.approx(float(expected), rel=1e-5)
    right = (out.argmax(1) == data.target[:64]).float()
    weighted = (right * data.weight[:64]).sum() / data.weight[:64].sum()
    assert row["train/accuracy"] == pytest.approx(float(weighted), rel=1e-5)


def test_rows_name_layers_norms_and_speed(tmp_path: Path) -> None:
    run(net(), columns(), out=tmp_path, steps=12, log_every=2)
    rows = [r for r in rows_of(tmp_path) if "lr" in r]
    assert [r["step"] for r in rows] == [2, 4, 6, 8, 10, 12]
    assert set(rows[0]["layers"]) == {"0.weight", "2.weight"}
    assert all(v["update_ratio"] > 0 for v in rows[0]["layers"].values())
    for key in ("grad_norm", "samples_per_s", "data_wait", "memory_bytes", "progress"):
        assert rows[-1][key] >= 0


def test_clipping_bounds_the_update(tmp_path: Path) -> None:
    data, model, before = columns(), net(), net()
    run(model, data, val=False, optimizer="sgd", schedule="constant", lr=1.0, steps=1,
        clip_norm=0.01)  # fmt: skip
    moved = torch.cat([
        (a - b).reshape(-1) for a, b in zip(model.parameters(), before.parameters(), strict=True)
    ])  # fmt: skip
    assert float(moved.detach().norm()) == pytest.approx(0.01, rel=1e-4)


def test_l1_and_freeze() -> None:
    model, before = net(), net()
    run(model, columns(), val=False, optimizer="sgd", schedule="constant", lr=0.1, steps=3,
        l1=10.0, freeze=("0.*",))  # fmt: skip
    assert torch.equal(model[0].weight, before[0].weight)
    assert float(model[2].weight.detach().abs().mean()) > 0.5  # overshoots zero by lr * l1
    assert not torch.equal(model[2].bias, before[2].bias)


def test_lbfgs_reaches_the_optimum_of_a_convex_problem() -> None:
    model = nn.Linear(6, 3)
    train, _ = streams(columns(), batch=64)
    recipe = Recipe(optimizer="lbfgs", lr=1.0, schedule="constant", steps=10, l2=1e-2)
    fit(model, tasks.classify(), train, recipe, schema=SCHEMA, device="cpu")
    (batch,) = list(train.epoch(0))
    model.zero_grad()
    loss = F.cross_entropy(model(batch.inputs["numbers"]), batch.target)
    (loss + 0.005 * model.weight.square().sum()).backward()
    assert float(model.weight.grad.norm()) < 1e-3


class Says:
    """An observer that answers once, at a given step."""

    def __init__(self, action: Action, step: int) -> None:
        self.action, self.step, self.seen = action, step, []

    def __call__(self, step: Step) -> Action | None:
        self.seen.append((step.when, step.step))
        return self.action if step.when == "row" and step.step == self.step else None


def test_actions_are_taken_and_logged(tmp_path: Path) -> None:
    stop = Says(Action("stop", "enough"), 6)
    slow = Says(Action("scale_lr", "slower", 0.5), 4)
    note = Says(Action("note", "hello"), 2)
    look = Says(Action("evaluate", "curious"), 3)
    clip = Says(Action("change", "calm", 0.1, "clip_norm"), 5)
    state = run(net(), columns(), out=tmp_path, steps=40, log_every=1, schedule="constant",
                observers=(stop, slow, note, look, clip))  # fmt: skip
    assert state.step == 6
    rows = rows_of(tmp_path)
    events = {r["event"]: r for r in rows if "event" in r}
    assert set(events) == {"stop", "scale_lr", "note", "evaluate", "change"}
    assert events["stop"]["reason"] == "enough"
    assert any(r["step"] == 3 and "val/loss" in r for r in rows)
    rates = {r["step"]: r["lr"] for r in rows if "lr" in r}
    assert rates[4] == pytest.approx(2 * rates[5])


def test_a_change_of_a_fixed_field_is_refused() -> None:
    says = Says(Action("change", "why not", 3, "batch_size"), 2)
    with pytest.raises(ConfigError, match="batch_size"):
        run(net(), columns(), steps=4, log_every=1, observers=(says,))


def test_early_stopping_and_plateau(tmp_path: Path) -> None:
    state = run(net(), columns(), out=tmp_path, epochs=200, steps=None, lr=1e-9, patience=3)
    assert state.step == 4 * 4
    lowered = run(net(), columns(), out=None, epochs=12, steps=None, lr=1e-12, schedule="plateau")
    assert lowered.lr_scale < 0.5


@pytest.mark.parametrize(
    ("recipe", "said"),
    [
        ({"epochs": 1, "steps": 2}, "several budgets"),
        ({"patience": 2}, "patience"),
        ({"schedule": "plateau"}, "plateau"),
        ({"ema": 0.9, "swa": 0.5}, "ema"),
        ({"precision": "fp16"}, "fp16"),
    ],
)
def test_recipes_that_cannot_be_run(recipe: dict[str, object], said: str) -> None:
    train, _ = streams(columns())
    with pytest.raises(ConfigError, match=said):
        fit(net(), tasks.classify(), train, Recipe(**recipe), schema=SCHEMA, device="cpu")


def test_batch_norm_refuses_micro_batches_until_it_is_accepted() -> None:
    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Linear(8, 3))
    with pytest.raises(ConfigError, match="mixes the rows"):
        run(model, columns(), micro_batch=4)
    run(model, columns(), micro_batch=4, accept_mixing=True)


def test_a_time_budget_ends_on_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """The schedule must have come to its end: the last rate is far below the first."""
    import time

    from gipi.core.device import process_start
    from gipi.train import clock

    monkeypatch.setattr(clock, "ENDED", [])  # as if this were the first run of the process
    spent = time.time() - process_start()
    train, held = streams(columns())
    seen: list[float] = []

    def watch(step: Step) -> None:
        if "lr" in step.row:
            seen.append(step.row["lr"])

    recipe = Recipe(time=spent + 2.0, optimizer="adam", lr=0.01, log_every=50)
    state = fit(
        net(), tasks.classify(), train, recipe, val=held, schema=SCHEMA, setup=Setup(),
        observers=(watch,), device="cpu",
    )  # fmt: skip
    assert state.progress == 1.0
    assert seen[-1] < 0.3 * max(seen)
    assert time.time() - process_start() - spent < 4.0


def test_swa_and_ema_weights_are_the_ones_that_are_kept() -> None:
    plain, averaged = net(), net()
    run(plain, columns(), val=False, lr=0.5, optimizer="sgd", schedule="constant")
    run(averaged, columns(), val=False, lr=0.5, optimizer="sgd", schedule="constant", ema=0.9)
    assert not torch.equal(plain[0].weight, averaged[0].weight)


def test_bf16_trains_in_fp32_weights() -> None:
    train, held = streams(columns())
    model = net()
    state = fit(
        model, tasks.classify(), train, Recipe(epochs=20, lr=0.02), val=held, schema=SCHEMA,
        setup=Setup(precision="bf16"), device="cpu",
    )  # fmt: skip
    assert model[0].weight.dtype == torch.float32
    assert state.metrics["val/accuracy"] > 0.7


def test_own_objects_are_accepted_instead_of_streams_and_tasks() -> None:
    from torch.utils.data import DataLoader, TensorDataset

    data = columns()
    x, y = data.inputs["numbers"], data.target
    recipe = Recipe(epochs=15, batch_size=16, optimizer="adam", lr=0.03)
    for train in ((x, y), TensorDataset(x, y), DataLoader(TensorDataset(x, y), batch_size=16)):
        model = net()
        fit(model, F.cross_entropy, train, recipe, val=(x, y), setup=Setup(), device="cpu")
        assert float((model(x).argmax(1) == y).float().mean()) > 0.85


def test_a_loss_with_one_value_a_row_is_weighted_by_row() -> None:
    data = columns(weight=True)
    x, y, w = data.inputs["numbers"], data.target, data.weight
    ours, theirs = net(), net()

    def each(outputs: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(outputs, target, reduction="none")

    recipe = Recipe(steps=1, batch_size="full", optimizer="sgd", lr=0.1, schedule="constant")
    fit(ours, each, (x, y, w), recipe, setup=Setup(), device="cpu")
    loss = (each(theirs(x), y) * w).sum() / w.sum()
    loss.backward()
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a.detach(), (b - 0.1 * b.grad).detach())
