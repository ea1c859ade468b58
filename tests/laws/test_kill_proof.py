"""Law 3: damage is found, named and survived; a killed run ends as if it had been left alone."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from gipi import tasks
from gipi.core.config import Recipe
from gipi.core.errors import CheckpointError, ConfigError, Interrupted
from gipi.core.events import Action, Step
from gipi.core.schema import Field, Schema
from gipi.data.stream import Columns, RowStream
from gipi.train import Setup, checkpoint, fit

SCHEMA = Schema((Field("y", "category", "target", classes=tuple("abc")),))


def work(
    out: Path, *, steps: int, resume: bool = False, observers: tuple[Any, ...] = (),
    **recipe: object,
) -> nn.Module:  # fmt: skip
    """Train a small net with dropout, EMA and a ragged last batch; return it."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(70, 6, generator=generator)
    y = x[:, :3].argmax(1)
    columns = Columns({"numbers": x}, y)
    stream = RowStream(columns, np.arange(50), batch_size=16, seed=2)
    val = RowStream(columns, np.arange(50, 70), batch_size=20, shuffle=False)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 3))
    options = {"optimizer": "adamw", "lr": 0.01, "save_every": 5, "ema": 0.9, **recipe}
    fit(
        model, tasks.classify(), stream, Recipe(steps=steps, **options), val=val, out=out,
        schema=SCHEMA, setup=Setup(), resume=resume, device="cpu", observers=observers,
    )  # fmt: skip
    return model


def vector(model: nn.Module) -> torch.Tensor:
    """All weights as one vector."""
    return torch.cat([p.detach().reshape(-1) for p in model.parameters()])


class Kill(Exception):
    """Ends a run in the middle of anything."""


