"""The same runs planned longer: as many times the steps, and a table of the newest commit alone."""

from __future__ import annotations

from typing import Any

from benchmarks.doctor.cases import SETTINGS
from benchmarks.doctor.longer import chosen, longer, table
from benchmarks.doctor.setup import build


def test_a_run_that_is_planned_longer_has_as_many_times_the_steps() -> None:
    case = next(c for c in chosen() if "mlp" in c.setting)
    once, thrice = (build(case, longer(SETTINGS, k), 0).sick.total_steps for k in (1, 3))
    assert thrice == 3 * once


def test_every_setting_is_measured_sick_and_healthy_at_most_once() -> None:
    kinds = [(c.setting, bool(c.truth)) for c in chosen()]
    assert len(kinds) == len(set(kinds))
    assert {sick for _, sick in kinds} == {True, False}


def row(commit: str, times: int, diagnose: float, *, repaired: bool) -> dict[str, Any]:
    seconds = {"run": 2.0, "diagnose": diagnose, "repair": 4.0 if repaired else 0.0}
    return {"commit": commit, "times": times, "planned": 100 * times, "repaired": repaired,
            "seconds": seconds}  # fmt: skip


def test_the_table_tells_medians_in_runs_of_the_newest_commit() -> None:
    rows = [
        row("old", 1, 90.0, repaired=True), row("new", 1, 3.0, repaired=True),
        row("new", 1, 5.0, repaired=False), row("new", 4, 2.0, repaired=False),
    ]  # fmt: skip
    assert table(rows).splitlines()[2:] == [
        "| x 1 | 2 | 100 | 2.00 | 3.00 | 3.50 (1) |", "| x 4 | 1 | 400 | 1.00 | 1.00 | - (0) |"
    ]  # fmt: skip
