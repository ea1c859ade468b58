"""What is chosen at the first start of a run is chosen once: later starts take it from the run."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

import gipi
from gipi.core import dist, resolve
from gipi.core.rundir import read_config
from gipi.train import budget, prepare
from gipi.train.record import check_same, read_start

if TYPE_CHECKING:
    from pathlib import Path

FIXED = {"precision": "fp32", "threads": 1, "layout": "contiguous", "gemm": "native"}
DRAW = np.random.default_rng(0)
PICTURES = (DRAW.integers(0, 255, (60, 16, 16, 3), dtype=np.uint8), np.arange(60) % 2)
PLAN = budget.Plan({"widths": (8, 16)}, 32, 5.0, "as measured")


def test_a_resumed_run_plans_and_probes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`--model fastnet --epochs` and then `resume --time`: the net is the one of the run."""
    first = gipi.train(PICTURES, model="fastnet", steps=2, out=tmp_path / "r", quiet=True,
                       settings=FIXED)  # fmt: skip

    def never(*_: object, **__: object) -> None:
        raise AssertionError("chosen again")

    monkeypatch.setattr(budget, "plan", never)
    monkeypatch.setattr(prepare.data_, "probe_flips", never)
    monkeypatch.setattr(prepare, "scale_by_data", never)
    given, about = read_start(first.path)
    time = resolve.layer_from_values({"time": 60})
    again = prepare.prepare([given, time], prepare.Own(PICTURES), again=True)
    check_same(again, about)
    assert again.config.time == 60
    assert again.config.augment is None


@pytest.mark.parametrize("steps", [["flip", "crop"], ["crop"]])
def test_the_net_looks_at_mirror_images_where_it_learns_from_them(
    monkeypatch: pytest.MonkeyPatch, steps: list[str]
) -> None:
    """A class that a mirror image would change is not judged by one."""
    chosen = prepare.data_.augment.Chosen(tuple(steps), "probed")
    monkeypatch.setattr(budget, "plan", lambda *_, **__: PLAN)
    monkeypatch.setattr(prepare.data_, "default_augment", lambda *_, **__: chosen)
    ready = prepare.prepare([resolve.layer_from_values({"time": 60})], prepare.Own(PICTURES))
    assert ready.model.config.mirror == ("flip" in steps)
    assert ready.model.config.widths == (8, 16)


def test_a_later_recipe_changes_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Options that the recipe of another version would add do not reach a run that began."""
    first = gipi.train(PICTURES, model="mlp", steps=2, out=tmp_path / "r", quiet=True,
                       settings=FIXED)  # fmt: skip
    before = read_config(first.path)
    newer = prepare.Suggestion(
        {"model_options": {"activation": "tanh"}, "task_options": {"label_smoothing": 0.3}}
    )
    monkeypatch.setattr(prepare, "recipe_for", lambda *_, **__: newer)
    gipi.resume(first, steps=4, data=PICTURES, quiet=True)
    after = read_config(first.path)
    assert {**after[0], "steps": 2} == before[0]
    assert after[2]["choices"] == before[2]["choices"]  # the reasons of the first start stay


def test_ranks_train_the_plan_of_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each rank measures its own speed: without agreement they would build different nets."""
    other = budget.Plan({"widths": (48, 96)}, 512, 9.0, "on rank 0")
    said: list[str] = []

    def from_first(text: str) -> str:
        said.append(text)
        return budget.to_text(other)

    monkeypatch.setattr(budget, "plan", lambda *_, **__: PLAN)
    monkeypatch.setattr(dist, "from_first", from_first)
    layer = resolve.layer_from_values({"time": 1e6})
    ready = prepare.prepare([layer], prepare.Own(PICTURES))
    assert said == [budget.to_text(PLAN)]
    assert ready.config.model_options["widths"] == (48, 96)
    assert ready.config.batch_size == 512
    assert ready.config.eval_every == 1.1  # nine passes, eight evaluations
    assert isinstance(ready.model, torch.nn.Module)
    assert budget.from_text(budget.to_text(None)) is None
