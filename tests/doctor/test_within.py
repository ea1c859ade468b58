"""The doctor within `gipi.train`: what the user gave is his, what dooms a run is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

import gipi
from gipi.core import resolve
from gipi.core.errors import ConfigError
from gipi.doctor.finding import Finding, Repair
from gipi.doctor.within import Consultation, _changed, _refusal, opened
from gipi.train.prepare import Own, Prepared, prepare

if TYPE_CHECKING:
    from pathlib import Path

    from gipi.doctor import Experiment

FIXED = {"precision": "fp32", "threads": 1, "layout": "contiguous", "gemm": "native"}


def ready(**more: Any) -> tuple[Prepared, Experiment]:
    from gipi.api.training import streams_of
    from gipi.core.device import pick_device

    device = pick_device("cpu")
    prepared = prepare([resolve.layer_from_values({"model": "mlp", "steps": 20, **more})], Own())
    exp = opened(prepared, *streams_of(prepared, device), device=device)
    assert exp is not None
    return prepared, exp


def lower(exp: Experiment) -> str:
    for group in exp.optimizer.param_groups:
        group["lr"] /= 10
    return "lower"


@pytest.mark.parametrize(("mode", "yes", "done"), [
    ("auto", False, True), ("ask", False, False), ("ask", True, True), ("advise", True, False),
])  # fmt: skip
def test_what_needs_a_yes_waits_for_it(mode: Any, *, yes: bool, done: bool) -> None:
    prepared, exp = ready()
    finding = Finding("lr_too_high", "high", "lower it", repairs=(Repair("r", lower, mode=mode),))
    result = Consultation()
    assert _changed(finding, exp, prepared, result, yes=yes) == done
    assert bool(result.settings) == done


def test_a_refusal_offers_only_what_would_help() -> None:
    given = {"key": "--set key"}
    assert "--apply" in _refusal(Finding("lr_too_high", "m", "a"), given).do
    assert "--apply" not in _refusal(Finding("vanishing_gradient", "m", "a"), given).do
    assert "--apply" not in _refusal(Finding("lr_too_high", "m", "a"), {}).do


def test_weights_of_zero_are_refused_said_or_drawn(tmp_path: Path) -> None:
    def run(name: str, **more: Any) -> gipi.Run:
        settings = {**FIXED, "model.init": "zeros", **more}
        return gipi.train(model="mlp", steps=20, out=tmp_path / name, settings=settings, quiet=True)

    with pytest.raises(ConfigError, match="bad_init_symmetric"):
        run("a")
    assert not (tmp_path / "a").exists()
    said = run("b", doctor="advise")
    assert said.result["findings"][0]["code"] == "bad_init_symmetric"
    changed = run("c", apply=True)
    assert changed.metrics["val/accuracy"] > said.metrics["val/accuracy"]
    assert run("d", doctor="off").result["findings"] == []
