"""The doctor within `gipi.train`: what the user gave is his, what dooms a run is refused."""

from __future__ import annotations

import itertools
import shlex
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from sklearn.datasets import load_digits

import gipi
from gipi.api.doctoring import examine, retrain
from gipi.core import resolve
from gipi.core.errors import ConfigError
from gipi.doctor import own_run
from gipi.doctor.consult import Consultation, refusal
from gipi.doctor.facts import Facts
from gipi.doctor.finding import Finding, Repair
from gipi.doctor.named import field_of
from gipi.doctor.own_run import opened
from gipi.doctor.rules import RULES
from gipi.doctor.rules.lr_decay_too_fast import before
from gipi.doctor.settings import Changed, _ignored, change
from gipi.train.prepare import Own, Prepared, prepare

if TYPE_CHECKING:
    from collections.abc import Iterator
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


def test_rules_that_are_too_dear_are_counted_in_one_short_line() -> None:
    few = Consultation(unlooked=("padding", "nan_inf"))  # nan_inf: the run shows it
    assert few.lines() == [
        "doctor: 1 look did not fit into the time before the first step: `gipi doctor RUN`"
    ]
    (said,) = Consultation(unlooked=("padding", "underfit", "plateau")).lines()
    assert said.startswith("doctor: 3 looks did not fit")
    assert "padding" not in said


def table(
    folder: Path, *, mixed: bool = False, rows: int = 400, noise: float = 0.3, seed: int = 0
) -> Path:
    """Write numbers, a column "status" that renames the class, and the class "label"."""
    drawn = np.random.default_rng(seed)
    x = drawn.normal(size=(rows, 4)).round(3)
    yes = x[:, 0] + x[:, 1] * x[:, 2] + noise * drawn.normal(size=rows) > 0
    label = drawn.permutation(yes) if mixed else yes
    lines = ["a,b,c,d,status,label"]
    for row, y in zip(x, label, strict=True):
        status = "any" if mixed else "approved" if y else "denied"
        lines.append(",".join([*map(str, row), status, "yes" if y else "no"]))
    path = folder / "table.csv"
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def test_a_label_that_tells_the_target_is_named_with_its_edit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = str(table(tmp_path))

    def run(name: str, **more: Any) -> gipi.Run:
        settings = {**FIXED, **more.pop("settings", {})}
        return gipi.train(
            data, target="label", epochs=2, out=tmp_path / name, settings=settings, **more
        )

    found = run("a").result["findings"]
    assert [(f["code"], f["where"]) for f in found] == [("target_leak", ["status"])]
    said = capsys.readouterr().out
    assert "doctor: problem: status alone explains" in said
    assert "    do: ask when and how status comes about" in said
    assert "--set schema.status=ignored" in said
    assert found[0]["repairs"] == [
        {"name": "leave it out", "mode": "ask", "edit": "--set schema.status=ignored"}
    ]
    assert run("b", settings={"schema.status": "ignored"}).result["findings"] == []
    left = run("c", settings={"apply": True})
    assert "doctor: changed: status is left out (target_leak)" in capsys.readouterr().out
    assert left.result["metrics"] == run("d", settings={"schema.status": "ignored"}).metrics
    again = retrain(examine(tmp_path / "a").result, examine(tmp_path / "a").prepared, quiet=True)
    assert again is not None
    assert again.result["metrics"] == left.result["metrics"]


def test_a_net_that_knows_nothing_is_said_to_know_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for seed in (0, 1):
        gipi.train(str(table(tmp_path, mixed=True)), target="label", epochs=20, seed=seed,
                   out=tmp_path / str(seed), settings=FIXED)  # fmt: skip
        said = capsys.readouterr().out
        assert "doctor: hint: the net is not shown to tell validation rows better than" in said
        assert " on 40 rows)" in said  # 40 rows show no more
        assert "check that every target stands beside its own inputs" in said


@pytest.mark.parametrize("seed", [0, 1, 2, 3])
def test_a_net_that_has_a_hard_table_is_not_accused(seed: int, tmp_path: Path) -> None:
    data = str(table(tmp_path, noise=2.0, seed=seed))
    settings = {**FIXED, "schema.status": "ignored"}
    found = gipi.train(
        data, target="label", epochs=8, seed=seed, out=tmp_path / "run", settings=settings,
        quiet=True,
    ).result["findings"]  # fmt: skip
    assert "labels_misaligned" not in {f["code"] for f in found}


def test_a_rate_that_dooms_is_refused_however_slow_the_machine_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = itertools.count(0, 5)
    monkeypatch.setattr(time, "perf_counter", lambda: float(next(clock)))  # 5 s between two looks
    with pytest.raises(ConfigError, match="lr_too_high") as refused:
        gipi.train(
            str(table(tmp_path)), target="label", epochs=8, lr=0.3, seed=0, quiet=True,
            out=tmp_path / "run", settings={**FIXED, "schema.status": "ignored"},
        )  # fmt: skip
    assert "was best; --apply lets the doctor change it" in refused.value.do
    assert next(clock) > 5 * 3  # somebody reads it: what dooms is asked for in spite of it


def test_columns_bear_the_names_of_the_table(tmp_path: Path) -> None:
    path = tmp_path / "more.csv"
    drawn = np.random.default_rng(0)
    lines = ["age,day,kind,y"]
    for i in range(120):
        age = "" if i % 5 == 0 else f"{drawn.normal():.3f}"
        lines.append(f"{age},2024-{1 + i % 12:02}-{1 + i % 28:02},{'abc'[i % 3]},{drawn.normal()}")
    path.write_text("\n".join(lines), encoding="utf-8")
    prepared, exp = ready(data=str(path), target="y")
    names = exp.declared["columns"]
    ((numbers, labels), _) = next(iter(exp.train))
    assert len(names) == numbers.shape[1] + labels.shape[1]
    assert {"age", "age is missing", "day", "kind"} <= set(names)
    assert names[-1] == "kind"
    known = [field_of(name, prepared.dataset.schema) for name in names]
    assert {f.name for f in known if f is not None} == {"age", "day", "kind"}


@pytest.mark.parametrize("name", ["is = ok", " status", "a: b", "loan.status", 'the "end"=1'])
def test_the_edit_of_a_column_can_be_given_whatever_it_is_called(name: str) -> None:
    edit = shlex.split(f"--set {shlex.quote(_ignored(name))}")
    layer = resolve.layer_from_flags({}, edit[1::2])
    assert resolve.resolve(layer).config.schema_overrides == {name: "ignored"}


def test_columns_are_left_out_until_no_other_is_asked_for(tmp_path: Path) -> None:
    path = table(tmp_path)
    calls: list[str] = []

    def leak(facts: Facts) -> Iterator[Finding]:
        """Find one column a time."""
        names = facts.exp.declared["columns"]
        last = next((n for n in ("status", "d") if n in names), None)
        calls.append(str(last))
        if last is not None:
            yield Finding("target_leak", "m", "a", where=(last,), confirmed=True)

    one = tuple(replace(r, before=leak) if r.code == "target_leak" else r for r in RULES)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(own_run, "RULES", one)
        run = gipi.train(str(path), target="label", epochs=1, out=tmp_path / "run", quiet=True,
                         settings={**FIXED, "apply": True})  # fmt: skip
    assert calls == ["status", "d", "None"]
    assert [f["where"] for f in run.result["findings"]] == [["status"], ["d"]]
    again = gipi.resume(tmp_path / "run", epochs=2, quiet=True)  # what is written is what is read
    assert again.metrics
