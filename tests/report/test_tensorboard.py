"""What TensorBoard reads is what the rows say."""

import builtins
import math

import pytest

from gipi.core.errors import MissingExtra
from gipi.core.events import Step
from gipi.core.rows import Rows
from gipi.core.rundir import ROWS
from gipi.report.tensorboard import TensorBoard, board_of, scalars

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # tensorboard's own


def stored(folder):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    found = accumulator.EventAccumulator(str(folder))
    found.Reload()
    return {
        name: [(e.step, e.value) for e in found.Scalars(name)] for name in found.Tags()["scalars"]
    }


def step(number, row, when="row"):
    return Step(when, number, 0, 0.0, {"step": number, **row})


def test_a_run_is_observed(tmp_path):
    board = TensorBoard(tmp_path / "board")
    layers = {"fc": {"grad_norm": 2.0}}
    assert board(step(1, {"train/loss": 0.5, "lr": 0.25, "layers": layers})) is None
    board(step(2, {"train/loss": math.nan}))
    board(step(2, {"val/loss": 0.75, "best": True}, "evaluate"))
    board(step(2, {"event": "note", "reason": "slow"}))
    board(step(2, {}, "end"))
    found = stored(tmp_path / "board")
    assert set(found) == {"train/loss", "lr", "layers/fc/grad_norm", "val/loss"}
    assert found["train/loss"][0] == (1, 0.5)
    assert math.isnan(found["train/loss"][1][1])
    assert found["layers/fc/grad_norm"] == [(1, 2.0)]


def test_a_resumed_run_hides_what_was_lost(tmp_path):
    first = TensorBoard(tmp_path / "board")
    for number in (1, 2, 3):
        first(step(number, {"train/loss": 1.0}))
    first.close()
    again = TensorBoard(tmp_path / "board")
    again(step(2, {"train/loss": 2.0}))
    again.close()
    assert stored(tmp_path / "board")["train/loss"] == [(1, 1.0), (2, 2.0)]


def test_a_finished_run_is_replayed(tmp_path):
    with Rows(tmp_path / ROWS) as rows:
        rows.write({"step": 1, "train/loss": 1.0})
        rows.write({"step": 2, "train/loss": math.inf})
    assert stored(board_of(tmp_path))["train/loss"] == [(1, 1.0), (2, math.inf)]


def test_only_numbers_are_scalars():
    row = {"step": 1, "event": "x", "best": True, "name": "n", "lr": 1, "layers": {"a": {"g": 2}}}
    assert list(scalars(row)) == [("lr", 1.0), ("layers/a/g", 2.0)]


def test_without_the_package_the_extra_is_named(tmp_path, monkeypatch):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name.startswith("torch.utils.tensorboard"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtra, match="tensorboard") as caught:
        TensorBoard(tmp_path)
    assert "gipi[track]" in caught.value.do
