"""The doctor within `gipi.train`: what the user gave is his, what dooms a run is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from sklearn.datasets import load_digits

import gipi
from gipi.core import resolve
from gipi.core.errors import ConfigError
from gipi.doctor.consult import Consultation, refusal
from gipi.doctor.facts import Facts
from gipi.doctor.finding import Finding, Repair
from gipi.doctor.own_run import opened
from gipi.doctor.rules.lr_decay_too_fast import before
from gipi.doctor.settings import Changed, change
from gipi.train.prepare import Own, Prepared, prepare

if TYPE_CHECKING:
    from pathlib import Path

    from gipi.doctor import Experiment

FIXED = {"precision": "fp32", "threads": 1, "layout": "contiguous", "gemm": "native"}


def ready(*, settings: dict[str, Any] | None = None, **more: Any) -> tuple[Prepared, Experiment]:
    from gipi.api.training import streams_of
    from gipi.core.device import pick_device

    device = pick_device("cpu")
    given = {"model": "mlp", "steps": 20, **more}
    prepared = prepare([resolve.layer_from_values(given, settings=settings)], Own())
    exp = opened(prepared, *streams_of(prepared, device), device=device)
    assert exp is not None
    return prepared, exp


def lower(exp: Experiment) -> str:
    for group in exp.optimizer.param_groups:
        group["lr"] /= 10
    return "lower"


def shorter(exp: Experiment) -> str:
    exp.epochs /= 2
    return "half as long"


@pytest.mark.parametrize(("mode", "yes", "done"), [
    ("auto", False, True), ("ask", False, False), ("ask", True, True), ("advise", True, False),
])  # fmt: skip
def test_what_needs_a_yes_waits_for_it(mode: Any, *, yes: bool, done: bool) -> None:
    prepared, exp = ready()
    finding = Finding("any", "m", "a", repairs=(Repair("r", lower, mode=mode, setting="lr"),))
    result = Changed()
    assert change(finding, exp, prepared, result, yes=yes) == done
    assert bool(result.settings) == done


def test_a_repair_says_itself_which_setting_it_comes_to() -> None:
    prepared, exp = ready()

    def changed(*repairs: Repair) -> dict[str, Any]:
        result = Changed()
        change(Finding("any", "m", "a", repairs=repairs), exp, prepared, result, yes=False)
        return result.settings

    both = Repair("r", lower), Repair("s", shorter, setting="epochs")
    assert changed(both[0]) == {}  # what it does is more than the setting that moves with it
    assert changed(*both) == {"epochs": exp.epochs / 2, "steps": None, "time": None}
    assert changed(Repair("r", lower, setting="lr")) == {
        "lr": pytest.approx(prepared.config.lr / 10)
    }


def test_a_schedule_that_is_used_up_becomes_a_cosine_and_not_another_rate() -> None:
    prepared, exp = ready(steps=200, schedule="exponential", settings={"schedule.end": 1e-12})
    (finding,) = before(Facts(exp))
    result = Changed()
    assert change(finding, exp, prepared, result, yes=False)
    assert result.settings == {"schedule": "cosine", "schedule_options": {}}


def test_a_refusal_offers_only_what_would_help() -> None:
    his = {"key": "--set key"}
    known = Finding("a", "m", "a", repairs=(Repair("r", lower, mode="ask", setting="lr"),))
    assert "--apply" in refusal(known, his).do
    assert "--apply" not in refusal(known, {}).do
    for repair in (Repair("r", lower), Repair("r", lower, mode="advise", setting="lr")):
        assert "--apply" not in refusal(Finding("lr_a", "m", "a", repairs=(repair,)), his).do


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


@pytest.mark.parametrize("mixed", [False, True])
def test_labels_in_another_order_are_said_at_the_end_of_a_run(
    *, mixed: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    x, y = load_digits(return_X_y=True)
    target = np.random.default_rng(0).permutation(y) if mixed else y
    gipi.train((x.astype("float32"), target), epochs=10, seed=0, out=str(tmp_path / "run"),
               settings=FIXED)  # fmt: skip
    said = capsys.readouterr().out
    assert ("doctor: problem: a linear learner" in said) == mixed
    assert ("check how inputs and targets were joined" in said) == mixed


def test_many_rules_that_are_too_dear_are_counted_and_few_are_named() -> None:
    few = Consultation(unlooked=("padding", "underfit", "nan_inf"))  # nan_inf: the run shows it
    ahead = "doctor: too dear to look at before the first step: "
    assert few.lines() == [f"{ahead}padding, underfit; `gipi doctor RUN` looks again"]
    many = Consultation(unlooked=("padding", "underfit", "plateau", "dead_relu", "wrong_mask"))
    (said,) = many.lines()
    assert said.endswith(
        ": 5 rules (padding, underfit, plateau, dead_relu, ...); `gipi doctor RUN` looks again"
    )
