"""Laws 2 and 3 on tags: micro-batches, ranks, padding and an interruption change no weight."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from gipi.train import checkpoint
from tests.laws.tag_work import CASES, opened, trained

WORK = Path(__file__).with_name("tag_work.py")


@pytest.mark.parametrize("case", CASES)
def test_micro_batches_change_no_weight(case: str, tmp_path: Path) -> None:
    found = opened(case, tmp_path)
    whole, parts = (
        trained(case, found, found.stream("train", batch_size=12), micro_batch=micro)
        for micro in (None, 5)
    )
    assert float((whole - parts).abs().max()) < 1e-10
    assert float((whole - parts[torch.randperm(len(parts))]).abs().max()) > 1e-3


@pytest.mark.parametrize("case", CASES)
def test_wider_padding_changes_no_weight(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = opened(case, tmp_path)
    narrow = trained(case, found, found.stream("train", batch_size=12))
    width = 40 if case == "answer" else 96  # an encoder has places for so many
    monkeypatch.setattr("gipi.data.tokens.width_of", lambda n: max(n, width // 3))
    wide = trained(case, found, found.stream("train", batch_size=12))
    assert float((narrow - wide).abs().max()) < 1e-10


@pytest.mark.parametrize("case", CASES)
def test_the_shares_of_ranks_are_the_batch(case: str, tmp_path: Path) -> None:
    found = opened(case, tmp_path)
    whole = list(found.stream("train", batch_size=12).epoch(0))
    shares = [
        list(found.stream("train", batch_size=12, rank=r, world=2).epoch(0)) for r in range(2)
    ]
    for batch, *parts in zip(whole, *shares, strict=True):
        for name, values in batch.inputs.items():
            assert torch.equal(values, torch.cat([p.inputs[name] for p in parts]))
        assert batch.target is not None
        assert torch.equal(
            batch.target, torch.cat([p.target for p in parts if p.target is not None])
        )


@pytest.mark.parametrize("case", ["bilstm-tagger", "answer"])
def test_two_ranks(case: str, tmp_path: Path) -> None:
    found = opened(case, tmp_path)
    alone = trained(case, found, found.stream("train", batch_size=12))
    out = tmp_path / "ranks.pt"
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
         str(WORK), str(out), str(tmp_path), case],
        capture_output=True, text=True, timeout=300, check=False, cwd=WORK.parents[2],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert float((alone - torch.load(out, weights_only=True)).abs().max()) < 1e-10


class Kill(Exception):
    """The end of a process."""


@pytest.mark.parametrize("case", ["bilstm-tagger", "answer"])
def test_a_resumed_run_ends_bit_identical(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = opened(case, tmp_path)
    recipe: dict[str, Any] = {
        "optimizer": "adamw", "lr": 0.01, "save_every": 5, "clip_norm": 1.0,
        "model": {"dropout": 0.3, **({"word_dropout": 0.2} if case != "answer" else {})},
    }  # fmt: skip
    for name in ("whole", "broken"):
        (tmp_path / name).mkdir()

    def run(name: str, *, resume: bool = False) -> torch.Tensor:
        torch.manual_seed(5 if name == "whole" or not resume else 99)
        stream = found.stream("train", batch_size=12)
        return trained(case, found, stream, out=tmp_path / name, resume=resume, **recipe)

    whole, saved = run("whole"), checkpoint.save

    def until(place: Path, state: Any, **options: Any) -> Path:
        if state.step > 12:
            raise Kill
        return saved(place, state, **options)

    monkeypatch.setattr(checkpoint, "save", until)
    with pytest.raises(Kill):
        run("broken")
    monkeypatch.setattr(checkpoint, "save", saved)
    assert torch.equal(whole, run("broken", resume=True))
