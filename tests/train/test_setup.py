"""The trial of the real step: what it tries, what it may not do, what it remembers."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from gipi import tasks
from gipi.core.batch import Batch
from gipi.core.config import Recipe
from gipi.core.errors import ConfigError
from gipi.train import Setup, choose
from gipi.train import setup as trial
from gipi.train import trial as measure
from gipi.train.lanes import build_optimizer
from gipi.train.precision import gemm_is_exact, onednn_usable, set_gemm

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _restore(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("GIPI_CACHE", str(tmp_path))
    monkeypatch.setattr(trial, "BUDGET_S", 0.2)
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
    set_gemm("native")


def conv() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))


def images(rows: int = 8) -> Batch:
    return Batch({"image": torch.randn(rows, 1, 8, 8)}, torch.arange(rows) % 3, None, None, rows)


def pick(model: nn.Module, batch: Batch, **recipe: object) -> Setup:
    asked = Recipe(**recipe)
    return choose(
        model, tasks.classify(), batch, asked, device=CPU,
        optimizer=lambda net: build_optimizer(net, asked),
    )  # fmt: skip


def test_the_winner_is_the_fastest_or_plain() -> None:
    found = pick(conv(), images())
    times = dict(found.trial)
    assert found.name in times
    plain = next(iter(times))
    assert times[found.name] <= times[plain]
    assert found.step_s == times[found.name]


def test_model_and_random_state_are_left_alone() -> None:
    model, batch = conv(), images()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    rng = torch.get_rng_state()
    pick(model, batch)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert torch.equal(rng, torch.get_rng_state())
    assert all(p.grad is None for p in model.parameters())


def test_what_is_given_is_not_tried() -> None:
    recipe = Recipe(precision="fp32", layout="contiguous", threads=1, gemm="native")
    base = trial.baseline(recipe, CPU)
    assert trial.candidates(conv(), recipe, base, CPU) == [base]
    found = pick(conv(), images(), precision="fp32", layout="channels_last", threads=1,
                 gemm="native")  # fmt: skip
    assert (found.layout, found.origin, found.trial) == ("channels_last", "given", ())


def test_candidates_know_the_model() -> None:
    recipe = Recipe(threads=1)
    base = trial.baseline(recipe, CPU)
    assert all(
        s.layout == "contiguous" for s in trial.candidates(nn.Linear(3, 2), recipe, base, CPU)
    )
    assert any(s.layout == "channels_last" for s in trial.candidates(conv(), recipe, base, CPU))
    double = trial.candidates(nn.Linear(3, 2).double(), recipe, base, CPU)
    assert [s.precision for s in double] == ["fp32"]


def test_a_candidate_with_another_loss_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "agrees", lambda loss, reference: False)
    found = pick(conv(), images())
    assert found.name == next(iter(dict(found.trial)))


def test_the_loss_must_agree() -> None:
    assert measure.agrees(1.001, 1.0)
    assert not measure.agrees(1.1, 1.0)
    assert not measure.agrees(float("nan"), 1.0)


def test_the_choice_is_cached_and_a_damaged_cache_is_ignored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measure, "CROWDED", 2.0)
    first = pick(conv(), images())
    again = pick(conv(), images())
    assert (first.origin, again.origin) == ("trial", "cache")
    assert again.name == first.name
    (entry,) = (tmp_path / "setup").iterdir()
    entry.write_text("{")
    assert pick(conv(), images()).origin == "trial"
    assert pick(conv(), images(16)).origin == "trial"  # another batch is another step


def test_a_trial_on_a_crowded_machine_is_not_cached(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measure, "CROWDED", -1.0)
    assert "crowded" in pick(conv(), images()).origin
    assert not (tmp_path / "setup").exists()


def test_products_stay_exact_where_onednn_is_offered() -> None:
    if not onednn_usable(CPU):
        set_gemm("native")
        assert gemm_is_exact()
        return
    set_gemm("onednn")
    generator = torch.Generator().manual_seed(5)
    a, b = torch.randn(128, 784, generator=generator), torch.randn(784, 512, generator=generator)
    exact = a.double() @ b.double()
    assert float(((a @ b).double() - exact).abs().max()) < 1e-3
    assert float(((a.bfloat16() @ b.bfloat16()).double() - exact).abs().max()) > 1e-2


def test_a_setup_survives_json() -> None:
    setup = Setup("bf16", "channels_last", 2, trial=(("a", 0.5),))
    assert Setup.from_dict(json.loads(json.dumps(setup.to_dict()))) == setup


def test_fp16_needs_a_gpu() -> None:
    with pytest.raises(ConfigError, match="fp16"):
        trial.baseline(Recipe(precision="fp16"), CPU)


def stored(model: nn.Module, batch: Batch, setup: Setup) -> str:
    asked = Recipe()
    work = measure.Work(
        model, tasks.classify(), CPU, lambda net: build_optimizer(net, asked), stored=True
    )
    return measure.row_storage(work, batch, setup)


def test_few_rows_decide_only_what_is_clear(monkeypatch: pytest.MonkeyPatch) -> None:
    """A slow step is tried on few rows first; only what is close is measured with more."""
    sizes: list[int] = []
    feed = measure.Candidate.feed

    def count(self: measure.Candidate, batch: Batch) -> None:
        sizes.append(len(batch))
        feed(self, batch)

    monkeypatch.setattr(measure.Candidate, "feed", count)
    monkeypatch.setattr(trial, "BUDGET_S", 0.01)
    found = pick(conv(), images(64))
    assert sizes[0] == measure.FEW_ROWS
    assert len(dict(found.trial)) >= 2
    assert found.name in dict(found.trial)


def test_a_disturbance_throws_nobody_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """The faster setup is hit in two of its first four steps: it is still measured to the end."""
    slow = {"fp32 2 threads": 1.0, "fp32 1 thread": 0.5}
    taken: dict[str, int] = {}

    def step(self: measure.Candidate) -> float:
        name = self.setup.name
        taken[name] = taken.get(name, 0) + 1
        hit = name == "fp32 1 thread" and 5 <= taken[name] <= 7
        return slow[name] * len(self._batch) * (10 if hit else 1)

    monkeypatch.setattr(measure.Candidate, "step", step)
    monkeypatch.setattr(measure.Candidate, "look", lambda self, batch: setattr(self, "loss", 1.0))
    work = measure.Work(conv(), tasks.classify(), CPU, lambda n: torch.optim.SGD(n.parameters(), 1))
    base = replace(trial.baseline(Recipe(), CPU), threads=2)
    rivals = [base, replace(base, threads=1)]
    found = measure.compete(work, images(64), rivals, 0.01)
    assert found.name == "fp32 1 thread"
    assert dict(found.trial)["fp32 2 threads"] == pytest.approx(64.0)  # of the whole batch


def test_rows_are_stored_in_bf16_only_where_no_bit_changes() -> None:
    bf16, batch = Setup("bf16"), images()
    assert stored(conv(), batch, bf16) == "bf16"
    assert stored(conv(), batch, Setup()) == "fp32"
    looks_first = nn.Sequential(nn.GroupNorm(1, 1), conv())
    assert stored(looks_first, batch, bf16) == "fp32"


def test_stored_rows_give_the_same_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    import numpy as np

    from gipi.data.stream import Columns, RowStream
    from gipi.train import fit

    batch = images(40)
    stream = RowStream(Columns(batch.inputs, batch.target), np.arange(40), batch_size=16, seed=1)
    weights = []
    for rows in ("bf16", "fp32", "bf16"):
        model = conv()
        setup = Setup("bf16", "channels_last", rows=rows)
        fit(model, tasks.classify(), stream, Recipe(steps=9), setup=setup, device="cpu")
        kept = next(iter(stream.epoch(0))).inputs["image"]
        assert kept.dtype == (torch.bfloat16 if rows == "bf16" else torch.float32)
        assert kept.is_contiguous(memory_format=torch.channels_last)
        weights.append(torch.cat([p.detach().reshape(-1) for p in model.parameters()]))
    assert torch.equal(weights[0], weights[1])
    assert torch.equal(weights[0], weights[2])


def test_losses_are_compared_on_the_same_rows_with_the_same_weights() -> None:
    """The first rows are easy, the batch is not: a faster setup must not be refused for that."""
    torch.manual_seed(0)
    net = nn.Linear(4, 2)
    x = torch.cat([torch.zeros(measure.FEW_ROWS, 4), 50 * torch.randn(56, 4)])
    batch = Batch({"numbers": x}, torch.arange(64) % 2, rows=64)
    work = measure.Work(net, tasks.classify(), CPU, lambda n: torch.optim.SGD(n.parameters(), 0.5))
    base = trial.baseline(Recipe(), CPU)
    seen: list[tuple[float | None, float | None]] = []
    real = measure.agrees

    def noted(loss: float | None, reference: float | None) -> bool:
        seen.append((loss, reference))
        return real(loss, reference)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measure, "agrees", noted)
        measure.compete(work, batch, [base, replace(base, threads=1)], 60.0)  # whole batches
    assert seen
    assert all(a == pytest.approx(b) for a, b in seen)
