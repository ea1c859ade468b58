"""A run of `gipi train` whose rate is far too low is named before it begins, and afterwards."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from tests.doctor.patients import blobs, experiment, mlp
from torch import nn

import gipi
from gipi.api.doctoring import examine
from gipi.core import resolve
from gipi.core.device import pick_device
from gipi.core.errors import ConfigError
from gipi.doctor import crawl
from gipi.doctor.consult import Consultation, consult, refusal
from gipi.doctor.facts import Facts
from gipi.doctor.finding import Finding
from gipi.doctor.flags import in_flags
from gipi.doctor.rules import lr_too_low
from gipi.doctor.trace import LayerLook, Look, Trace
from gipi.train.prepare import Own, prepare

if TYPE_CHECKING:
    from pathlib import Path


def asked(data: str, **given: Any) -> Consultation:
    """Return what is said before the first step of a run."""
    from gipi.api.training import streams_of

    device = pick_device("cpu")
    layer = resolve.layer_from_flags({"data": data}, [f"{k}={v}" for k, v in given.items()])
    prepared = prepare([layer], Own())
    return consult(prepared, *streams_of(prepared, device), device=device)


@pytest.mark.parametrize("given", [{}, {"steps": 30}])
def test_a_rate_far_too_low_is_refused_with_the_one_to_take(given: dict[str, Any]) -> None:
    found = asked("wine", lr=1e-6, **given)
    assert [(f.code, f.confirmed) for f in found.findings] == [("lr_too_low", True)]
    assert found.refusal is not None
    assert "--apply" in found.refusal.do
    rate = float(found.findings[0].advice.partition("--lr ")[2].split()[0])
    assert 1e-4 < rate < 0.1


@pytest.mark.parametrize("given", [{}, {"steps": 30}, {"warmup": 0.5}, {"lr": 1e-4}, {"lr": 1e-5}])
def test_runs_that_are_short_slow_or_warm_up_are_left_alone(given: dict[str, Any]) -> None:
    assert asked("wine", **given).findings == []


def test_a_rate_of_the_users_is_changed_with_his_word_only() -> None:
    changed = asked("wine", lr=1e-6, apply="true")
    assert changed.refusal is None
    assert changed.changed.settings["lr"] > 1e-4
    said = asked("wine", lr=1e-6, doctor="advise")
    assert (said.refusal, said.changed.settings) == (None, {})


def test_a_finished_run_that_crawled_is_named(tmp_path: Path) -> None:
    where = tmp_path / "run"
    gipi.train("wine", steps=40, out=where, settings={"lr": 1e-6, "doctor": "off"}, quiet=True)
    assert "lr_too_low" in {f.code for f in examine(where).result.findings}


def test_the_parameters_that_go_the_farthest_are_judged() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    exp = experiment(model, blobs())
    exp.optimizer = torch.optim.Adam([{"params": model[0].parameters(), "lr": 1e-6},
                                      {"params": model[1].parameters(), "lr": 1e-3}])  # fmt: skip
    moved = {"0.weight": LayerLook(1.0, 1.0, 1e-6), "1.weight": LayerLook(1.0, 1.0, 1e-3)}
    trace = Trace(10, 10, looks=[Look(4, moved, {})])
    assert Trace.ratio_of(crawl.fastest(trace, exp)[-1]) == 1e-3


def test_questions_cost_what_is_declared() -> None:
    torch.manual_seed(0)
    exp = experiment(mlp(), blobs(), lr=1e-5)
    facts = Facts(exp, start=Facts(exp), allowed=400)
    finding = Finding("lr_too_low", "m", "a", evidence={
        "lr": 1e-5, "update_ratio": 1e-5, "reach": 1e-2, "first_loss": 0.7,
        "done": 0.1})  # fmt: skip
    declared = lr_too_low.cost(facts, finding)
    assert lr_too_low.confirm(facts, finding) is not None
    assert facts.passes <= declared == lr_too_low.RULE.passes


def test_advice_of_a_run_is_a_setting_that_its_model_has() -> None:
    finding = Finding("vanishing_gradient", "m", "in Python")
    layer = resolve.layer_from_flags({"data": "wine", "model": "mlp"}, [])
    prepared = prepare([layer], Own())
    assert "--set model.activation=relu" in in_flags(finding, prepared)
    spike = Finding("exploding_gradient", "m", "a", evidence={"clip": 2.0})
    assert "--set clip_norm=2" in refusal(
        Finding("a", "m", in_flags(spike, prepared)), {}).do  # fmt: skip
    assert in_flags(Finding("nan_inf", "m", "in Python"), prepared) == "in Python"


@pytest.mark.parametrize("written", ["init", "actvation"])
def test_an_option_without_its_section_is_recognised(written: str) -> None:
    with pytest.raises(ConfigError) as error:
        resolve.layer_from_flags({}, [f"{written}=he"])
    assert "model." in error.value.do