@pytest.mark.parametrize("optimizer", ["adamw", "momentum", "rmsprop", "radam", "lbfgs", "muon"])
@pytest.mark.parametrize("stop", [1, 5, 7, 12])
def test_a_resumed_run_ends_bit_identical(
    tmp_path: Path, stop: int, optimizer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if optimizer == "lbfgs" and stop != 7:
        pytest.skip("one moment is enough for the slow optimizer")
    recipe = {"optimizer": optimizer, "ema": None if optimizer == "lbfgs" else 0.9}
    (tmp_path / "whole").mkdir()
    (tmp_path / "broken").mkdir()
    whole = vector(work(tmp_path / "whole", steps=20, **recipe))
    saved = checkpoint.save

    def until(run: Path, state: object, **options: object) -> Path:
        if state.step > stop:  # type: ignore[attr-defined]
            raise Kill
        return saved(run, state, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(checkpoint, "save", until)
    with pytest.raises(Kill):
        work(tmp_path / "broken", steps=20, **recipe)
    monkeypatch.setattr(checkpoint, "save", saved)
    torch.manual_seed(99)  # another process has another past
    again = vector(work(tmp_path / "broken", steps=20, resume=True, **recipe))
    assert torch.equal(whole, again)


def test_resume_of_a_finished_run_with_more_steps_goes_on(tmp_path: Path) -> None:
    work(tmp_path, steps=10)
    assert checkpoint.newest_good(tmp_path)[1]["step"] == 10
    work(tmp_path, steps=15, resume=True)
    assert checkpoint.newest_good(tmp_path)[1]["step"] == 15


def test_rows_after_a_resume_have_no_step_twice(tmp_path: Path) -> None:
    work(tmp_path, steps=12, log_every=3)
    work(tmp_path, steps=24, resume=True, log_every=3)
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    steps = [r["step"] for r in rows if "lr" in r]
    assert steps == sorted(set(steps))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder with two checkpoints."""
    out = tmp_path_factory.mktemp("run")
    work(out, steps=10)
    return out


def damage_is_found(run: Path, path: Path, data: bytes) -> None:
    """With `data` in place of the file's content, the older checkpoint must be used."""
    original = path.read_bytes()
    path.write_bytes(data)
    try:
        used, tree, damage = checkpoint.newest_good(run)
    finally:
        path.write_bytes(original)
    assert used.name == "step-5"
    assert tree["step"] == 5
    assert len(damage) == 1
    assert path.parent.name in damage[0]


def files_of(run: Path) -> list[Path]:
    """The files of the newest checkpoint."""
    return sorted((run / "checkpoints" / "step-10").iterdir())


def test_truncation_at_a_hundred_offsets(finished: Path) -> None:
    rng = random.Random(0)
    for _ in range(100):
        path = rng.choice(files_of(finished))
        content = path.read_bytes()
        damage_is_found(finished, path, content[: rng.randrange(len(content))])


def test_a_thousand_single_bit_flips(finished: Path) -> None:
    rng = random.Random(1)
    for _ in range(1000):
        path = rng.choice(files_of(finished))
        content = bytearray(path.read_bytes())
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        damage_is_found(finished, path, bytes(content))


def test_an_undamaged_checkpoint_is_used(finished: Path) -> None:
    used, _, damage = checkpoint.newest_good(finished)
    assert (used.name, damage) == ("step-10", [])


def test_no_good_checkpoint_is_an_error_never_a_fresh_start(tmp_path: Path) -> None:
    work(tmp_path, steps=5)
    for path in checkpoint.list_checkpoints(tmp_path):
        (path / "state.safetensors").write_bytes(b"")
    with pytest.raises(CheckpointError, match="damaged"):
        work(tmp_path, steps=9, resume=True)


def test_a_run_without_its_checkpoints_does_not_start_afresh(tmp_path: Path) -> None:
    work(tmp_path, steps=5)
    shutil.rmtree(tmp_path / "checkpoints")
    rows = (tmp_path / "rows.jsonl").read_bytes()
    with pytest.raises(CheckpointError, match="holds no checkpoint"):
        work(tmp_path, steps=9, resume=True)
    assert (tmp_path / "rows.jsonl").read_bytes() == rows


def test_two_runs_do_not_share_a_folder_one_after_the_other(tmp_path: Path) -> None:
    work(tmp_path, steps=5)
    with pytest.raises(ConfigError, match="step-5"):
        work(tmp_path, steps=4)


def test_resume_without_a_folder_is_refused() -> None:
    x = torch.randn(8, 3)
    with pytest.raises(ConfigError, match="without a run folder"):
        fit(nn.Linear(3, 1), tasks.regress(), (x, x[:, 0]), Recipe(steps=1), resume=True)


def test_what_was_just_written_is_kept_beside_a_damaged_later_one(tmp_path: Path) -> None:
    work(tmp_path, steps=10, keep=2)
    (tmp_path / "checkpoints" / "step-10" / "state.json").write_bytes(b"")
    work(tmp_path, steps=8, resume=True, keep=1)
    assert [p.name for p in checkpoint.list_checkpoints(tmp_path)] == ["step-8"]
    assert checkpoint.newest_good(tmp_path)[1]["step"] == 8


def test_a_checkpoint_killed_between_two_renames_is_found(tmp_path: Path) -> None:
    work(tmp_path, steps=5, keep=1)
    folder = tmp_path / "checkpoints"
    (folder / "step-5").rename(folder / ".step-5.123.old")
    assert checkpoint.newest_good(tmp_path)[1]["step"] == 5


@pytest.mark.parametrize("when", ["save", "end"])
def test_a_run_killed_after_it_decided_to_stop_stays_stopped(tmp_path: Path, when: str) -> None:
    options: dict[str, object] = {
        "steps": 200, "patience": 1, "save_every": 4, "lr": 0.05, "ema": None,
        "optimizer": "sgd", "schedule": "constant",
    }  # fmt: skip

    def kill(step: Step) -> None:
        if step.when == when and step.state.extras.get("stopped"):
            raise Kill

    whole = work(tmp_path / "whole", **options)
    with pytest.raises(Kill):
        work(tmp_path / "cut", observers=(kill,), **options)
    again = work(tmp_path / "cut", resume=True, **options)
    ends = [checkpoint.newest_good(tmp_path / name)[1]["step"] for name in ("whole", "cut")]
    assert ends[0] == ends[1] < 200
    assert torch.equal(vector(whole), vector(again))


def test_what_an_observer_changed_is_still_so_after_a_resume(tmp_path: Path) -> None:
    def clip(step: Step) -> Action | None:
        if step.when == "row" and step.step == 2 and "event" not in step.row:
            return Action("change", "x", 0.01, "clip_norm")
        return None

    def kill(step: Step) -> None:
        if step.when == "save" and step.step == 5:
            raise Kill

    options: dict[str, object] = {"steps": 12, "optimizer": "sgd", "log_every": 1}
    whole = work(tmp_path / "whole", observers=(clip,), **options)
    with pytest.raises(Kill):
        work(tmp_path / "cut", observers=(clip, kill), **options)
    again = work(tmp_path / "cut", resume=True, **options)
    assert torch.equal(vector(whole), vector(again))


def test_pruning_keeps_the_newest_and_leaves_no_debris(tmp_path: Path) -> None:
    work(tmp_path, steps=20)
    names = sorted(p.name for p in (tmp_path / "checkpoints").iterdir())
    assert names == ["step-15", "step-20"]


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="kills need POSIX processes")
def test_kill_minus_nine(tmp_path: Path) -> None:
    script = Path(__file__).parents[2] / "benchmarks" / "laws" / "kill.py"
    done = subprocess.run(
        [sys.executable, str(script), "--kills", "6", "--works", "table-mlp",
         "--out", str(tmp_path / "kill.json")],
        capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    record = json.loads((tmp_path / "kill.json").read_text())
    assert record["works"]["table-mlp"]["kills"] == 6


def test_sigterm_saves_and_leaves_with_75(tmp_path: Path) -> None:
    run = tmp_path / "run"
    process = subprocess.Popen(
        [sys.executable, "-m", "gipi", "train", "digits", "--model", "mlp", "--steps", "100000",
         "--set", "threads=1", "--out", str(run)],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    end = time.monotonic() + 120
    while not (run / "rows.jsonl").exists() or not (run / "rows.jsonl").read_text().count("\n"):
        assert time.monotonic() < end, "no row within two minutes"
        assert process.poll() is None, process.stderr.read() if process.stderr else ""
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 75, said
    assert "gipi resume" in said
    assert checkpoint.newest_good(run)[1]["step"] > 0


@pytest.mark.parametrize("when", ["save", "evaluate", "end"])
def test_a_signal_after_the_last_step_is_heard_as_well(tmp_path: Path, when: str) -> None:
    """Nothing is left to train, but scoring thousands of rows is: that belongs to `resume`."""

    def knock(step: Step) -> None:
        if step.when == when and step.step == 6:
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(Interrupted, match="SIGTERM at step 6"):
        work(tmp_path / "r", steps=6, observers=(knock,))
    resumed = work(tmp_path / "r", steps=6, resume=True)
    assert torch.equal(vector(resumed), vector(work(tmp_path / "whole", steps=6)))
