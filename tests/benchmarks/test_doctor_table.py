"""The doctor's benchmark: figures are what the rows say, and the rule sets of others fire."""

from __future__ import annotations

import math

import pytest
from benchmarks.doctor.baselines import Verdict, autotrainer, sagemaker
from benchmarks.doctor.rates import alarms, rates
from benchmarks.doctor.run import _finite, append, first_share, read
from benchmarks.doctor.table import (
    about,
    baseline_rows,
    closed,
    compared,
    costs,
    figures,
    nearly,
    newest,
    repairable,
    report,
    worse,
)

from gipi.doctor import Finding
from gipi.doctor.trace import LayerLook, Look, Trace, UnitLook


def found(code, severity="problem", parents=()):
    return {"code": code, "severity": severity, "parents": list(parents)}


def row(code="lr_too_high", findings=(), **more):
    return {
        "commit": "abc", "half": "tuned", "case": more.pop("case", f"{code}@x"), "seed": 0,
        "code": code, "also": [], "auto": True, "findings": list(findings), "time": "2026-01-02T03",
        "planned": 100, "data": "tables", "net": "mlp", "load": 1.0, **more,
    }  # fmt: skip


def by_name(rows):
    return {s.name: (s.hits, s.runs) for s in figures(rows)}


def test_causes_are_counted_by_rank() -> None:
    rows = [
        row(findings=[found("lr_too_high")], found_share=0.0),
        row(findings=[found("plateau"), found("lr_too_high")], found_share=0.05),
        row(findings=[found("a"), found("b"), found("c"), found("lr_too_high")], found_share=0.5),
        row(
            findings=[found("lr_too_low")],
            code="lr_decay_too_fast",
            also=["lr_too_low"],
            found_share=0.0,
        ),
        row(error="broke"),
    ]
    said = by_name(rows)
    assert said["true cause among the first three"] == (3, 5)
    assert said["true cause ranked first"] == (2, 5)
    assert said["the fault's own code first"] == (1, 5)
    assert said["found before the first step"] == (2, 5)
    assert said["found within a tenth of the steps"] == (3, 5)
    assert said["runs that broke or took too long"] == (1, 5)


def test_named_problems_are_roots_of_sick_and_healthy_runs() -> None:
    rows = [
        row(
            findings=[
                found("lr_too_high"),
                found("dead_relu", parents=["lr_too_high"]),
                found("overfit", "hint"),
            ]
        ),
        row(code="", findings=[found("overfit")]),
    ]
    assert by_name(rows)["named problems that are true"] == (1, 2)


def test_alarms_on_healthy_runs_and_on_repaired_twins() -> None:
    rows = [
        row(code=""), row(code="", findings=[found("overfit", "hint")]),
        row(code="", findings=[found("overfit")]), row(after=[found("plateau")]), row(after=[]),
    ]  # fmt: skip
    said = by_name(rows)
    assert said["healthy runs with a problem"] == (1, 3)
    assert said["healthy runs with a hint"] == (1, 3)
    assert said["repaired twins with a problem"] == (1, 2)
    assert said["repaired twins with a hint"] == (0, 2)


def test_a_repair_closes_nine_tenths_of_a_gap_that_is_there() -> None:
    cured = row(scores={"gap": [0.5, 0.05], "gain": [0.46, 0.05]})
    half = row(scores={"gap": [0.5, 0.05], "gain": [0.25, 0.05]})
    left = row(scores={"gap": [0.5, 0.05]})
    noise = row(scores={"gap": [0.05, 0.05], "gain": [0.0, 0.01]})
    asked = row(auto=False, scores={"gap": [0.5, 0.05]})
    assert [repairable(r) for r in (cured, half, left, noise, asked)] == [
        True,
        True,
        True,
        False,
        False,
    ]
    assert [closed(r) for r in (cured, half, left)] == [True, False, False]
    said = by_name([cured, half, left, noise, asked])
    assert said["repairable runs brought to 90 % of the gap"] == (1, 3)


def test_what_is_left_may_be_noise() -> None:
    gap = {"gap": [0.10, 0.01], "gain": [0.08, 0.01]}
    assert nearly(row(scores={**gap, "rest": [0.02, 0.006]}))
    assert not nearly(row(scores={**gap, "rest": [0.02, 0.004]}))
    assert not nearly(row(scores=gap))


def test_worse_is_beyond_two_standard_errors() -> None:
    assert worse(row(scores={"gain": [-0.21, 0.1]}))
    assert not worse(row(scores={"gain": [-0.19, 0.1]}))
    assert not worse(row(scores={}))


def test_costs_are_medians_of_ratios() -> None:
    rows = [
        row(
            seconds={"run": 1.0, "diagnose": d, "repair": 1.0, "preflight": 0.1},
            passes={"diagnose": 50},
        )
        for d in (1, 2, 9)
    ]
    lines = {line[0]: line for line in costs(rows)}
    assert lines["diagnose / run"][1] == "2.00"
    assert lines["(diagnose + repair) / run, all"][1] == "3.00"
    assert lines["diagnose / run"][3] == "9.00"


def test_verdicts_of_others_count_where_they_may_stand_for_the_fault() -> None:
    slow = {"name": "slow", "codes": ["lr_too_low"], "step": 3}
    explode = {"name": "explode", "codes": ["nan_inf", "lr_too_high"], "step": 50}
    said = {"Others": [slow, explode]}
    made = baseline_rows([row(said=said), row(code="", said=said)], "Others")
    assert [f["code"] for f in made[0]["findings"]] == ["slow", "lr_too_high"]
    assert made[0]["found_share"] == 0.5
    assert [f["code"] for f in made[1]["findings"]] == ["slow", "explode"]
    table = compared([row(findings=[found("lr_too_high")])], [row(said=said)])
    assert table[0] == ["", "gipi", "Others"]
    assert table[2][1].startswith("100.0 %")
    assert table[2][2].startswith("0.0 %")


def test_a_report_holds_every_figure_and_both_halves() -> None:
    rows = [row(findings=[found("lr_too_high")]), {**row(code="", case="plain@x"), "half": "drawn"}]
    page = report(rows, [], details=True)
    assert "## Tuned half: 1 sick and 0 healthy cases" in page
    assert "## Drawn half: 0 sick and 1 healthy cases" in page
    assert "| true cause ranked first | 100.0 % |" in page
    assert report([], []) == "no rows"


def test_rates_of_a_code_are_counted_where_it_is_and_where_it_is_not() -> None:
    gap = {"gap": [0.5, 0.05], "gain": [0.46, 0.05]}
    rows = [
        row(findings=[found("lr_too_high")], scores=gap),
        row(findings=[found("plateau"), found("lr_too_high", parents=["plateau"])]),
        {**row(), "half": "drawn"},
        row(code="overfit", findings=[found("lr_too_high"), found("overfit", "hint")]),
        row(code="", findings=[found("lr_too_high", "hint")]), row(code=""),
    ]  # fmt: skip
    head, high, over, silent = rates(rows, ["lr_too_high", "overfit", "dead_relu"])
    assert head[1:5] == [
        "named first, tuned half", "named first, drawn half", "among the first three",
        "in 2 healthy runs",
    ]  # fmt: skip
    assert high == ["lr_too_high", "1/2", "0/1", "2/3", "1 hint", "1", "1/1"]
    assert over == ["overfit", "0/1", "-", "1/1", "0", "0", "-"]
    assert silent[1:] == ["-", "-", "-", "0", "0", "-"]


def test_alarms_are_runs_and_not_findings() -> None:
    rows = [row(code="", findings=[found("overfit"), found("overfit")]) for _ in range(2)]
    assert alarms([*rows, row(code="", findings=[found("overfit", "hint")])], "overfit") == (
        "2 problems, 1 hint"
    )


def test_the_newest_commit_is_the_one_measured_last() -> None:
    old, new = row(), {**row(), "commit": "def", "time": "2026-02-01T00", "seed": 2}
    assert newest([new, old]) == [new]
    assert newest([]) == []
    assert about([new]).startswith("2026-02-01, commit def;")
    assert about([new]).endswith("seeds 2.")


def test_rows_survive_the_file_and_a_cut_off_row_is_left_out(tmp_path) -> None:
    path = tmp_path / "2026-01-02-doctor.jsonl"
    append(path, {**row(), "value": math.nan})
    append(path, {**row(), "value": 2.0})
    with path.open("a") as file:
        file.write('{"commit": "abc", "half"')
    assert [r["value"] for r in read(tmp_path)] == [2.0]
    assert _finite({"a": [math.inf, 1.0]}) == {"a": ["inf", 1.0]}


def test_when_a_true_finding_first_came() -> None:
    findings = [Finding("overfit", "", "", phase="epoch", step=10),
                Finding("lr_too_high", "", "", phase="steps", step=30),
                Finding("lr_too_high", "", "", phase="steps", step=20)]  # fmt: skip
    assert first_share(findings, ("lr_too_high",), 100) == 0.2
    assert first_share(findings, ("plateau",), 100) is None
    assert first_share([Finding("lr_too_high", "", "")], ("lr_too_high",), 100) == 0.0


# ---------------------------------------------------------------------- rule sets of others


def trace(scores, *, grads=(1e-2, 1e-2), dead=0.0):
    made = Trace(100, 10)
    for i, score in enumerate(scores):
        made.epochs.append(
            {
                "epoch": i + 1,
                "step": 10 * (i + 1),
                "train": 1.0,
                "train_score": score,
                "val_score": score,
            }
        )
    params = {f"{i}.weight": LayerLook(g, 0.1, 1e-3) for i, g in enumerate(grads)}
    made.looks.append(Look(0, params, {"relu": UnitLook("relu", dead, 0.0, 1.0, 64)}))
    return made


@pytest.mark.parametrize(
    ("made", "name"),
    [
        (trace([0.1] * 9, grads=(1e-6, 1e-2)), "vanish"),
        (trace([0.1] * 9, grads=(10.0, 1e-2)), "explode"),
        (trace([0.1] * 9, dead=0.9), "dying relu"),
        (trace([0.1] * 9), "slow convergence"),
        (trace([0.8, 0.9, 0.7, 0.9, 0.7, 0.9, 0.7, 0.9, 0.7]), "oscillating loss"),
    ],
)
def test_autotrainer_names_its_five_problems(made, name) -> None:
    assert [v.name for v in autotrainer(made, None)] == [name]


def test_autotrainer_is_silent_on_a_good_run() -> None:
    assert list(autotrainer(trace([0.5, 0.7, 0.8, 0.85, 0.9, 0.92, 0.93, 0.94, 0.95]), None)) == []


class Table:
    """Facts of a balanced table."""

    classes, y, inputs, X = 0, None, "table", None


def test_sagemaker_fires_once_a_rule_in_order_of_steps() -> None:
    made = trace([0.5] * 3, grads=(1e-9, 1e-2), dead=0.8)
    made.losses = [1.0] * 30
    said = list(sagemaker(made, Table()))
    assert [v.name for v in said] == ["VanishingGradient", "DeadRelu", "LossNotDecreasing"]
    assert isinstance(said[0], Verdict)
    assert said[-1].step == 10
